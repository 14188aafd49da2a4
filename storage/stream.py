"""What the stream's writer commits: batches of rows of every kind, in one transaction, and its positions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import asyncpg

from storage.database import StorageError
from storage.device_lists import (
    HAS_DEVICE_LIST,
    HAS_SIGNATURE,
    AnnouncedDeviceRow,
    DeviceListRow,
    SignatureRow,
    upsert_announced_devices,
    upsert_device_lists,
    upsert_signatures,
)
from storage.directory import RoomSummaryRow, upsert_room_summaries
from storage.events import REDACT_EVENTS, EventMove, StoredEvent, insert_events, move_events
from storage.federation import (
    DestinationRow,
    OutgoingEdu,
    PendingRedaction,
    insert_destinations,
    insert_outgoing,
    insert_outgoing_edus,
    insert_pending_redactions,
)
from storage.partial_rooms import (
    HAS_COMPLETED,
    AbandonedRow,
    CompletedRow,
    PartialRoomRow,
    abandon_rooms,
    complete_rooms,
    upsert_partial_rooms,
)
from storage.presence import HAS_STATUS, StatusRow, upsert_statuses
from storage.relations import RelationRow, delete_relations, insert_relations
from storage.rooms import (
    HAS_MEMBERSHIP,
    AliasRow,
    EnteredRow,
    MembershipRow,
    ReplacementRow,
    ResolvedRow,
    RoomRow,
    StateKeyRow,
    enter_rooms,
    insert_aliases,
    insert_rooms,
    insert_state_keys,
    replace_rooms,
    set_resolved,
    upsert_memberships,
)
from storage.snapshots import HAS_SNAPSHOT, GroundRow, NewSnapshot, SnapshotRepository, insert_snapshots
from storage.to_device import (
    HAS_TRANSACTION,
    ToDeviceRow,
    ToDeviceTransactionRow,
    insert_messages,
    insert_transactions,
)
from storage.unread import (
    CountingModeRow,
    RoomHighlightRow,
    ThreadEventRow,
    insert_counting_modes,
    insert_room_highlights,
    insert_thread_events,
)
from storage.user_data import (
    AccountDataRow,
    PersonalCountRow,
    ReceiptRow,
    delete_personal_counts,
    insert_personal_counts,
    upsert_account_data,
    upsert_receipts,
)

RESERVE_POSITIONS = "UPDATE stream SET reserved_until = reserved_until + $1 RETURNING reserved_until"
RESERVED_UNTIL = "SELECT reserved_until FROM stream"
CLAIM_SERVER_NAME = "UPDATE stream SET server_name = coalesce(server_name, $1) RETURNING server_name"

# One row of each kind that can be alone in a batch tells whether the batch was committed.
HAS_EVENT = "SELECT EXISTS (SELECT FROM events WHERE position = $1)"
HAS_ALIAS = "SELECT EXISTS (SELECT FROM aliases WHERE alias = $1 AND room = $2 AND creator = $3)"
HAS_RECEIPT = """
SELECT EXISTS (SELECT FROM receipts
    WHERE room = $1 AND user_id = $2 AND type = $3 AND thread_id = $4 AND position = $5)
"""
HAS_OUTGOING_EDU = "SELECT EXISTS (SELECT FROM outgoing_edus WHERE destination = $1 AND position = $2)"
HAS_ACCOUNT_DATA = """
SELECT EXISTS (SELECT FROM account_data WHERE user_id = $1 AND room = $2 AND type = $3 AND position = $4)
"""


@dataclass(slots=True, frozen=True)
class Redaction:
    """A redacted event's new form. `position` is the event's, `redacted_by` that of the redaction.

    `parent` is the ID of the event that it related to, to which it does not any more.
    """

    room: int
    position: int
    json: bytes
    redacted_by: int
    parent: str | None = None


class Writes:
    """Rows to be committed together, in the order of their positions. One is made for every event: a plain class."""

    __slots__ = (
        "abandoned",
        "account_data",
        "aliases",
        "announced_devices",
        "completions",
        "counting_modes",
        "destinations",
        "device_lists",
        "entered",
        "events",
        "grounds",
        "memberships",
        "moves",
        "outgoing",
        "outgoing_edus",
        "partial_rooms",
        "pending_redactions",
        "personal_counts",
        "receipts",
        "redactions",
        "relations",
        "replacements",
        "resolved",
        "room_highlights",
        "rooms",
        "signatures",
        "snapshots",
        "state_keys",
        "statuses",
        "summaries",
        "thread_events",
        "to_device",
        "to_device_transactions",
    )

    def __init__(self) -> None:
        self.events: list[StoredEvent] = []
        self.snapshots: list[NewSnapshot] = []
        self.rooms: list[RoomRow] = []
        self.entered: list[EnteredRow] = []
        self.aliases: list[AliasRow] = []
        self.state_keys: list[StateKeyRow] = []
        self.resolved: list[ResolvedRow] = []
        self.memberships: list[MembershipRow] = []
        self.personal_counts: list[PersonalCountRow] = []
        self.thread_events: list[ThreadEventRow] = []
        self.room_highlights: list[RoomHighlightRow] = []
        self.relations: list[RelationRow] = []
        self.redactions: list[Redaction] = []
        self.receipts: list[ReceiptRow] = []
        self.account_data: list[AccountDataRow] = []
        self.counting_modes: list[CountingModeRow] = []
        self.statuses: list[StatusRow] = []
        self.summaries: list[RoomSummaryRow] = []
        self.replacements: list[ReplacementRow] = []
        self.moves: list[EventMove] = []
        self.outgoing: list[int] = []
        self.destinations: list[DestinationRow] = []
        self.outgoing_edus: list[OutgoingEdu] = []
        self.pending_redactions: list[PendingRedaction] = []
        self.to_device: list[ToDeviceRow] = []
        self.to_device_transactions: list[ToDeviceTransactionRow] = []
        self.signatures: list[SignatureRow] = []
        self.device_lists: list[DeviceListRow] = []
        self.announced_devices: list[AnnouncedDeviceRow] = []
        self.grounds: list[GroundRow] = []
        self.abandoned: list[AbandonedRow] = []
        self.partial_rooms: list[PartialRoomRow] = []
        self.completions: list[CompletedRow] = []

    def extend(self, other: Writes) -> None:
        """Adds what another holds, behind what is here."""
        for kind in KINDS:
            if rows := getattr(other, kind):
                getattr(self, kind).extend(rows)

    def kinds(self) -> list[str]:
        """The kinds that have rows, in the order in which they are written."""
        return [kind for kind in KINDS if getattr(self, kind)]


# Moved events make way for themselves. Redactions come after the events, counts and relations that they may take back.
KINDS = (
    "moves",
    "events",
    "snapshots",
    "rooms",
    "entered",
    "aliases",
    "state_keys",
    "resolved",
    "memberships",
    "personal_counts",
    "thread_events",
    "room_highlights",
    "relations",
    "redactions",
    "receipts",
    "account_data",
    "counting_modes",
    "summaries",
    "statuses",
    "replacements",
    "destinations",
    "outgoing",
    "outgoing_edus",
    "pending_redactions",
    "to_device",
    "to_device_transactions",
    "signatures",
    "device_lists",
    "announced_devices",
    "grounds",
    "abandoned",
    "partial_rooms",
    "completions",
)


class StreamRepository:
    """Commits batches on the writer's connection."""

    def __init__(self, snapshots: SnapshotRepository) -> None:
        self._snapshots = snapshots

    async def claim_server_name(self, connection: asyncpg.Connection, server_name: str) -> None:
        """Ties the database to a server name for ever. Raises StorageError when it has another one."""
        claimed = await connection.fetchval(CLAIM_SERVER_NAME, server_name)
        if claimed != server_name:
            raise StorageError(f"the database belongs to the server {claimed}, not {server_name}")

    async def reserve_positions(self, connection: asyncpg.Connection, count: int) -> range:
        """Positions that nobody was given before and nobody will be given again, after all earlier ones."""
        end = int(await connection.fetchval(RESERVE_POSITIONS, count)) + 1
        return range(end - count, end)

    async def load_reserved_until(self, connection: asyncpg.Connection) -> int:
        """The position up to which (and without which) positions were ever reserved."""
        return int(await connection.fetchval(RESERVED_UNTIL)) + 1

    async def is_committed(self, connection: asyncpg.Connection, writes: Writes) -> bool:
        """Whether a batch is durable, whose commit was interrupted. Only the writer can tell: nobody is ahead of it."""
        if writes.events:
            found = await connection.fetchval(HAS_EVENT, writes.events[-1].position)
        elif writes.receipts:
            row = writes.receipts[-1]
            key = (row.room, row.user_id, row.type, row.thread_id)
            found = await connection.fetchval(HAS_RECEIPT, *key, row.position)
        elif writes.account_data:
            data = writes.account_data[-1]
            found = await connection.fetchval(HAS_ACCOUNT_DATA, data.user_id, data.room, data.type, data.position)
        elif writes.outgoing_edus:
            edu = writes.outgoing_edus[-1]
            found = await connection.fetchval(HAS_OUTGOING_EDU, edu.destination, edu.position)
        elif writes.statuses:
            status = writes.statuses[-1]
            found = await connection.fetchval(HAS_STATUS, status.user_id, status.position)
        elif writes.to_device_transactions:
            transaction = writes.to_device_transactions[-1]
            found = await connection.fetchval(HAS_TRANSACTION, transaction.source, transaction.txn_id)
        elif writes.device_lists:
            found = await connection.fetchval(HAS_DEVICE_LIST, *writes.device_lists[-1])
        elif writes.signatures:
            found = await connection.fetchval(HAS_SIGNATURE, *writes.signatures[-1][:5])
        elif writes.completions:
            found = await connection.fetchval(HAS_COMPLETED, *writes.completions[-1])
        elif writes.snapshots:
            found = await connection.fetchval(HAS_SNAPSHOT, writes.snapshots[-1].snapshot)
        elif writes.memberships:
            found = await connection.fetchval(HAS_MEMBERSHIP, *writes.memberships[-1][:3])
        else:
            assert writes.aliases, "what else is written goes with events"
            found = await connection.fetchval(HAS_ALIAS, *writes.aliases[-1])
        return bool(found)

    async def commit(self, connection: asyncpg.Connection, writes: Writes) -> None:
        """Makes a batch durable, whole or not at all."""
        kinds = writes.kinds()
        if kinds == ["events"]:
            await insert_events(connection, writes.events)  # one statement is a transaction of its own
            return
        try:
            async with connection.transaction():
                for kind in kinds:
                    await self._write(connection, kind, getattr(writes, kind))
        except BaseException:
            self._snapshots.forget_cached()
            raise

    async def _write(self, connection: asyncpg.Connection, kind: str, rows: Any) -> None:
        match kind:
            case "events":
                await insert_events(connection, rows)
            case "snapshots":
                await insert_snapshots(connection, await self._snapshots.plan(connection, rows))
            case "rooms":
                await insert_rooms(connection, rows)
            case "entered":
                await enter_rooms(connection, rows)
            case "aliases":
                await insert_aliases(connection, rows)
            case "state_keys":
                await insert_state_keys(connection, rows)
            case "resolved":
                await set_resolved(connection, rows)
            case "memberships":
                await upsert_memberships(connection, rows)
            case "relations":
                await insert_relations(connection, rows)
            case "redactions":
                await self._redact(connection, rows)
            case "personal_counts":
                await insert_personal_counts(connection, rows)
            case "thread_events":
                await insert_thread_events(connection, rows)
            case "room_highlights":
                await insert_room_highlights(connection, rows)
            case "counting_modes":
                await insert_counting_modes(connection, rows)
            case "receipts":
                await upsert_receipts(connection, rows)
            case "account_data":
                await upsert_account_data(connection, rows)
            case "statuses":
                await upsert_statuses(connection, rows)
            case "summaries":
                await upsert_room_summaries(connection, rows)
            case "replacements":
                await replace_rooms(connection, rows)
            case "moves":
                await move_events(connection, rows)
            case "destinations":
                await insert_destinations(connection, rows)
            case "outgoing":
                await insert_outgoing(connection, rows)
            case "outgoing_edus":
                await insert_outgoing_edus(connection, rows)
            case "pending_redactions":
                await insert_pending_redactions(connection, rows)
            case "to_device":
                await insert_messages(connection, rows)
            case "to_device_transactions":
                await insert_transactions(connection, rows)
            case "signatures":
                await upsert_signatures(connection, rows)
            case "device_lists":
                await upsert_device_lists(connection, rows)
            case "announced_devices":
                await upsert_announced_devices(connection, rows)
            case "grounds":
                await self._snapshots.rewrite_grounds(connection, rows)
            case "abandoned":
                await abandon_rooms(connection, rows)
            case "partial_rooms":
                await upsert_partial_rooms(connection, rows)
            case "completions":
                await complete_rooms(connection, rows)
            case _:
                raise AssertionError(kind)

    async def _redact(self, connection: asyncpg.Connection, redactions: Iterable[Redaction]) -> None:
        by_room: dict[int, list[int]] = {}
        for redaction in redactions:
            by_room.setdefault(redaction.room, []).append(redaction.position)
        await connection.execute(
            REDACT_EVENTS,
            [r.position for r in redactions],
            [r.json for r in redactions],
            [r.redacted_by for r in redactions],
        )
        if related := [r.position for r in redactions if r.parent is not None]:
            await delete_relations(connection, related)
        for room, positions in by_room.items():
            await delete_personal_counts(connection, room, positions)

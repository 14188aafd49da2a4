"""Events as rows: written in bulk by the stream's writer, read by position, by ID and as slices of a timeline."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import IntEnum
from typing import Any, NamedTuple

import asyncpg
import orjson

from matrix.pdu import Pdu, load_pdu
from matrix.room_versions import ROOM_VERSIONS
from storage.relations import NO_CHILDREN, Children


class EventKind(IntEnum):
    """What an event is to its room's timeline (docs/glossary.md)."""

    TIMELINE = 0
    OUTLIER = 1
    REJECTED = 2
    SOFT_FAILED = 3


class EventMove(NamedTuple):
    """An event that was known as state, or refused a place, and is now in the timeline at another position."""

    position: int
    moved_to: int


class StoredEvent:
    """An event and what this server knows about it. Immutable, but for what a redaction does and for caches.

    `snapshot` is the state after the event; `replaces` the position of the event whose place in the state it took;
    `notify_count` and `highlight_count` are the room's running counts at the event (docs/adr/0004). `children` is what
    relates to it, None while that is not known; nothing relates to a new event.
    """

    __slots__ = (
        "children",
        "client_json",
        "device",
        "event_id",
        "extremities",
        "highlight_count",
        "kind",
        "notifies",
        "notify_count",
        "pdu",
        "position",
        "redacted_by",
        "replaces",
        "room",
        "room_snapshot",
        "snapshot",
        "txn_id",
        "unsigned_json",
    )

    def __init__(
        self,
        *,
        position: int,
        room: int,
        pdu: Pdu,
        snapshot: int,
        kind: int = EventKind.TIMELINE,
        notifies: bool = False,
        notify_count: int = 0,
        highlight_count: int = 0,
        device: int | None = None,
        txn_id: str | None = None,
        replaces: int | None = None,
        redacted_by: int | None = None,
        extremities: list[int] | None = None,
        room_snapshot: int | None = None,
    ) -> None:
        self.position = position
        self.room = room
        self.pdu = pdu
        self.event_id = pdu.event_id
        self.snapshot = snapshot
        self.kind = kind
        self.notifies = notifies
        self.notify_count = notify_count
        self.highlight_count = highlight_count
        self.device = device
        self.txn_id = txn_id
        self.replaces = replaces
        self.redacted_by = redacted_by
        self.extremities = extremities
        self.room_snapshot = room_snapshot
        self.children: Children | None = NO_CHILDREN
        self.client_json: bytes | None = None
        self.unsigned_json: bytes | None = None

    def __repr__(self) -> str:
        return f"<StoredEvent {self.position} {self.pdu.type} {self.event_id}>"


INSERT_EVENTS = """
INSERT INTO events (
    position, snapshot, room, notify_count, highlight_count, device, kind, notifies, event_id, sender, type, json,
    txn_id, replaces, redacted_by, extremities, room_snapshot, origin_server_ts)
SELECT position, snapshot, room, notify_count, highlight_count, device, kind, notifies, event_id, sender, type, json,
    txn_id, replaces, redacted_by, extremities::bigint[], room_snapshot, origin_server_ts
FROM unnest(
    $1::bigint[], $2::bigint[], $3::int[], $4::int[], $5::int[], $6::int[], $7::smallint[], $8::bool[], $9::text[],
    $10::text[], $11::text[], $12::bytea[], $13::text[], $14::bigint[], $15::bigint[], $16::text[], $17::bigint[],
    $18::bigint[]
) AS new (
    position, snapshot, room, notify_count, highlight_count, device, kind, notifies, event_id, sender, type, json,
    txn_id, replaces, redacted_by, extremities, room_snapshot, origin_server_ts)
"""

COPY_FROM_EVENTS = 100
"""From how many events on they are copied, as the state of a room is that comes in: before, that costs more."""
COPIED_COLUMNS = (
    "position",
    "snapshot",
    "room",
    "notify_count",
    "highlight_count",
    "device",
    "kind",
    "notifies",
    "event_id",
    "sender",
    "type",
    "json",
    "txn_id",
    "replaces",
    "redacted_by",
    "extremities",
    "room_snapshot",
    "origin_server_ts",
)

# An event without children is known as such when it is read: nearly all are. (A LIMIT keeps the planner from reading
# all relations at once.)
COLUMNS = """
SELECT e.position, e.snapshot, e.room, e.notify_count, e.highlight_count, e.device, e.kind, e.notifies, e.event_id,
    e.json, e.txn_id, e.replaces, e.redacted_by, e.extremities, e.room_snapshot, r.version,
    (SELECT true FROM relations c WHERE c.room = e.room AND c.parent = e.event_id LIMIT 1) AS has_children
FROM events e JOIN rooms r USING (room)
"""

EVENTS_BY_POSITION = COLUMNS + "WHERE e.position = ANY($1::bigint[])"
EVENTS_BY_ID = COLUMNS + "WHERE e.event_id = ANY($1::text[])"

# The newest event of a room's timeline: it tells the room's head.
LAST_EVENT = COLUMNS + "WHERE e.room = $1 AND e.kind = 0 ORDER BY e.position DESC LIMIT 1"

# A slice of a room's timeline with after < position <= up_to, newest or oldest first.
TIMELINE_BACKWARDS = (
    COLUMNS + "WHERE e.room = $1 AND e.kind = 0 AND e.position > $2 AND e.position <= $3"
    " ORDER BY e.position DESC LIMIT $4"
)
TIMELINE_FORWARDS = (
    COLUMNS + "WHERE e.room = $1 AND e.kind = 0 AND e.position > $2 AND e.position <= $3"
    " ORDER BY e.position ASC LIMIT $4"
)

# A room's events around a moment, in the order of their time: from (time, position) on, without the event there.
EVENTS_FROM = (
    COLUMNS
    + "WHERE e.room = $1 AND e.kind = 0 AND e.origin_server_ts >= $2 AND (e.origin_server_ts, e.position) > ($2, $3)"
    " ORDER BY e.origin_server_ts, e.position LIMIT $4"
)
EVENTS_UP_TO = (
    COLUMNS
    + "WHERE e.room = $1 AND e.kind = 0 AND e.origin_server_ts <= $2 AND (e.origin_server_ts, e.position) < ($2, $3)"
    " ORDER BY e.origin_server_ts DESC, e.position DESC LIMIT $4"
)

# What a device sent under a transaction ID: more than one row only where paths differ.
EVENTS_BY_TRANSACTION = COLUMNS + "WHERE e.device = $1 AND e.txn_id = $2"

# A device's newest transactions, to warm the memory of them.
DEVICE_TRANSACTIONS = """
SELECT txn_id FROM events WHERE device = $1 AND txn_id IS NOT NULL LIMIT $2
"""

# Events whose place in the timeline has come to light: the rows go, to be written anew where they belong.
DELETE_MOVED = "DELETE FROM events WHERE position = ANY($1::bigint[])"
INSERT_MOVED = "INSERT INTO moved_events (position, moved_to) SELECT * FROM unnest($1::bigint[], $2::bigint[])"
MOVED = "SELECT position, moved_to FROM moved_events WHERE position = ANY($1::bigint[])"

# The IDs of events by the positions that they have or had.
EVENT_IDS = """
SELECT w.position, e.event_id FROM unnest($1::bigint[]) AS w (position)
LEFT JOIN moved_events m USING (position) JOIN events e ON e.position = coalesce(m.moved_to, w.position)
"""

# The oldest event of a room's timeline.
FIRST_EVENT = COLUMNS + "WHERE e.room = $1 AND e.kind = 0 ORDER BY e.position LIMIT 1"
FIRST_POSITION = "SELECT coalesce(min(position), 0) FROM events"

REDACT_EVENTS = """
UPDATE events SET json = new.json, redacted_by = new.redacted_by
FROM unnest($1::bigint[], $2::bytea[], $3::bigint[]) AS new (position, json, redacted_by)
WHERE events.position = new.position
"""


def from_row(row: asyncpg.Record) -> StoredEvent:
    """A StoredEvent from a row of one of the queries above."""
    event = StoredEvent(
        position=row["position"],
        room=row["room"],
        pdu=load_pdu(orjson.loads(row["json"]), ROOM_VERSIONS[row["version"]], row["event_id"]),
        snapshot=row["snapshot"],
        kind=row["kind"],
        notifies=row["notifies"],
        notify_count=row["notify_count"],
        highlight_count=row["highlight_count"],
        device=row["device"],
        txn_id=row["txn_id"],
        replaces=row["replaces"],
        redacted_by=row["redacted_by"],
        extremities=row["extremities"],
        room_snapshot=row["room_snapshot"],
    )
    if row["has_children"]:
        event.children = None
    return event


def _record(e: StoredEvent) -> tuple[Any, ...]:
    """An event as a row of COPIED_COLUMNS."""
    return (
        e.position,
        e.snapshot,
        e.room,
        e.notify_count,
        e.highlight_count,
        e.device,
        e.kind,
        e.notifies,
        e.event_id,
        e.pdu.sender,
        e.pdu.type,
        orjson.dumps(e.pdu.json),
        e.txn_id,
        e.replaces,
        e.redacted_by,
        e.extremities,
        e.room_snapshot,
        e.pdu.origin_server_ts,
    )


async def insert_events(connection: asyncpg.Connection, events: Sequence[StoredEvent]) -> None:
    """Writes events in one statement."""
    if len(events) >= COPY_FROM_EVENTS:
        await connection.copy_records_to_table("events", columns=COPIED_COLUMNS, records=map(_record, events))
        return
    await connection.execute(
        INSERT_EVENTS,
        [e.position for e in events],
        [e.snapshot for e in events],
        [e.room for e in events],
        [e.notify_count for e in events],
        [e.highlight_count for e in events],
        [e.device for e in events],
        [e.kind for e in events],
        [e.notifies for e in events],
        [e.event_id for e in events],
        [e.pdu.sender for e in events],
        [e.pdu.type for e in events],
        [orjson.dumps(e.pdu.json) for e in events],
        [e.txn_id for e in events],
        [e.replaces for e in events],
        [e.redacted_by for e in events],
        [e.extremities and "{" + ",".join(map(str, e.extremities)) + "}" for e in events],
        [e.room_snapshot for e in events],
        [e.pdu.origin_server_ts for e in events],
    )


async def move_events(connection: asyncpg.Connection, moves: Sequence[EventMove]) -> None:
    """Makes way for events that are written anew elsewhere in the same transaction."""
    positions = [move.position for move in moves]
    await connection.execute(DELETE_MOVED, positions)
    await connection.execute(INSERT_MOVED, positions, [move.moved_to for move in moves])


class EventRepository:
    """Reads of events."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def load_by_position(self, positions: Iterable[int]) -> list[StoredEvent]:
        """The events at these positions, in no particular order; missing ones are left out."""
        return await self._load(EVENTS_BY_POSITION, list(positions))

    async def load_by_id(self, event_ids: Iterable[str]) -> list[StoredEvent]:
        """The events with these IDs, of any kind, in no particular order."""
        return await self._load(EVENTS_BY_ID, list(event_ids))

    async def load_moved(self, positions: Iterable[int]) -> dict[int, int]:
        """Where events are now that had these positions: old -> new."""
        return {row["position"]: row["moved_to"] for row in await self._pool.fetch(MOVED, list(positions))}

    async def load_event_ids(self, positions: Iterable[int]) -> dict[int, str]:
        """Position -> event ID, without the events."""
        return {row["position"]: row["event_id"] for row in await self._pool.fetch(EVENT_IDS, list(positions))}

    async def load_first(self, room: int) -> StoredEvent | None:
        """The oldest event of a room's timeline."""
        rows = await self._load(FIRST_EVENT, room)
        return rows[0] if rows else None

    async def load_first_position(self) -> int:
        """The lowest position in use, 0 without events."""
        return int(await self._pool.fetchval(FIRST_POSITION))

    async def load_last(self, room: int) -> StoredEvent | None:
        """The newest event of a room's timeline."""
        rows = await self._load(LAST_EVENT, room)
        return rows[0] if rows else None

    async def load_timeline(
        self, room: int, *, after: int, up_to: int, limit: int, backwards: bool
    ) -> list[StoredEvent]:
        """At most `limit` timeline events with after < position <= up_to, in the direction's order."""
        query = TIMELINE_BACKWARDS if backwards else TIMELINE_FORWARDS
        return await self._load(query, room, after, up_to, limit)

    async def load_by_time(
        self, room: int, *, ts: int, position: int, limit: int, backwards: bool
    ) -> list[StoredEvent]:
        """Timeline events by their time, from `ts` (and there from a position, without it) in a direction."""
        return await self._load(EVENTS_UP_TO if backwards else EVENTS_FROM, room, ts, position, limit)

    async def load_by_transaction(self, device: int, txn_id: str) -> list[StoredEvent]:
        """What a device sent under a transaction ID, in all rooms and paths."""
        return await self._load(EVENTS_BY_TRANSACTION, device, txn_id)

    async def load_transactions(self, device: int, *, limit: int) -> list[str]:
        """Up to `limit` transaction IDs that a device has used."""
        rows = await self._pool.fetch(DEVICE_TRANSACTIONS, device, limit)
        return [row["txn_id"] for row in rows]

    async def _load(self, query: str, *args: Any) -> list[StoredEvent]:
        return [from_row(row) for row in await self._pool.fetch(query, *args)]

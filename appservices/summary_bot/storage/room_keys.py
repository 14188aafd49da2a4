"""Keys of rooms: those that others have sent, and the bot's own, with whom these were shared."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from appservices.summary_bot.encryption.devices import Device
from appservices.summary_bot.storage.database import Connection, Database

MAX_SESSIONS_PER_SENDER = 5000
"""How many keys of one person are kept: a session has a hundred messages, where nobody has changed that."""

# A key that reaches further back replaces the one that is there; https://spec.matrix.org/v1.19/client-server-api/
# #mmegolmv1aes-sha2
UPSERT_INBOUND = """
INSERT INTO inbound_sessions AS s
    (session_id, room_id, sender, identity_key, pickle, first_index, was_trusted, received_ts)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
ON CONFLICT (session_id, room_id, sender) DO UPDATE SET pickle = EXCLUDED.pickle, first_index = EXCLUDED.first_index
WHERE s.identity_key = EXCLUDED.identity_key AND s.first_index > EXCLUDED.first_index
"""
DELETE_TOO_MANY = """
DELETE FROM inbound_sessions WHERE sender = $1 AND received_ts < (
    SELECT received_ts FROM inbound_sessions WHERE sender = $1 ORDER BY received_ts DESC OFFSET $2 LIMIT 1
)
"""
# Whoever signs their devices is not believed to have written what came from another: the homeserver can make some up.
# https://spec.matrix.org/v1.19/client-server-api/#recommended-client-behaviour
LOAD_INBOUND = """
SELECT session_id, sender, pickle FROM inbound_sessions AS s
WHERE room_id = $1 AND session_id = ANY($2::text[]) AND (was_trusted OR EXISTS (
    SELECT FROM devices WHERE user_id = s.sender AND devices.identity_key = s.identity_key AND is_signed
))
"""
INSERT_INDICES = """
INSERT INTO read_indices (session_id, message_index, event_id)
SELECT * FROM unnest($1::text[], $2::bigint[], $3::text[]) ON CONFLICT DO NOTHING
"""
LOAD_INDICES = """
SELECT session_id, message_index, event_id FROM read_indices
JOIN unnest($1::text[], $2::bigint[]) AS asked (session_id, message_index) USING (session_id, message_index)
"""
PURGE_INBOUND = "DELETE FROM inbound_sessions WHERE received_ts < $1"
PURGE_INDICES = """
DELETE FROM read_indices WHERE NOT EXISTS (
    SELECT FROM inbound_sessions WHERE inbound_sessions.session_id = read_indices.session_id
)
"""

LOAD_OUTBOUND = """
SELECT room_id, session_id, pickle, created_ts, messages, shared_history FROM outbound_sessions WHERE room_id = $1
"""
DELETE_INBOUND = "DELETE FROM inbound_sessions WHERE room_id = $1"
DELETE_OUTBOUND = "DELETE FROM outbound_sessions WHERE room_id = $1"
DELETE_OUTBOUNDS = "DELETE FROM outbound_sessions WHERE room_id = ANY($1::text[])"
INSERT_OUTBOUND = """
INSERT INTO outbound_sessions (room_id, session_id, pickle, created_ts, shared_history) VALUES ($1, $2, $3, $4, $5)
"""
USE_OUTBOUND = """
UPDATE outbound_sessions SET pickle = $2, messages = messages + 1 WHERE session_id = $1 AND messages = $3 RETURNING 1
"""
LOAD_SHARES = """
SELECT user_id, device_id, identity_key, withheld FROM outbound_shares WHERE session_id = $1
"""
# A session that was thrown away meanwhile is shared with nobody.
INSERT_SHARES = """
INSERT INTO outbound_shares (session_id, user_id, device_id, identity_key, withheld)
SELECT $1, shared.*, $5 FROM unnest($2::text[], $3::text[], $4::text[]) AS shared
WHERE EXISTS (SELECT FROM outbound_sessions WHERE session_id = $1)
ON CONFLICT (session_id, user_id, device_id) DO UPDATE SET
    identity_key = EXCLUDED.identity_key, withheld = EXCLUDED.withheld
"""
NOTE_ENCRYPTED = "INSERT INTO encrypted_rooms (room_id) VALUES ($1) ON CONFLICT DO NOTHING"
IS_ENCRYPTED = "SELECT EXISTS (SELECT FROM encrypted_rooms WHERE room_id = $1)"

Index = tuple[str, int]
"""A message of a group session: (session ID, its number in there)."""


@dataclass(frozen=True, slots=True)
class InboundRow:
    """A key that somebody's device has sent."""

    session_id: str
    room_id: str
    sender: str
    identity_key: str
    pickle: str
    first_index: int
    was_trusted: bool
    """Whether the device was trusted when the key came; it may be signed later."""
    received_ts: int


@dataclass(frozen=True, slots=True)
class OutboundRow:
    """The bot's session in a room."""

    room_id: str
    session_id: str
    pickle: str
    created_ts: int
    messages: int
    shared_history: bool


@dataclass(frozen=True, slots=True)
class Share:
    """A device that has got the key of a session, or was told that it does not get it: `withheld` is the code why."""

    user_id: str
    device_id: str
    identity_key: str
    withheld: str | None


class RoomKeyRepository:
    """Reads and writes keys of rooms."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def load_inbound(self, room_id: str, session_ids: Sequence[str]) -> dict[tuple[str, str], str]:
        """Pickles of those sessions in a room that are believed to be their senders', by (sender, session ID)."""
        rows = await self._database.pool.fetch(LOAD_INBOUND, room_id, list(session_ids))
        return {(row["sender"], row["session_id"]): row["pickle"] for row in rows}

    async def claim_indices(self, wanted: Sequence[tuple[Index, str]]) -> dict[Index, str]:
        """Notes which event has which message of a session; the event that has it, by message: the first that came."""
        sessions = [session for (session, _), _ in wanted]
        indices = [index for (_, index), _ in wanted]
        async with self._database.transaction() as connection:
            await connection.execute(INSERT_INDICES, sessions, indices, [event_id for _, event_id in wanted])
            rows = await connection.fetch(LOAD_INDICES, sessions, indices)
        return {(row["session_id"], row["message_index"]): row["event_id"] for row in rows}

    async def purge(self, before: int) -> None:
        """Drops keys that came long ago, and what was noted of their messages."""
        await self._database.pool.execute(PURGE_INBOUND, before)
        await self._database.pool.execute(PURGE_INDICES)

    async def forget_room(self, room_id: str) -> None:
        """Drops all keys of a room that the bot is no longer in."""
        async with self._database.transaction() as connection:
            await connection.execute(DELETE_INBOUND, room_id)
            await connection.execute(DELETE_OUTBOUND, room_id)

    # The bot's own ----------------------------------------------------------------------------------------------------

    async def load_outbound(self, room_id: str) -> OutboundRow | None:
        """The bot's session in a room."""
        row = await self._database.pool.fetchrow(LOAD_OUTBOUND, room_id)
        return None if row is None else OutboundRow(**dict(row))

    async def replace_outbound(self, session: OutboundRow) -> None:
        """Begins a new session in a room."""
        async with self._database.transaction() as connection:
            await connection.execute(DELETE_OUTBOUND, session.room_id)
            await connection.execute(
                INSERT_OUTBOUND,
                session.room_id,
                session.session_id,
                session.pickle,
                session.created_ts,
                session.shared_history,
            )

    async def use_outbound(self, session: OutboundRow, pickle: str) -> bool:
        """Stores a session after one more message; False if it was thrown away, or used, by somebody else."""
        row = await self._database.pool.fetchval(USE_OUTBOUND, session.session_id, pickle, session.messages)
        return row is not None

    async def load_shares(self, session_id: str) -> list[Share]:
        """Who has the key of a session."""
        return [Share(**dict(row)) for row in await self._database.pool.fetch(LOAD_SHARES, session_id)]

    async def add_shares(self, session_id: str, devices: Iterable[Device], withheld: str | None) -> None:
        """Notes who has got the key of a session, or was told why not."""
        given = list(devices)
        await self._database.pool.execute(
            INSERT_SHARES,
            session_id,
            [device.user_id for device in given],
            [device.device_id for device in given],
            [device.identity_key for device in given],
            withheld,
        )

    async def note_encrypted(self, room_id: str) -> None:
        """Remembers that a room is encrypted."""
        await self._database.pool.execute(NOTE_ENCRYPTED, room_id)

    async def load_encrypted(self, room_id: str) -> bool:
        """Whether a room is known to be encrypted."""
        found: bool = await self._database.pool.fetchval(IS_ENCRYPTED, room_id)
        return found


async def write_inbound(connection: Connection, row: InboundRow) -> None:
    """Stores a key in a transaction that is under way, and lets go the sender's oldest where there are too many."""
    await connection.execute(
        UPSERT_INBOUND,
        row.session_id,
        row.room_id,
        row.sender,
        row.identity_key,
        row.pickle,
        row.first_index,
        row.was_trusted,
        row.received_ts,
    )
    await connection.execute(DELETE_TOO_MANY, row.sender, MAX_SESSIONS_PER_SENDER)

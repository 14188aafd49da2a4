"""Rooms whose members are not all known yet, and the events that wait until they are (migration 0015)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import asyncpg

UPSERT_PARTIAL_ROOMS = """
INSERT INTO partial_rooms (room, join_event_id, ground, servers)
SELECT room, join_event_id, ground, servers::text[]
FROM unnest($1::int[], $2::text[], $3::bigint[], $4::text[]) AS new (room, join_event_id, ground, servers)
ON CONFLICT (room) DO UPDATE SET join_event_id = excluded.join_event_id, ground = excluded.ground,
    servers = excluded.servers, is_complete = false
"""
COMPLETE_ROOMS = """
UPDATE rooms r SET completed_position = new.position FROM unnest($1::int[], $2::bigint[]) AS new (room, position)
WHERE r.room = new.room
"""
ABANDON_ROOMS = """
UPDATE rooms r SET lacking = r.lacking + int8multirange(int8range(new.ground, new.until))
FROM unnest($1::int[], $2::bigint[], $3::bigint[]) AS new (room, ground, until) WHERE r.room = new.room
"""
COMPLETE_PARTIAL_ROOMS = "UPDATE partial_rooms SET is_complete = true WHERE room = ANY($1::int[])"
HAS_COMPLETED = "SELECT EXISTS (SELECT FROM rooms WHERE room = $1 AND completed_position = $2)"

PARTIAL_ROOMS = """
SELECT p.room, p.join_event_id, p.ground, p.servers, p.is_complete, r.room_id
FROM partial_rooms p JOIN rooms r USING (room) ORDER BY p.ground
"""
DELETE_PARTIAL_ROOM = "DELETE FROM partial_rooms WHERE room = $1"
DELETE_HELD_OF_ROOM = "DELETE FROM held_events WHERE room = $1"

HOLD_EVENTS = """
INSERT INTO held_events (room, origin, event_id, json)
SELECT $1, $2, * FROM unnest($3::text[], $4::bytea[]) ON CONFLICT DO NOTHING
"""
COUNT_HELD = "SELECT count(*) FROM held_events WHERE room = $1"
HELD_EVENTS = """
SELECT number, origin, event_id, json FROM held_events
WHERE room = $1 AND number > $2 AND ($3::text IS NULL OR origin = $3) ORDER BY number LIMIT $4
"""
HELD_ORIGINS = "SELECT DISTINCT origin FROM held_events WHERE room = $1"
DELETE_HELD = "DELETE FROM held_events WHERE number = ANY($1::bigint[])"


class PartialRoomRow(NamedTuple):
    """A room that lacks members in the snapshot `ground`: they are those of the state before an event.

    `servers` are in the room, as one of them told, which is the first. With `is_complete` the members are known, and
    what was held back is still to be taken in. `room_id` is not written.
    """

    room: int
    join_event_id: str
    ground: int
    servers: Sequence[str]
    is_complete: bool = False
    room_id: str = ""


class CompletedRow(NamedTuple):
    """A room whose members are all known from a position on."""

    room: int
    position: int


class AbandonedRow(NamedTuple):
    """A room that everybody here left again before its members were known: its snapshots from `ground` on lack them for
    ever, up to (and without) `until`."""

    room: int
    ground: int
    until: int


class HeldEvent(NamedTuple):
    """An event that another server sent to a room that was not complete. Its JSON is verified."""

    number: int
    origin: str
    event_id: str
    json: bytes


async def upsert_partial_rooms(connection: asyncpg.Connection, rows: Sequence[PartialRoomRow]) -> None:
    """Notes that rooms lack members; what was held back in a former stay is of no use any more."""
    for row in rows:
        await connection.execute(DELETE_HELD_OF_ROOM, row.room)
    await connection.execute(
        UPSERT_PARTIAL_ROOMS,
        [row.room for row in rows],
        [row.join_event_id for row in rows],
        [row.ground for row in rows],
        # Server names have no characters that would have to be escaped, but one may be called NULL.
        ["{" + ",".join(f'"{name}"' for name in row.servers) + "}" for row in rows],
    )


async def complete_rooms(connection: asyncpg.Connection, rows: Sequence[CompletedRow]) -> None:
    """Notes that rooms lack nobody any more."""
    rooms = [row.room for row in rows]
    await connection.execute(COMPLETE_ROOMS, rooms, [row.position for row in rows])
    await connection.execute(COMPLETE_PARTIAL_ROOMS, rooms)


async def abandon_rooms(connection: asyncpg.Connection, rows: Sequence[AbandonedRow]) -> None:
    """Notes which snapshots lack members for ever."""
    await connection.execute(ABANDON_ROOMS, *map(list, zip(*rows, strict=True)))


class PartialRoomRepository:
    """Reads, and what no stream carries: the events that wait."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def load_all(self) -> list[PartialRoomRow]:
        """All rooms that are not complete, or have events held back; the oldest first."""
        return [PartialRoomRow(*row) for row in await self._pool.fetch(PARTIAL_ROOMS)]

    async def delete(self, room: int) -> None:
        """Forgets that a room was not complete, with all that is still held back."""
        async with self._pool.acquire() as connection, connection.transaction():
            await _delete(connection, room)

    async def abandon(self, row: AbandonedRow) -> None:
        """The same for one whose members nobody will ask for any more."""
        async with self._pool.acquire() as connection, connection.transaction():
            await abandon_rooms(connection, [row])
            await _delete(connection, row.room)

    async def hold(self, room: int, origin: str, events: Sequence[tuple[str, bytes]], *, limit: int) -> bool:
        """Keeps events, (ID, JSON) each, unless a room has as many as `limit` already: whether they are kept."""
        if await self._pool.fetchval(COUNT_HELD, room) + len(events) > limit:
            return False
        ids, jsons = [event_id for event_id, _ in events], [json for _, json in events]
        await self._pool.execute(HOLD_EVENTS, room, origin, ids, jsons)
        return True

    async def load_held(self, room: int, *, after: int = 0, origin: str | None = None, limit: int) -> list[HeldEvent]:
        """The oldest of a room's events that wait, after one by its number, of all servers or one."""
        return [HeldEvent(*row) for row in await self._pool.fetch(HELD_EVENTS, room, after, origin, limit)]

    async def load_origins(self, room: int) -> list[str]:
        """The servers whose events wait in a room."""
        return [row["origin"] for row in await self._pool.fetch(HELD_ORIGINS, room)]

    async def delete_held(self, numbers: Sequence[int]) -> None:
        """Forgets events that wait no more."""
        await self._pool.execute(DELETE_HELD, list(numbers))


async def _delete(connection: asyncpg.Connection, room: int) -> None:
    await connection.execute(DELETE_HELD_OF_ROOM, room)
    await connection.execute(DELETE_PARTIAL_ROOM, room)

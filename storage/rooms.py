"""Rooms, their numbered state keys, everyone's membership in them, and their aliases."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import asyncpg


class RoomRow(NamedTuple):
    """A room this server knows. `room` is its number here, `room_id` its name everywhere.

    `completed_position` is that from which on all members have been known, 0 for ever; `partial_servers` are those that
    are in a room whose members are not, which its snapshot `partial_ground` lacks, and None for all others. `lacking`
    are the snapshots that lack members for ever, from one up to another; `entered_depth` is the depth of the join by
    which this server came into the room, 0 for one of its own. These are not written with the room.
    """

    room: int
    room_id: str
    version: str
    creator: str
    is_public: bool
    completed_position: int = 0
    partial_servers: Sequence[str] | None = None
    partial_ground: int = 0
    entered_depth: int = 0
    lacking: Sequence[tuple[int, int]] = ()


class EnteredRow(NamedTuple):
    """This server has come into a room of others by a join of some depth."""

    room: int
    depth: int


class AliasRow(NamedTuple):
    """A name of a room on this server, and who gave it."""

    alias: str
    room: int
    creator: str


class ReplacementRow(NamedTuple):
    """A room that another one takes the place of: its names and its place in the directory go over to that."""

    room: int
    replacement: int


class ResolvedRow(NamedTuple):
    """A state key, by its number, whose state changed at a position without an event of its own."""

    room: int
    key: int
    position: int


class StateKeyRow(NamedTuple):
    """The number `key` that a (type, state_key) pair has in a room's snapshots."""

    room: int
    key: int
    type: str
    state_key: str


class MembershipRow(NamedTuple):
    """A user's membership in a room as it is now; `position` is that of the event that made it so."""

    user_id: str
    room: int
    position: int
    membership: str
    forgotten: bool = False


INSERT_ROOMS = """
INSERT INTO rooms (room, room_id, version, creator, is_public)
SELECT * FROM unnest($1::int[], $2::text[], $3::text[], $4::text[], $5::bool[])
"""
INSERT_STATE_KEYS = """
INSERT INTO state_keys (room, key, type, state_key) SELECT * FROM unnest($1::int[], $2::int[], $3::text[], $4::text[])
"""
UPSERT_MEMBERSHIPS = """
INSERT INTO memberships (user_id, room, position, membership, forgotten)
SELECT * FROM unnest($1::text[], $2::int[], $3::bigint[], $4::text[], $5::bool[])
ON CONFLICT (user_id, room) DO UPDATE
SET position = excluded.position, membership = excluded.membership, forgotten = excluded.forgotten
"""
ROOM_BY_ID = """
SELECT room, room_id, version, creator, is_public, completed_position, p.servers, coalesce(p.ground, 0),
    entered_depth, lacking
FROM rooms LEFT JOIN (SELECT room, servers, ground FROM partial_rooms WHERE NOT is_complete) p USING (room)
WHERE room_id = $1
"""
ENTER_ROOMS = """
UPDATE rooms r SET entered_depth = new.depth FROM unnest($1::int[], $2::bigint[]) AS new (room, depth)
WHERE r.room = new.room
"""
HAS_MEMBERSHIP = "SELECT EXISTS (SELECT FROM memberships WHERE user_id = $1 AND room = $2 AND position = $3)"
ROOM_IDS = "SELECT room, room_id FROM rooms WHERE room = ANY($1::int[])"
LAST_ROOM = "SELECT coalesce(max(room), 0) FROM rooms"
STATE_KEYS = "SELECT key, type, state_key, resolved_position FROM state_keys WHERE room = $1"
SET_RESOLVED = """
UPDATE state_keys s SET resolved_position = n.position
FROM unnest($1::int[], $2::int[], $3::bigint[]) n (room, key, position) WHERE s.room = n.room AND s.key = n.key
"""
MEMBERSHIPS_OF_ROOM = (
    "SELECT user_id, room, position, membership, forgotten FROM memberships WHERE room = $1 ORDER BY position"
)
ERASED_MEMBERS = """
SELECT u.user_id, u.erased_position FROM users u JOIN memberships m USING (user_id)
WHERE m.room = $1 AND u.erased_position IS NOT NULL
"""
MEMBERSHIPS_OF_USER = """
SELECT m.user_id, m.room, m.position, m.membership, m.forgotten, r.room_id
FROM memberships m JOIN rooms r USING (room) WHERE m.user_id = $1
"""
# The rooms a user is joined to in which something happened after a position.
ROOMS_CHANGED = """
SELECT r.room_id FROM memberships m JOIN rooms r USING (room)
WHERE m.user_id = $1 AND m.membership = 'join' AND (
    EXISTS (SELECT 1 FROM events e WHERE e.room = m.room AND e.kind = 0 AND e.position > $2)
    OR r.completed_position > $2
    OR EXISTS (SELECT 1 FROM receipts c WHERE c.room = m.room AND c.position > $2))
"""
FORGET_ROOM = "UPDATE memberships SET forgotten = true WHERE user_id = $1 AND room = $2"

ROOM_OF_ALIAS = "SELECT r.room_id, a.creator FROM aliases a JOIN rooms r USING (room) WHERE a.alias = $1"
ALIASES_OF_ROOM = "SELECT alias FROM aliases WHERE room = $1 ORDER BY alias"
INSERT_ALIASES = """
INSERT INTO aliases (alias, room, creator) SELECT * FROM unnest($1::text[], $2::int[], $3::text[])
"""
MOVE_ALIASES = """
UPDATE aliases a SET room = n.replacement FROM unnest($1::int[], $2::int[]) n (room, replacement) WHERE a.room = n.room
"""
MOVE_LISTING = """
UPDATE rooms r SET is_public = old.is_public FROM unnest($1::int[], $2::int[]) n (room, replacement)
JOIN rooms old ON old.room = n.room WHERE r.room = n.replacement
"""
UNLIST_ROOMS = "UPDATE rooms SET is_public = false WHERE room = ANY($1::int[])"
DELETE_ALIAS = "DELETE FROM aliases WHERE alias = $1"
SET_PUBLIC = "UPDATE rooms SET is_public = $2 WHERE room_id = $1"


async def insert_rooms(connection: asyncpg.Connection, rows: Sequence[RoomRow]) -> None:
    """Writes rooms in one statement."""
    await connection.execute(INSERT_ROOMS, *map(list, zip(*(row[:5] for row in rows), strict=True)))


async def enter_rooms(connection: asyncpg.Connection, rows: Sequence[EnteredRow]) -> None:
    """Notes at what depths this server has come into rooms."""
    await connection.execute(ENTER_ROOMS, *map(list, zip(*rows, strict=True)))


async def insert_state_keys(connection: asyncpg.Connection, rows: Sequence[StateKeyRow]) -> None:
    """Writes newly numbered state keys in one statement."""
    await connection.execute(INSERT_STATE_KEYS, *map(list, zip(*rows, strict=True)))


async def set_resolved(connection: asyncpg.Connection, rows: Sequence[ResolvedRow]) -> None:
    """Notes where keys' state was resolved, in one statement; of several for one key the last counts."""
    newest = {(row.room, row.key): row for row in rows}
    await connection.execute(SET_RESOLVED, *map(list, zip(*newest.values(), strict=True)))


async def insert_aliases(connection: asyncpg.Connection, rows: Sequence[AliasRow]) -> None:
    """Writes aliases, which must be free, in one statement."""
    await connection.execute(INSERT_ALIASES, *map(list, zip(*rows, strict=True)))


async def replace_rooms(connection: asyncpg.Connection, rows: Sequence[ReplacementRow]) -> None:
    """Moves aliases and listings to rooms that are there already."""
    old, new = [row.room for row in rows], [row.replacement for row in rows]
    await connection.execute(MOVE_ALIASES, old, new)
    await connection.execute(MOVE_LISTING, old, new)
    await connection.execute(UNLIST_ROOMS, old)


async def upsert_memberships(connection: asyncpg.Connection, rows: Sequence[MembershipRow]) -> None:
    """Writes memberships in one statement; of several for one user and room the last counts."""
    newest = {(row.user_id, row.room): row for row in rows}
    await connection.execute(UPSERT_MEMBERSHIPS, *map(list, zip(*newest.values(), strict=True)))


class RoomRepository:
    """Reads of rooms and memberships, and the writes that no stream carries: aliases, visibility, forgetting."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def load_room(self, room_id: str) -> RoomRow | None:
        """The room with this ID."""
        row = await self._pool.fetchrow(ROOM_BY_ID, room_id)
        if row is None:
            return None
        *columns, lacking = row
        return RoomRow(*columns)._replace(lacking=[(part.lower, part.upper) for part in lacking])

    async def load_room_ids(self, rooms: Iterable[int]) -> dict[int, str]:
        """Room number -> room ID."""
        return {row["room"]: row["room_id"] for row in await self._pool.fetch(ROOM_IDS, list(rooms))}

    async def load_last_room(self) -> int:
        """The highest room number in use; 0 without rooms."""
        return int(await self._pool.fetchval(LAST_ROOM))

    async def load_state_keys(self, room: int) -> tuple[dict[tuple[str, str], int], dict[tuple[str, str], int]]:
        """(type, state_key) -> its number in this room; and where the state of some was resolved, by position."""
        rows = await self._pool.fetch(STATE_KEYS, room)
        return (
            {(row["type"], row["state_key"]): row["key"] for row in rows},
            {(row["type"], row["state_key"]): at for row in rows if (at := row["resolved_position"]) is not None},
        )

    async def load_memberships_of_room(self, room: int) -> list[MembershipRow]:
        """Everyone's membership, oldest change first."""
        return [MembershipRow(*row) for row in await self._pool.fetch(MEMBERSHIPS_OF_ROOM, room)]

    async def load_erased_members(self, room: int) -> dict[str, int]:
        """Members, of now or before, whose accounts are erased -> the newest event's position when that happened."""
        return {row["user_id"]: row["erased_position"] for row in await self._pool.fetch(ERASED_MEMBERS, room)}

    async def load_memberships_of_user(self, user_id: str) -> list[tuple[MembershipRow, str]]:
        """A user's memberships in all rooms, with the rooms' IDs."""
        rows = await self._pool.fetch(MEMBERSHIPS_OF_USER, user_id)
        return [(MembershipRow(*row[:5]), row["room_id"]) for row in rows]

    async def load_changed_rooms(self, user_id: str, after: int) -> set[str]:
        """The IDs of the rooms a user is joined to that have events or receipts after a position."""
        return {row["room_id"] for row in await self._pool.fetch(ROOMS_CHANGED, user_id, after)}

    async def forget(self, user_id: str, room: int) -> None:
        """Marks a room that the user has left as forgotten."""
        await self._pool.execute(FORGET_ROOM, user_id, room)

    async def load_alias(self, alias: str) -> tuple[str, str] | None:
        """(room ID, who made it) of an alias."""
        row = await self._pool.fetchrow(ROOM_OF_ALIAS, alias)
        return (row["room_id"], row["creator"]) if row else None

    async def load_aliases_of_room(self, room: int) -> list[str]:
        """The local aliases of a room, sorted."""
        return [row["alias"] for row in await self._pool.fetch(ALIASES_OF_ROOM, room)]

    async def replace(self, row: ReplacementRow) -> None:
        """Moves a room's aliases and listing to the one that takes its place."""
        async with self._pool.acquire() as connection, connection.transaction():
            await replace_rooms(connection, [row])

    async def delete_alias(self, alias: str) -> None:
        """Removes an alias, if it is there."""
        await self._pool.execute(DELETE_ALIAS, alias)

    async def set_public(self, room_id: str, is_public: bool) -> None:
        """Lists a room in the public directory, or takes it off."""
        await self._pool.execute(SET_PUBLIC, room_id, is_public)

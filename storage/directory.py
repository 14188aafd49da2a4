"""What lists of rooms and of users are made from: summaries of rooms, names of users."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import asyncpg
import orjson

MAX_SEARCH_TEXT_CHARS = 4096


class RoomSummaryRow(NamedTuple):
    """What a room is like now, as lists show it."""

    room: int
    joined_members: int
    name: str | None
    topic: str | None
    canonical_alias: str | None
    avatar_url: str | None
    room_type: str | None
    join_rule: str
    world_readable: bool
    guest_can_join: bool
    search_text: str


class ListedRoom(NamedTuple):
    """A room of the directory, with its ID."""

    room_id: str
    summary: RoomSummaryRow


class ListedUser(NamedTuple):
    """A user of the directory."""

    user_id: str
    profile: dict[str, object]


class Lists(NamedTuple):
    """Which lists of rooms are meant: that of a third-party network, all there are, or the server's own alone."""

    network: str | None = None
    all_networks: bool = False

    @property
    def condition(self) -> str:
        """The condition for a room in SQL; $6 is the network, where there is one."""
        if self.network is not None:
            return NETWORK_LIST
        return ALL_LISTS if self.all_networks else OWN_LIST


class Mark(NamedTuple):
    """A place in the directory, which is ordered by members, most first, then by the age of the rooms."""

    joined_members: int
    room: int


UPSERT_ROOM_SUMMARIES = """
INSERT INTO room_summaries
SELECT * FROM unnest($1::int[], $2::int[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[],
    $9::bool[], $10::bool[], $11::text[])
ON CONFLICT (room) DO UPDATE SET joined_members = excluded.joined_members, name = excluded.name,
    topic = excluded.topic, canonical_alias = excluded.canonical_alias, avatar_url = excluded.avatar_url,
    room_type = excluded.room_type, join_rule = excluded.join_rule, world_readable = excluded.world_readable,
    guest_can_join = excluded.guest_can_join, search_text = excluded.search_text
"""
OWN_LIST = "r.is_public"
NETWORK_LIST = "EXISTS (SELECT FROM network_rooms n WHERE n.room = r.room AND n.network = $6)"
ALL_LISTS = "(r.is_public OR EXISTS (SELECT FROM network_rooms n WHERE n.room = r.room))"
"""Which rooms are listed: by the server itself, for a third-party network, or either way."""

LISTED = """
SELECT r.room_id, s.* FROM rooms r JOIN room_summaries s USING (room)
WHERE {listed} AND strpos(s.search_text, $1) > 0
    AND ($2::text[] IS NULL OR coalesce(s.room_type, '') = ANY($2::text[]))
"""
LISTED_AFTER = f"""{LISTED}
    AND ($3::int IS NULL OR s.joined_members < $3 OR (s.joined_members = $3 AND s.room > $4))
ORDER BY s.joined_members DESC, s.room LIMIT $5
"""
LISTED_BEFORE = f"""{LISTED}
    AND (s.joined_members > $3 OR (s.joined_members = $3 AND s.room < $4))
ORDER BY s.joined_members, s.room DESC LIMIT $5
"""
COUNT_LISTED = "SELECT count(*) FROM rooms r WHERE {listed}"
COUNT_NETWORK = "SELECT count(*) FROM network_rooms WHERE network = $1"
IS_PUBLIC = "SELECT is_public FROM rooms WHERE room_id = $1"

# Users whom the searcher may know of: they share a room, or the other is in one that anybody may join or read.
FIND_USERS = """
SELECT u.user_id, u.profile FROM users u
WHERE NOT u.deactivated AND u.user_id <> $1 AND u.directory_text LIKE ALL ($2::text[]) AND EXISTS (
    SELECT FROM memberships m
    WHERE m.user_id = u.user_id AND m.membership = 'join' AND (
        EXISTS (SELECT FROM memberships o WHERE o.user_id = $1 AND o.room = m.room AND o.membership = 'join')
        OR EXISTS (SELECT FROM room_summaries s
            WHERE s.room = m.room AND (s.join_rule = 'public' OR s.world_readable))))
ORDER BY strpos(u.directory_text, $3), u.user_id LIMIT $4
"""
MUTUAL_ROOMS = """
SELECT r.room, r.room_id FROM memberships m JOIN memberships o USING (room) JOIN rooms r USING (room)
WHERE m.user_id = $1 AND o.user_id = $2 AND m.membership = 'join' AND o.membership = 'join' ORDER BY r.room
"""


def search_text(*parts: str | None) -> str:
    """Texts in the form in which they are searched: without regard to case, and of bounded length."""
    return "\n".join(part.replace("\0", "") for part in parts if part)[:MAX_SEARCH_TEXT_CHARS].casefold()


def directory_text(user_id: str, profile: dict[str, object]) -> str:
    """What a user is found by."""
    displayname = profile.get("displayname")
    return search_text(user_id, displayname if isinstance(displayname, str) else None)


async def upsert_room_summaries(connection: asyncpg.Connection, rows: Sequence[RoomSummaryRow]) -> None:
    """Writes summaries in one statement; of several for one room the last counts."""
    newest = {row.room: row for row in rows}
    await connection.execute(UPSERT_ROOM_SUMMARIES, *map(list, zip(*newest.values(), strict=True)))


class DirectoryRepository:
    """Reads lists of rooms and users."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def load_listed_rooms(
        self,
        term: str,
        room_types: Sequence[str] | None,
        mark: Mark | None,
        lists: Lists,
        *,
        backwards: bool,
        limit: int,
    ) -> list[ListedRoom]:
        """Up to `limit` listed rooms beyond a mark, in the order of the list also when it is read `backwards`.

        `term` is a `search_text`, "" for all; a room without a type has the type "".
        """
        assert mark is not None or not backwards
        joined_members, room = mark or (None, None)
        query = (LISTED_BEFORE if backwards else LISTED_AFTER).format(listed=lists.condition)
        network = () if lists.network is None else (lists.network,)
        rows = await self._pool.fetch(query, term or "", room_types, joined_members, room, limit, *network)
        found = [ListedRoom(row[0], RoomSummaryRow(*row[1:])) for row in rows]
        return found[::-1] if backwards else found

    async def count_listed_rooms(self, lists: Lists) -> int:
        """How many rooms are listed."""
        if lists.network is not None:
            return int(await self._pool.fetchval(COUNT_NETWORK, lists.network))
        return int(await self._pool.fetchval(COUNT_LISTED.format(listed=lists.condition)))

    async def load_is_public(self, room_id: str) -> bool | None:
        """Whether a room is listed; None without such a room."""
        found: bool | None = await self._pool.fetchval(IS_PUBLIC, room_id)
        return found

    async def find_users(self, searcher: str, words: Sequence[str], limit: int) -> list[ListedUser]:
        """Users that the searcher may know of, whose ID or name holds all of the words (each a `search_text`)."""
        patterns = [f"%{_escape(word)}%" for word in words]
        rows = await self._pool.fetch(FIND_USERS, searcher, patterns, words[0], limit)
        return [ListedUser(row["user_id"], orjson.loads(row["profile"])) for row in rows]

    async def load_mutual_rooms(self, user_id: str, other: str) -> list[tuple[int, str]]:
        """(number, room ID) of the rooms that both are joined to, oldest first."""
        return [(row["room"], row["room_id"]) for row in await self._pool.fetch(MUTUAL_ROOMS, user_id, other)]


def _escape(word: str) -> str:
    return word.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")

"""What rooms and people have chosen, and where people left off reading."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from appservices.summary_bot.storage.database import Database

MAX_IGNORED = 500

LOAD_ROOM = "SELECT enabled, enabled_by, local_models_only, role FROM rooms WHERE room_id = $1"
SET_ENABLED = """
INSERT INTO rooms (room_id, enabled, enabled_by) VALUES ($1, $2, $3)
ON CONFLICT (room_id) DO UPDATE SET enabled = EXCLUDED.enabled, enabled_by = EXCLUDED.enabled_by
"""
SET_LOCAL_ONLY = "UPDATE rooms SET local_models_only = $2 WHERE room_id = $1"
ROLES = """
SELECT room_id, role FROM rooms WHERE enabled
UNION SELECT direct_room, role FROM people WHERE direct_room IS NOT NULL AND role IS NOT NULL
"""
SET_ROLE = "UPDATE rooms SET role = $2 WHERE room_id = $1"
ENABLED_ROOMS = "SELECT room_id FROM rooms WHERE enabled AND room_id = ANY($1::text[])"
LOAD_PERSON = "SELECT language, direct_room, opted_out, ignored, role FROM people WHERE user_id = $1"
SET_LANGUAGE = """
INSERT INTO people (user_id, language) VALUES ($1, $2) ON CONFLICT (user_id) DO UPDATE SET language = EXCLUDED.language
"""
SET_PERSONAL_ROLE = """
INSERT INTO people (user_id, role) VALUES ($1, $2) ON CONFLICT (user_id) DO UPDATE SET role = EXCLUDED.role
"""
SET_DIRECT_ROOM = """
INSERT INTO people (user_id, direct_room) VALUES ($1, $2)
ON CONFLICT (user_id) DO UPDATE SET direct_room = EXCLUDED.direct_room
"""
SET_OPTED_OUT = """
INSERT INTO people (user_id, opted_out) VALUES ($1, $2)
ON CONFLICT (user_id) DO UPDATE SET opted_out = EXCLUDED.opted_out
"""
SET_IGNORED = """
INSERT INTO people (user_id, ignored) VALUES ($1, $2) ON CONFLICT (user_id) DO UPDATE SET ignored = EXCLUDED.ignored
"""
DELETE_CHUNKS_OF_SENDER = """
DELETE FROM chunks WHERE hash IN (SELECT hash FROM chunk_sources WHERE sender = $1)
"""
OPTED_OUT = "SELECT user_id FROM people WHERE opted_out AND user_id = ANY($1::text[])"
DIRECT_ROOMS = "SELECT direct_room FROM people WHERE direct_room IS NOT NULL"
IS_DIRECT_ROOM = "SELECT user_id FROM people WHERE direct_room = $1"
FORGET_DIRECT_ROOM = "UPDATE people SET direct_room = NULL WHERE direct_room = $1"
LOAD_READING = "SELECT event_id, ts, left_off_event_id, left_off_ts FROM reading WHERE room_id = $1 AND user_id = $2"
FORGET_ROOM = (
    "DELETE FROM rooms WHERE room_id = $1",
    "DELETE FROM reading WHERE room_id = $1",
    "DELETE FROM chunks WHERE room_id = $1",
    "DELETE FROM schedules WHERE room_id = $1",
    "DELETE FROM jobs WHERE room_id = $1 AND kind = 'command' AND NOT running",
)


@dataclass(frozen=True, slots=True)
class RoomSettings:
    """What a room has chosen; the defaults are those of a room that the bot has just come to."""

    enabled: bool = False
    enabled_by: str | None = None
    local_models_only: bool = False
    role: str = "assistant"


@dataclass(frozen=True, slots=True)
class Person:
    """What a person has chosen. `language` is None as long as the bot has to guess it."""

    language: str | None = None
    direct_room: str | None = None
    opted_out: bool = False
    ignored: tuple[str, ...] = ()
    role: str | None = None
    """In which role they are answered in their direct chat, where they have chosen one."""


@dataclass(frozen=True, slots=True)
class Reading:
    """Up to where somebody has read, and where they had left off before they came back."""

    event_id: str
    ts: int
    left_off_event_id: str | None
    left_off_ts: int | None


class SettingsRepository:
    """Reads and writes choices."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def load_room(self, room_id: str) -> RoomSettings:
        """A room's choices."""
        row = await self._database.pool.fetchrow(LOAD_ROOM, room_id)
        return RoomSettings() if row is None else RoomSettings(**dict(row))

    async def load_enabled(self, room_ids: Sequence[str]) -> set[str]:
        """Those of the rooms in which the bot has been enabled."""
        return {row["room_id"] for row in await self._database.pool.fetch(ENABLED_ROOMS, list(room_ids))}

    async def set_enabled(self, room_id: str, enabled: bool, by: str) -> None:
        """Turns the bot on or off in a room."""
        await self._database.pool.execute(SET_ENABLED, room_id, enabled, by)

    async def set_local_only(self, room_id: str, local_only: bool) -> None:
        """Keeps a room to local models, or lets it go."""
        await self._database.pool.execute(SET_LOCAL_ONLY, room_id, local_only)

    async def set_role(self, room_id: str, role: str) -> None:
        """Sets a room's role."""
        await self._database.pool.execute(SET_ROLE, room_id, role)

    async def load_roles(self) -> dict[str, str]:
        """The role of every room in which the bot is on, and of direct chats in which one was chosen."""
        return {row["room_id"]: row["role"] for row in await self._database.pool.fetch(ROLES)}

    async def load_person(self, user_id: str) -> Person:
        """A person's choices."""
        row = await self._database.pool.fetchrow(LOAD_PERSON, user_id)
        if row is None:
            return Person()
        return Person(row["language"], row["direct_room"], row["opted_out"], tuple(row["ignored"]), row["role"])

    async def set_language(self, user_id: str, language: str | None) -> None:
        """Sets in what language a person is answered; None for a guess."""
        await self._database.pool.execute(SET_LANGUAGE, user_id, language)

    async def set_personal_role(self, user_id: str, role: str) -> None:
        """Sets in which role a person is answered in their direct chat."""
        await self._database.pool.execute(SET_PERSONAL_ROLE, user_id, role)

    async def set_direct_room(self, user_id: str, room_id: str | None) -> None:
        """Remembers the direct chat with a person."""
        await self._database.pool.execute(SET_DIRECT_ROOM, user_id, room_id)

    async def set_ignored(self, user_id: str, ignored: Sequence[str]) -> None:
        """Sets whom a person does not want to hear of."""
        await self._database.pool.execute(SET_IGNORED, user_id, list(ignored[:MAX_IGNORED]))

    async def set_opted_out(self, user_id: str, opted_out: bool) -> None:
        """Keeps a person's words out of everything, and drops the facts that were drawn from them."""
        async with self._database.transaction() as connection:
            await connection.execute(SET_OPTED_OUT, user_id, opted_out)
            if opted_out:
                await connection.execute(DELETE_CHUNKS_OF_SENDER, user_id)

    async def load_opted_out(self, user_ids: Sequence[str]) -> set[str]:
        """Those of the people who have opted out."""
        return {row["user_id"] for row in await self._database.pool.fetch(OPTED_OUT, list(user_ids))}

    async def load_direct_rooms(self) -> set[str]:
        """All rooms that are direct chats with somebody."""
        return {row["direct_room"] for row in await self._database.pool.fetch(DIRECT_ROOMS)}

    async def load_direct_partner(self, room_id: str) -> str | None:
        """With whom a room is a direct chat; None for other rooms."""
        found: str | None = await self._database.pool.fetchval(IS_DIRECT_ROOM, room_id)
        return found

    async def load_reading(self, room_id: str, user_id: str) -> Reading | None:
        """Up to where somebody has read a room."""
        row = await self._database.pool.fetchrow(LOAD_READING, room_id, user_id)
        return None if row is None else Reading(**dict(row))

    async def forget_room(self, room_id: str) -> None:
        """Drops everything about a room that the bot is no longer in, but the sources of its answers."""
        async with self._database.transaction() as connection:
            for statement in FORGET_ROOM:
                await connection.execute(statement, room_id)
            await connection.execute(FORGET_DIRECT_ROOM, room_id)

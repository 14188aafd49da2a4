"""Room aliases of this server.

https://spec.matrix.org/v1.19/client-server-api/#room-aliases
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from homeserver.services.errors import Forbidden, InvalidParam, MatrixError, NotFound
from homeserver.services.rooms.access import Access
from homeserver.services.rooms.room import Room
from homeserver.services.stream import Stream
from matrix.identifiers import get_domain, is_room_alias
from storage.rooms import AliasRow, RoomRepository
from storage.stream import Writes

CANONICAL_ALIAS = "m.room.canonical_alias"


class Aliases:
    """Makes, resolves and removes aliases."""

    def __init__(self, rooms: RoomRepository, access: Access, stream: Stream, *, server_name: str) -> None:
        self._rooms = rooms
        self._access = access
        self._stream = stream
        self._server_name = server_name
        self._reserved: set[str] = set()

    def full_alias(self, localpart: str) -> str:
        """The alias with this local part. Raises InvalidParam."""
        return self._check(f"#{localpart}:{self._server_name}")

    def _check(self, alias: str) -> str:
        if not is_room_alias(alias) or get_domain(alias) != self._server_name:
            raise InvalidParam("Not an alias of this server")
        return alias

    async def resolve(self, alias: str) -> str:
        """The room ID behind an alias. Raises InvalidParam, NotFound."""
        if not is_room_alias(alias):
            raise InvalidParam("Not a room alias")
        found = await self._rooms.load_alias(alias)
        if found is None:
            raise NotFound("No such room alias")
        return found[0]

    @asynccontextmanager
    async def reserved(self, alias: str) -> AsyncIterator[None]:
        """Holds an alias that is free while its row is being written. Raises M_ROOM_IN_USE."""
        if alias in self._reserved:
            raise MatrixError(400, "M_ROOM_IN_USE", "The alias is taken")
        self._reserved.add(alias)
        try:
            if await self._rooms.load_alias(alias) is not None:
                raise MatrixError(400, "M_ROOM_IN_USE", "The alias is taken")
            yield
        finally:
            self._reserved.discard(alias)

    async def create(self, user_id: str, alias: str, room_id: str) -> None:
        """Points a new alias at a room that the user is in. Raises InvalidParam, Forbidden, 409 M_UNKNOWN."""
        self._check(alias)
        room = await self._access.access_joined_room(user_id, room_id)
        try:
            async with self.reserved(alias):
                writes = Writes()
                writes.aliases.append(AliasRow(alias, room.room, user_id))
                await self._stream.submit(self._stream.next_position(), writes, lambda: None)
        except MatrixError as error:
            if error.errcode != "M_ROOM_IN_USE":
                raise
            raise MatrixError(409, "M_UNKNOWN", "The alias is taken") from None

    async def delete(self, user_id: str, is_admin: bool, alias: str) -> None:
        """Removes an alias: its maker may, an administrator, and who may set the room's canonical alias."""
        self._check(alias)
        found = await self._rooms.load_alias(alias)
        if found is None:
            raise NotFound("No such room alias")
        room_id, creator = found
        if user_id != creator and not is_admin:
            room = await self._access.access_joined_room(user_id, room_id)
            if not may_set_aliases(room, user_id):
                raise Forbidden("You may not remove this alias")
        await self._rooms.delete_alias(alias)

    async def of_room(self, user_id: str, room_id: str) -> list[str]:
        """A room's local aliases, for those who may read the room."""
        reader = await self._access.access_readable_room(user_id, room_id)
        return await self._rooms.load_aliases_of_room(reader.room.room)

    async def check_canonical_alias(self, user_id: str, room_id: str, content: dict[str, Any]) -> None:
        """Holds the content of a new m.room.canonical_alias event to what it says: that its aliases lead to the room.

        Aliases that the event before it had are not looked at again. Raises Forbidden, InvalidParam, M_BAD_ALIAS.
        https://spec.matrix.org/v1.19/client-server-api/#mroomcanonical_alias
        """
        room = await self._access.access_joined_room(user_id, room_id)
        event = room.pinned.get((CANONICAL_ALIAS, ""))
        before = _aliases_in(event.pdu.content) if event is not None else ()
        aliases = _aliases_in(content)
        if not all(is_room_alias(alias) for alias in aliases):
            raise InvalidParam("alias and alt_aliases must be room aliases")
        for alias in aliases:
            if alias in before:
                continue
            found = await self._rooms.load_alias(alias)
            if found is None or found[0] != room_id:
                raise MatrixError(400, "M_BAD_ALIAS", f"{alias} does not lead to this room")


def _aliases_in(content: dict[str, Any]) -> list[Any]:
    alias, alt_aliases = content.get("alias"), content.get("alt_aliases")
    aliases = [] if alias is None or alias == "" else [alias]
    if alt_aliases is None:
        return aliases
    return aliases + (alt_aliases if isinstance(alt_aliases, list) else [alt_aliases])


def may_set_aliases(room: Room, user_id: str) -> bool:
    """Whether a user has the power to set the room's canonical alias, and so to say by what names it is found."""
    levels = room.power_levels
    return levels.user(user_id) >= levels.event(CANONICAL_ALIAS, True)

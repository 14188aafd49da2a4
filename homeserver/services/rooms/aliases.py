"""Room aliases: those of this server, and where those of others lead.

https://spec.matrix.org/v1.19/client-server-api/#room-aliases
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from homeserver.services.accounts.sessions import Requester
from homeserver.services.errors import Forbidden, InvalidParam, MatrixError, NotFound
from homeserver.services.remote import RemoteFailure, RemoteMisbehaved, RemoteRefused, Transport, bad_gateway
from homeserver.services.rooms.access import Access
from homeserver.services.rooms.room import Room
from homeserver.services.stream import Stream
from matrix.identifiers import get_domain, is_room_alias, is_room_id, is_server_name
from storage.rooms import AliasRow, RoomRepository
from storage.stream import Writes

CANONICAL_ALIAS = "m.room.canonical_alias"

REMOTE_TIMEOUT_MS = 20_000
MAX_REMOTE_ANSWER_BYTES = 256 * 1024
MAX_SERVERS = 50


class AliasTarget(NamedTuple):
    """Where an alias leads: a room, and servers that are likely to be in it, the best one first."""

    room_id: str
    servers: list[str]


class Aliases:
    """Makes, resolves and removes aliases.

    `may_have` tells whether an application service (its ID; None for none) and the user it acts as may have an alias;
    `on_changed` is told of rooms whose aliases come and go; `on_missing` is asked for aliases that are not there (and
    by which service), and tells whether they are by now.
    """

    def __init__(
        self,
        rooms: RoomRepository,
        access: Access,
        stream: Stream,
        transport: Transport,
        *,
        server_name: str,
        may_have: Callable[[str | None, str, str], bool],
    ) -> None:
        self._transport = transport
        self._rooms = rooms
        self._access = access
        self._stream = stream
        self._server_name = server_name
        self._may_have = may_have
        self._reserved: set[str] = set()
        self.on_changed: Callable[[Room], None] | None = None
        self.on_missing: Callable[[str, str | None], Awaitable[bool]] | None = None

    def full_alias(self, localpart: str) -> str:
        """The alias with this local part. Raises InvalidParam."""
        return self._check(f"#{localpart}:{self._server_name}")

    def _check(self, alias: str) -> str:
        if not is_room_alias(alias) or get_domain(alias) != self._server_name:
            raise InvalidParam("Not an alias of this server")
        return alias

    def is_local(self, alias: str) -> bool:
        """Whether no other server has to be asked about an alias."""
        return not is_room_alias(alias) or get_domain(alias) == self._server_name

    async def resolve(self, alias: str, *, asked_by: str | None = None) -> str:
        """The room ID behind an alias. Raises what `locate` raises."""
        if is_room_alias(alias) and get_domain(alias) == self._server_name:
            return await self._load(alias, asked_by)
        return (await self.locate(alias, asked_by=asked_by)).room_id

    async def locate(self, alias: str, *, asked_by: str | None = None) -> AliasTarget:
        """The room behind an alias of any server, and servers that are in it.

        `asked_by` is the ID of the application service that asks.
        Raises InvalidParam, NotFound, and 502 M_UNKNOWN where another server has no answer.
        """
        if not is_room_alias(alias):
            raise InvalidParam("Not a room alias")
        if get_domain(alias) != self._server_name:
            return await self._locate_elsewhere(alias)
        room_id = await self._load(alias, asked_by)
        return AliasTarget(room_id, servers_in(await self._access.access_room(room_id), self._server_name))

    async def locate_local(self, alias: str) -> AliasTarget:
        """The same for an alias of this server alone. Raises InvalidParam, NotFound."""
        return await self.locate(self._check(alias))

    async def _load(self, alias: str, asked_by: str | None) -> str:
        found = await self._rooms.load_alias(alias)
        if found is None and self.on_missing is not None and await self.on_missing(alias, asked_by):
            found = await self._rooms.load_alias(alias)
        if found is None:
            raise NotFound("No such room alias")
        return found[0]

    async def _locate_elsewhere(self, alias: str) -> AliasTarget:
        """https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1querydirectory"""
        server_name = get_domain(alias)
        try:
            answer = await self._transport.request(
                server_name,
                "GET",
                "/_matrix/federation/v1/query/directory",
                query=[("room_alias", alias)],
                timeout_ms=REMOTE_TIMEOUT_MS,
                max_bytes=MAX_REMOTE_ANSWER_BYTES,
            )
        except RemoteRefused as refusal:
            if refusal.status == 404:
                raise NotFound("No such room alias") from None
            raise bad_gateway(refusal) from None
        except RemoteFailure as failure:
            raise bad_gateway(failure) from None
        room_id = answer.get("room_id") if isinstance(answer, dict) else None
        servers = answer.get("servers") if isinstance(answer, dict) else None
        if not is_room_id(room_id) or not isinstance(servers, list):
            raise bad_gateway(RemoteMisbehaved(server_name, "the answer names no room"))
        # The server that knows the alias is the last resort, where it does not name itself.
        named = [*filter(is_server_name, servers[:MAX_SERVERS]), server_name]
        return AliasTarget(room_id, list(dict.fromkeys(named)))

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

    def check_may_have(self, requester: Requester, alias: str) -> None:
        """Keeps people out of the namespaces of application services, and those in theirs. Raises M_EXCLUSIVE.

        https://spec.matrix.org/v1.19/application-service-api/#server-admin-style-permissions
        """
        if not self._may_have(requester.appservice, requester.user_id, alias):
            raise MatrixError(400, "M_EXCLUSIVE", "The alias is reserved, or in no namespace of yours")

    def take_in(self, room: Room, *, added: str = "", removed: str = "") -> None:
        """Takes in that a room has another alias, or has one no more."""
        if added:
            room.aliases.add(added)
        room.aliases.discard(removed)
        if self.on_changed is not None:
            self.on_changed(room)

    async def create(self, requester: Requester, alias: str, room_id: str) -> None:
        """Points a new alias at a room that the user is in.

        Raises InvalidParam, Forbidden, M_EXCLUSIVE, 409 M_UNKNOWN.
        """
        self._check(alias)
        self.check_may_have(requester, alias)
        room = await self._access.access_joined_room(requester.user_id, room_id)
        try:
            async with self.reserved(alias):
                writes = Writes()
                writes.aliases.append(AliasRow(alias, room.room, requester.user_id))
                position = self._stream.next_position()
                room.pending += 1  # it stays in memory until it knows its alias
                await self._stream.submit(
                    position, writes, lambda: self._publish(room, alias), lambda: self._publish(room, "")
                )
        except MatrixError as error:
            if error.errcode != "M_ROOM_IN_USE":
                raise
            raise MatrixError(409, "M_UNKNOWN", "The alias is taken") from None

    def _publish(self, room: Room, added: str) -> None:
        room.pending -= 1
        if added:
            self.take_in(room, added=added)

    async def delete(self, requester: Requester, alias: str) -> None:
        """Removes an alias: its maker may, an administrator, and who may set the room's canonical alias.

        An application service may if the alias is in its namespace; if that is exclusive, of the others only an
        administrator may. Raises InvalidParam, NotFound, Forbidden, M_EXCLUSIVE.
        """
        self._check(alias)
        user_id = requester.user_id
        if not requester.is_admin:
            self.check_may_have(requester, alias)
        found = await self._rooms.load_alias(alias)
        if found is None:
            raise NotFound("No such room alias")
        room_id, creator = found
        if user_id != creator and not requester.is_admin and requester.appservice is None:
            room = await self._access.access_joined_room(user_id, room_id)
            if not may_set_aliases(room, user_id):
                raise Forbidden("You may not remove this alias")
        room = await self._access.access_room(room_id)
        room.pending += 1
        try:
            await self._rooms.delete_alias(alias)
            self.take_in(room, removed=alias)
        finally:
            room.pending -= 1

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


def servers_in(room: Room, server_name: str) -> list[str]:
    """Some servers whose users are joined to a room, this one first."""
    servers = {server_name: None} if room.local_joined else {}
    if len(room.local_joined) < room.joined_count:
        for user_id, membership in room.members.items():
            if membership == "join":
                servers[get_domain(user_id)] = None
                if len(servers) >= MAX_SERVERS:
                    break
    return list(servers)


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

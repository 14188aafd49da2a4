"""The published room directory of this server, and the way to those of others.

https://spec.matrix.org/v1.19/client-server-api/#published-room-directory
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from homeserver.services.errors import Forbidden, InvalidParam, NotFound
from homeserver.services.remote import Transport
from homeserver.services.rooms.access import Access
from homeserver.services.rooms.aliases import may_set_aliases
from homeserver.services.rooms.remote_directory import RoomFilter, RoomQuery, query_elsewhere
from homeserver.services.rooms.summaries import published_chunk
from matrix.identifiers import is_server_name
from storage.appservices import AppserviceRepository
from storage.directory import DirectoryRepository, ListedRoom, Lists, Mark, search_text
from storage.rooms import RoomRepository

DEFAULT_PAGE_ROOMS = 100
MAX_PAGE_ROOMS = 500
MAX_ROOM_TYPES = 100
MAX_NETWORK_BYTES = 255
MAX_INTEGER = 2**31 - 1

# n or p (the rooms after or before), members, room number.
TOKEN = re.compile(r"(?P<direction>[np])(?P<members>[0-9]{1,10})_(?P<room>[0-9]{1,10})", re.ASCII)


class Directory:
    """Lists rooms, and says which are listed."""

    def __init__(
        self,
        repository: DirectoryRepository,
        rooms: RoomRepository,
        network_rooms: AppserviceRepository,
        access: Access,
        transport: Transport,
        *,
        server_name: str,
    ) -> None:
        self._transport = transport
        self._repository = repository
        self._rooms = rooms
        self._network_rooms = network_rooms
        self._access = access
        self._server_name = server_name

    def is_own(self, server_name: str | None) -> bool:
        """Whether the rooms of a server (None for this one) are listed without asking another."""
        return server_name is None or server_name == self._server_name

    async def query_server(self, server_name: str | None, query: RoomQuery) -> dict[str, Any]:
        """A page of the directory of a server; None for this one.

        Raises InvalidParam, NotFound, and 502 M_UNKNOWN where another server has no answer.
        """
        if server_name is None or self.is_own(server_name):
            return await self.query(query)
        if not is_server_name(server_name):
            raise InvalidParam("server must be a server name")
        return await query_elsewhere(self._transport, server_name, query)

    async def query(self, query: RoomQuery) -> dict[str, Any]:
        """A page of this server's directory. Raises InvalidParam."""
        if query.limit is not None and query.limit < 0:
            raise InvalidParam("limit must not be negative")
        if query.third_party_instance_id and query.include_all_networks:
            raise InvalidParam("third_party_instance_id goes only without include_all_networks")
        chosen = query.filter or RoomFilter()
        return await self.list_rooms(
            limit=query.limit or 0,
            since=query.since,
            term=chosen.generic_search_term or "",
            room_types=chosen.room_types,
            network=query.third_party_instance_id or None,
            all_networks=query.include_all_networks,
        )

    async def list_rooms(
        self,
        *,
        limit: int = 0,
        since: str | None = None,
        term: str = "",
        room_types: Sequence[str | None] | None = None,
        network: str | None = None,
        all_networks: bool = False,
    ) -> dict[str, Any]:
        """A page of the directory. `limit` 0 is the default; None among `room_types` is a room without a type.

        `network` is a third-party network whose list is wanted in place of the server's own, `all_networks` for both
        the server's and those of all networks.

        The order is that of the number of members, the largest first, and of age among equals. A token is a place in
        that order, so that a room which comes or goes moves none of the others. Raises InvalidParam.
        """
        backwards, mark = _parse_token(since)
        limit = min(limit or DEFAULT_PAGE_ROOMS, MAX_PAGE_ROOMS)
        types = None
        if room_types is not None:
            if len(room_types) > MAX_ROOM_TYPES:
                raise InvalidParam(f"room_types can have {MAX_ROOM_TYPES} entries")
            types = [room_type or "" for room_type in room_types if "\0" not in (room_type or "")]
        if network is not None and "\0" in network:
            raise InvalidParam("third_party_instance_id has a NUL character")
        lists = Lists(network, all_networks)
        found = await self._repository.load_listed_rooms(
            search_text(term), types, mark, lists, backwards=backwards, limit=limit + 1
        )
        has_more = len(found) > limit
        page = (found[1:] if backwards else found[:limit]) if has_more else found
        answer: dict[str, Any] = {
            "chunk": [published_chunk(room.room_id, room.summary) for room in page],
            "total_room_count_estimate": await self._repository.count_listed_rooms(lists),
        }
        if page and (has_more or backwards):
            answer["next_batch"] = _token("n", page[-1])
        if page and (mark is not None if not backwards else has_more):
            answer["prev_batch"] = _token("p", page[0])
        return answer

    async def is_listed(self, room_id: str) -> bool:
        """Whether a room is listed. Raises NotFound."""
        found = await self._repository.load_is_public(room_id) if "\0" not in room_id else None
        if found is None:
            raise NotFound("No such room")
        return found

    async def set_listed(self, user_id: str, is_admin: bool, room_id: str, listed: bool) -> None:
        """Lists a room or takes it off the list: an administrator may, and a member who may set its canonical alias.

        Raises NotFound, Forbidden.
        """
        room = await self._access.access_room(room_id)
        if not is_admin:
            room = await self._access.access_joined_room(user_id, room_id)
            if not may_set_aliases(room, user_id):
                raise Forbidden("You may not change whether this room is listed")
        await self._rooms.set_public(room.room_id, listed)

    async def set_listed_by_network(self, service_id: str, network: str, room_id: str, listed: bool) -> None:
        """Puts a room on the list of a third-party network, for the service that leads there, or takes it off.

        Raises NotFound, InvalidParam.
        https://spec.matrix.org/v1.19/application-service-api/#published-room-directories
        """
        if len(network.encode()) > MAX_NETWORK_BYTES:
            raise InvalidParam(f"A network's ID can have {MAX_NETWORK_BYTES} bytes")
        room = await self._access.access_room(room_id)
        if listed:
            await self._network_rooms.list_network_room(network, room.room, service_id)
        else:
            await self._network_rooms.unlist_network_room(network, room.room, service_id)


def _token(direction: str, room: ListedRoom) -> str:
    return f"{direction}{room.summary.joined_members}_{room.summary.room}"


def _parse_token(token: str | None) -> tuple[bool, Mark | None]:
    if not token:
        return False, None
    match = TOKEN.fullmatch(token)
    if match is None or int(match["members"]) > MAX_INTEGER or int(match["room"]) > MAX_INTEGER:
        raise InvalidParam("since is not a token of the room directory")
    return match["direction"] == "p", Mark(int(match["members"]), int(match["room"]))

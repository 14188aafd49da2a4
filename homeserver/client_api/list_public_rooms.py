"""list_public_rooms.yaml"""

from __future__ import annotations

from typing import Literal

import msgspec

from homeserver.http.request import Request, Result, Route
from homeserver.services.errors import InvalidParam


class Visibility(msgspec.Struct):
    """The body of setRoomVisibilityOnDirectory."""

    visibility: Literal["public", "private"] = "public"


class RoomFilter(msgspec.Struct):
    """`filter` of queryPublicRooms."""

    generic_search_term: str | None = None
    room_types: list[str | None] | None = None


class RoomQuery(msgspec.Struct):
    """The body of queryPublicRooms."""

    limit: int | None = None
    since: str | None = None
    filter: RoomFilter | None = None
    include_all_networks: bool = False
    third_party_instance_id: str | None = None


async def get_public_rooms(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3publicrooms"""
    directory = request.server.directory
    directory.check_server(request.query.get("server"))
    return await directory.list_rooms(limit=request.query_integer("limit", 0), since=request.query.get("since"))


async def query_public_rooms(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3publicrooms"""
    directory = request.server.directory
    directory.check_server(request.query.get("server"))
    query = await request.body(RoomQuery, optional=True)
    if query.limit is not None and query.limit < 0:
        raise InvalidParam("limit must not be negative")
    if query.third_party_instance_id:
        if query.include_all_networks:
            raise InvalidParam("third_party_instance_id goes only without include_all_networks")
        return {"chunk": [], "total_room_count_estimate": 0}  # there are no bridges to other networks
    request.server.rate_limits.check("search", request.requester.user_id)
    chosen = query.filter or RoomFilter()
    return await directory.list_rooms(
        limit=query.limit or 0,
        since=query.since,
        term=chosen.generic_search_term or "",
        room_types=chosen.room_types,
    )


async def get_room_visibility_on_directory(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3directorylistroomroomid"""
    is_listed = await request.server.directory.is_listed(request.params["roomId"])
    return {"visibility": "public" if is_listed else "private"}


async def set_room_visibility_on_directory(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3directorylistroomroomid"""
    body = await request.body(Visibility, optional=True)
    requester = request.requester
    await request.server.directory.set_listed(
        requester.user_id, requester.is_admin, request.params["roomId"], body.visibility == "public"
    )
    return {}


LISTED = "/_matrix/client/v3/directory/list/room/{roomId}"

ROUTES = [
    Route("GET", LISTED, "getRoomVisibilityOnDirectory", get_room_visibility_on_directory, auth=False),
    Route("PUT", LISTED, "setRoomVisibilityOnDirectory", set_room_visibility_on_directory),
    Route("GET", "/_matrix/client/v3/publicRooms", "getPublicRooms", get_public_rooms, auth=False),
    Route("POST", "/_matrix/client/v3/publicRooms", "queryPublicRooms", query_public_rooms),
]

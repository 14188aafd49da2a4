"""list_public_rooms.yaml"""

from __future__ import annotations

from typing import Literal

import msgspec

from homeserver.http.request import Request, Result, Route
from homeserver.services.rooms.remote_directory import RoomQuery


class Visibility(msgspec.Struct):
    """The body of setRoomVisibilityOnDirectory."""

    visibility: Literal["public", "private"] = "public"


async def get_public_rooms(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3publicrooms"""
    query = RoomQuery(limit=request.query_integer("limit", 0), since=request.query.get("since"))
    server_name = request.query.get("server")
    if not request.server.directory.is_own(server_name):
        request.server.rate_limits.check("federation", f"questions of {request.address}")
    return await request.server.directory.query_server(server_name, query)


async def query_public_rooms(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3publicrooms"""
    query = await request.body(RoomQuery, optional=True)
    request.server.rate_limits.check("search", request.requester.user_id)
    return await request.server.directory.query_server(request.query.get("server"), query)


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

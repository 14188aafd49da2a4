"""public_rooms.yaml: the rooms that this server lists, for users of others."""

from __future__ import annotations

from homeserver.http.request import Request, Result, Route
from homeserver.services.rooms.remote_directory import RoomQuery


async def get_public_rooms(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1publicrooms"""
    query = RoomQuery(
        limit=request.query_integer("limit", 0),
        since=request.query.get("since"),
        include_all_networks=request.query_boolean("include_all_networks"),
        third_party_instance_id=request.query.get("third_party_instance_id"),
    )
    return await request.server.directory.query(query)


async def query_public_rooms(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/server-server-api/#post_matrixfederationv1publicrooms"""
    return await request.server.directory.query(await request.body(RoomQuery))


PUBLIC_ROOMS = "/_matrix/federation/v1/publicRooms"

ROUTES = [
    Route("GET", PUBLIC_ROOMS, "getPublicRooms", get_public_rooms, signed=True, resource="federation"),
    Route("POST", PUBLIC_ROOMS, "queryPublicRooms", query_public_rooms, signed=True, resource="federation"),
]

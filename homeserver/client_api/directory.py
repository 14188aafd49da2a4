"""directory.yaml"""

from __future__ import annotations

import msgspec

from homeserver.http.request import Request, Result, Route
from homeserver.services.errors import InvalidParam
from matrix.identifiers import is_room_id


class AliasTarget(msgspec.Struct):
    """The body of setRoomAlias."""

    room_id: str


async def set_room_alias(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3directoryroomroomalias"""
    target = await request.body(AliasTarget)
    await request.server.aliases.create(request.requester, request.params["roomAlias"], target.room_id)
    return {}


async def get_room_id_by_alias(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3directoryroomroomalias"""
    alias = request.params["roomAlias"]
    if not request.server.aliases.is_local(alias):
        request.server.rate_limits.check("federation", f"questions of {request.address}")
    return (await request.server.aliases.locate(alias, asked_by=request.service_id()))._asdict()


async def delete_room_alias(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#delete_matrixclientv3directoryroomroomalias"""
    await request.server.aliases.delete(request.requester, request.params["roomAlias"])
    return {}


async def get_local_aliases(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidaliases"""
    room_id = request.params["roomId"]
    if not is_room_id(room_id):
        raise InvalidParam("Not a room ID")
    return {"aliases": await request.server.aliases.of_room(request.requester.user_id, room_id)}


ALIAS = "/_matrix/client/v3/directory/room/{roomAlias}"

ROUTES = [
    Route("PUT", ALIAS, "setRoomAlias", set_room_alias),
    Route("GET", ALIAS, "getRoomIdByAlias", get_room_id_by_alias, auth=False),
    Route("DELETE", ALIAS, "deleteRoomAlias", delete_room_alias),
    Route("GET", "/_matrix/client/v3/rooms/{roomId}/aliases", "getLocalAliases", get_local_aliases, limited=True),
]

"""room_summary.yaml, space_hierarchy.yaml"""

from __future__ import annotations

from homeserver.http.request import Request, Result, Route
from homeserver.services.errors import InvalidParam
from homeserver.services.rooms.spaces import DEFAULT_DEPTH, DEFAULT_PAGE_ROOMS, MAX_PAGE_ROOMS
from homeserver.services.rooms.summaries import room_summary


async def get_room_summary(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1room_summaryroomidoralias"""
    server, target = request.server, request.params["roomIdOrAlias"]
    user_id = request.authenticated.user_id if request.authenticated is not None else None
    if not target.startswith(("!", "#")):
        raise InvalidParam("Neither a room ID nor a room alias")
    room_id = await server.aliases.resolve(target) if target.startswith("#") else target
    room = await server.access.access_previewable_room(user_id, room_id)
    summary = room_summary(room)
    membership = None if user_id is None else room.membership(user_id)
    return summary if user_id is None else {**summary, "membership": membership or "leave"}


async def get_space_hierarchy(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1roomsroomidhierarchy"""
    user_id = request.requester.user_id
    request.server.rate_limits.check("search", user_id)
    return await request.server.spaces.hierarchy(
        user_id,
        request.params["roomId"],
        limit=request.query_integer("limit", DEFAULT_PAGE_ROOMS, minimum=1, maximum=MAX_PAGE_ROOMS),
        max_depth=request.query_integer("max_depth", DEFAULT_DEPTH),
        suggested_only=request.query_boolean("suggested_only"),
        since=request.query.get("from"),
    )


ROUTES = [
    Route("GET", "/_matrix/client/v1/room_summary/{roomIdOrAlias}", "getRoomSummary", get_room_summary, anonymous=True),
    Route("GET", "/_matrix/client/v1/rooms/{roomId}/hierarchy", "getSpaceHierarchy", get_space_hierarchy),
]

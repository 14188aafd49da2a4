"""create_room.yaml"""

from __future__ import annotations

from homeserver.http.request import Request, Result, Route
from homeserver.services.rooms.creation import RoomOptions


async def create_room(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3createroom"""
    request.server.rate_limits.check("room_creation", request.requester.user_id)
    options = await request.body(RoomOptions, optional=True)
    return {"room_id": await request.server.creation.create(request.requester, options)}


ROUTES = [Route("POST", "/_matrix/client/v3/createRoom", "createRoom", create_room)]

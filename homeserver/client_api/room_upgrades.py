"""room_upgrades.yaml"""

from __future__ import annotations

import msgspec

from homeserver.http.request import Request, Result, Route


class Upgrade(msgspec.Struct):
    """The body of upgradeRoom."""

    new_version: str
    additional_creators: list[str] = []


async def upgrade_room(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3roomsroomidupgrade"""
    body = await request.body(Upgrade)
    request.server.rate_limits.check("room_creation", request.requester.user_id)
    room_id = await request.server.upgrades.upgrade(
        request.requester, request.params["roomId"], body.new_version, body.additional_creators
    )
    return {"replacement_room": room_id}


ROUTES = [Route("POST", "/_matrix/client/v3/rooms/{roomId}/upgrade", "upgradeRoom", upgrade_room)]

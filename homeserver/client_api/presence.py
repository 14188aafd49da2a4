"""presence.yaml"""

from __future__ import annotations

import msgspec

from homeserver.client_api.own_data import access_own
from homeserver.http.request import Request, Result, Route
from homeserver.services.presence import State


class PresenceState(msgspec.Struct):
    """The body of setPresence."""

    presence: State
    status_msg: str | None = None


async def set_presence(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3presenceuseridstatus"""
    user_id = access_own(request)
    body = await request.body(PresenceState)
    request.server.rate_limits.check("presence", user_id)
    await request.server.presence.declare(request.requester, body.presence, body.status_msg)
    return {}


async def get_presence(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3presenceuseridstatus"""
    return await request.server.presence.get(request.requester.user_id, request.params["userId"])


STATUS = "/_matrix/client/v3/presence/{userId}/status"

ROUTES = [
    Route("PUT", STATUS, "setPresence", set_presence),
    Route("GET", STATUS, "getPresence", get_presence),
]

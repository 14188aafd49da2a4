"""invites-v1.yaml, invites-v2.yaml: users of this server are invited to rooms of others."""

from __future__ import annotations

from typing import Any

import msgspec
import orjson

from homeserver.http.request import Request, Result, Route


class Invite(msgspec.Struct):
    """The body of version 2."""

    room_version: str
    event: dict[str, Any]
    invite_room_state: list[Any] = []


async def send_invite_v2(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv2inviteroomideventid"""
    body = await request.body(Invite)
    request.server.rate_limits.check("invite", f"invitations by {request.origin}")
    return {"event": await _receive(request, body.room_version, body.event, body.invite_room_state)}


async def send_invite_v1(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv1inviteroomideventid

    It says nothing of the room version, which is 1 or 2 then: they have the same events.
    """
    event = await request.json_object()
    request.server.rate_limits.check("invite", f"invitations by {request.origin}")
    unsigned = event.get("unsigned")
    told = unsigned.get("invite_room_state") if isinstance(unsigned, dict) else None
    signed = await _receive(request, "1", event, told if isinstance(told, list) else [])
    return orjson.dumps([200, {"event": signed}])


async def _receive(request: Request, version: str, event: dict[str, Any], room_state: list[Any]) -> dict[str, Any]:
    params = request.params
    return await request.server.federation.inviting.receive(
        request.origin, params["roomId"], params["eventId"], version, event, room_state
    )


ROUTES = [
    Route(
        "PUT",
        "/_matrix/federation/v1/invite/{roomId}/{eventId}",
        "sendInviteV1",
        send_invite_v1,
        signed=True,
        resource="federation",
    ),
    Route(
        "PUT",
        "/_matrix/federation/v2/invite/{roomId}/{eventId}",
        "sendInviteV2",
        send_invite_v2,
        signed=True,
        resource="federation",
    ),
]

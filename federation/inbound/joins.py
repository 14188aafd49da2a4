"""joins-v1.yaml, joins-v2.yaml, leaving-v1.yaml, leaving-v2.yaml, knocks.yaml: users of other servers come and go."""

from __future__ import annotations

from typing import Any

from homeserver.http.request import Request, Result, Route
from homeserver.services.federation.handshake import Step
from homeserver.services.rooms.stripped_state import STRIPPED_STATE

MAX_VERSIONS = 100


async def _make(request: Request, step: Step) -> dict[str, Any]:
    params = request.params
    if step != "leave":
        # By user: servers with many of them are told apart from one that tries the doors of all rooms.
        request.server.rate_limits.check("join", f"{step} of {params['userId']} at {request.origin}")
    versions = request.query_list("ver")[:MAX_VERSIONS] or ["1"]  # "Defaults to [1]."
    return await request.server.federation.resident.make(
        step, request.origin, params["roomId"], params["userId"], versions
    )


async def make_join(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1make_joinroomiduserid"""
    return await _make(request, "join")


async def send_join_v2(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv2send_joinroomideventid"""
    omit_members = request.query_boolean("omit_members")
    return await _send_join(request, omit_members=omit_members)


async def _send_join(request: Request, *, omit_members: bool) -> bytes:
    resident, params = request.server.federation.resident, request.params
    event = await resident.accept(
        "join", request.origin, params["roomId"], params["eventId"], await request.json_object()
    )
    return await resident.joined(request.origin, event, omit_members=omit_members)


async def make_leave(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1make_leaveroomiduserid"""
    return await _make(request, "leave")


async def send_leave_v2(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv2send_leaveroomideventid"""
    params = request.params
    await request.server.federation.resident.accept(
        "leave", request.origin, params["roomId"], params["eventId"], await request.json_object()
    )
    return {}


async def make_knock(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1make_knockroomiduserid"""
    return await _make(request, "knock")


async def send_knock(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv1send_knockroomideventid

    What identifies the room is told by whole events, from which the other server can tell that they are real.
    """
    resident, params = request.server.federation.resident, request.params
    request.server.rate_limits.check("join", f"knocks of {request.origin} on {params['roomId']}")
    await resident.accept("knock", request.origin, params["roomId"], params["eventId"], await request.json_object())
    room = await resident.access_room(request.origin, params["roomId"])
    shown = [event for type in STRIPPED_STATE if (event := room.pinned.get((type, ""))) is not None]
    return {"knock_room_state": [event.pdu.json for event in shown]}


FEDERATION = "federation"
V1, V2 = "/_matrix/federation/v1", "/_matrix/federation/v2"

ROUTES = [
    Route("GET", f"{V1}/make_join/{{roomId}}/{{userId}}", "makeJoin", make_join, signed=True, resource=FEDERATION),
    Route(
        "PUT", f"{V2}/send_join/{{roomId}}/{{eventId}}", "sendJoinV2", send_join_v2, signed=True, resource=FEDERATION
    ),
    Route("GET", f"{V1}/make_leave/{{roomId}}/{{userId}}", "makeLeave", make_leave, signed=True, resource=FEDERATION),
    Route(
        "PUT",
        f"{V2}/send_leave/{{roomId}}/{{eventId}}",
        "sendLeaveV2",
        send_leave_v2,
        signed=True,
        resource=FEDERATION,
    ),
    Route("GET", f"{V1}/make_knock/{{roomId}}/{{userId}}", "makeKnock", make_knock, signed=True, resource=FEDERATION),
    Route("PUT", f"{V1}/send_knock/{{roomId}}/{{eventId}}", "sendKnock", send_knock, signed=True, resource=FEDERATION),
]

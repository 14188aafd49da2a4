"""room_state.yaml, and the reading of state in rooms.yaml"""

from __future__ import annotations

import orjson

from homeserver.http.request import Request, Result, Route
from homeserver.services.errors import InvalidParam, NotFound
from homeserver.services.rooms.aliases import CANONICAL_ALIAS


async def set_room_state_with_key(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3roomsroomidstateeventtypestatekey"""
    content = await request.json_object()
    server, params, user_id = request.server, request.params, request.requester.user_id
    room_id, event_type, state_key = params["roomId"], params["eventType"], params.get("stateKey", "")
    server.rate_limits.check("message", user_id)
    if event_type == "m.room.member" and state_key == user_id:
        if content.get("membership") in ("join", "knock") and await server.membership.is_outside(user_id, room_id):
            server.rate_limits.check("join", user_id)
        return {"event_id": await server.membership.set_own(request.requester, room_id, content, ts=request.event_ts())}
    await server.access.access_joined_room(user_id, room_id)
    if event_type == CANONICAL_ALIAS and not state_key:
        await server.aliases.check_canonical_alias(user_id, room_id, content)
    if event_type == "m.room.member":
        if content.get("membership") == "invite":
            server.rate_limits.check("invite", user_id)
        await server.membership.check_member_state(state_key, content)
    event_id = await server.sending.send_state(
        request.requester, room_id, event_type, state_key, content, ts=request.event_ts()
    )
    return {"event_id": event_id}


async def get_room_state_with_key(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidstateeventtypestatekey"""
    form = request.query.get("format", "content")
    if form not in ("content", "event"):
        raise InvalidParam("format must be content or event")
    server, params = request.server, request.params
    reader = await server.access.access_readable_room(request.requester.user_id, params["roomId"])
    state = await server.access.state_positions(reader)
    position = state.get((params["eventType"], params.get("stateKey", "")))
    if position is None:
        raise NotFound("No such state event")
    event = (await server.events.load([position]))[position]
    if form == "content":
        return orjson.dumps(event.pdu.content)
    return (await server.event_views.room_events(request.requester, reader, [event]))[0]


async def get_room_state(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidstate"""
    server = request.server
    reader = await server.access.access_readable_room(request.requester.user_id, request.params["roomId"])
    positions = sorted((await server.access.state_positions(reader)).values())
    loaded = await server.events.load(positions)
    events = await server.event_views.room_events(
        request.requester, reader, [loaded[position] for position in positions]
    )
    return b"[" + b",".join(events) + b"]"


STATE = "/_matrix/client/v3/rooms/{roomId}/state"

# A state key may be empty: with the slash before it and, as clients do, without.
ROUTES = [
    Route("GET", STATE, "getRoomState", get_room_state),
    *(
        Route(method, path, name, handler)
        for path in (f"{STATE}/{{eventType}}", f"{STATE}/{{eventType}}/", f"{STATE}/{{eventType}}/{{stateKey}}")
        for method, name, handler in (
            ("PUT", "setRoomStateWithKey", set_room_state_with_key),
            ("GET", "getRoomStateWithKey", get_room_state_with_key),
        )
    ),
]

"""rooms.yaml (events and members) and message_pagination.yaml"""

from __future__ import annotations

from typing import Any

from homeserver.client_api.event_filters import room_event_filter
from homeserver.http.request import Request, Result, Route
from homeserver.services.errors import Forbidden, InvalidParam, MissingParam
from homeserver.services.rooms.access import NOT_IN_ROOM, Reader
from homeserver.services.sync.tokens import BEGINNING, decode_token, encode_token
from storage.events import StoredEvent

MEMBERSHIPS = ("join", "invite", "knock", "leave", "ban")
DEFAULT_PAGE = 10


async def get_one_room_event(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomideventeventid"""
    server, params = request.server, request.params
    user_id = request.requester.user_id
    event = await server.access.access_event(user_id, params["roomId"], params["eventId"])
    reader = await server.access.access_readable_room(user_id, params["roomId"])
    return (await server.event_views.room_events(request.requester, reader, [event]))[0]


async def get_joined_members_by_room(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidjoined_members"""
    server = request.server
    reader = await server.access.access_readable_room(request.requester.user_id, request.params["roomId"])
    if reader.membership != "join":
        raise Forbidden(NOT_IN_ROOM)
    joined: dict[str, dict[str, Any]] = {}
    for event in await _members(request, reader, frozenset({"join"})):
        content = event.pdu.content
        shown = {"display_name": content.get("displayname"), "avatar_url": content.get("avatar_url")}
        joined[event.pdu.state_key or ""] = {key: value for key, value in shown.items() if isinstance(value, str)}
    return {"joined": joined}


async def get_members_by_room(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidmembers"""
    wanted = _wanted_memberships(request)
    at = decode_token(request.query["at"]) if "at" in request.query else None
    server = request.server
    reader = await server.access.access_readable_room(request.requester.user_id, request.params["roomId"])
    events = await _members(request, reader, wanted, at)
    chunk = await server.event_views.room_events(request.requester, reader, events)
    return b'{"chunk":[' + b",".join(chunk) + b"]}"


def _wanted_memberships(request: Request) -> frozenset[str]:
    """What `membership` and `not_membership` ask for: what is the one *or* is not the other. Raises InvalidParam."""
    wanted, unwanted = request.query.get("membership"), request.query.get("not_membership")
    for value in (wanted, unwanted):
        if value is not None and value not in MEMBERSHIPS:
            raise InvalidParam("membership and not_membership must be memberships")
    if unwanted is None:
        return frozenset(MEMBERSHIPS if wanted is None else {wanted})
    return frozenset(MEMBERSHIPS) - {unwanted} | {wanted or ""}


async def _members(
    request: Request, reader: Reader, wanted: frozenset[str], at: int | None = None
) -> list[StoredEvent]:
    """The member events that the reader sees (as of a position, if one is given), of some memberships."""
    server = request.server
    if reader.room.partial is not None and reader.room.asked_members is not None:
        reader.room.asked_members.add(reader.user_id)  # they are told the others when these are known
    if at is not None and at < reader.room.last_position:
        last = await server.events.load_timeline(
            reader.room.room, after=BEGINNING, up_to=min(at, reader.up_to or at), limit=1, backwards=True
        )
        if last and not await server.access.visible_events(reader, last):
            last = await _own_join(request, reader)  # of what was before, the reader sees nothing
        state = await server.access.state_at(reader.room, last[0].snapshot) if last else {}
    else:
        state = await server.access.state_positions(reader)
    positions = sorted(position for key, position in state.items() if key[0] == "m.room.member")
    loaded = await server.events.load(positions)
    events = [loaded[position] for position in positions]
    return [event for event in events if event.pdu.content.get("membership") in wanted]


async def _own_join(request: Request, reader: Reader) -> list[StoredEvent]:
    """The event by which the reader is in the room; nothing for who is not."""
    user_room = (await request.server.user_rooms.load(reader.user_id)).get(reader.room.room_id)
    if user_room is None or user_room.membership != "join":
        return []
    return list((await request.server.events.load([user_room.position])).values())


async def get_room_events(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidmessages"""
    direction = request.query.get("dir")
    if direction is None:
        raise MissingParam("dir is missing")
    if direction not in ("b", "f"):
        raise InvalidParam("dir must be b or f")
    backwards = direction == "b"
    server = request.server
    reader = await server.access.access_readable_room(request.requester.user_id, request.params["roomId"])
    limit = request.query_integer("limit", DEFAULT_PAGE, minimum=0, maximum=server.config.limits.max_page_events)
    newest = server.stream.current if reader.up_to is None else reader.up_to
    start = request.query.get("from")
    start_position = decode_token(start) if start else (newest if backwards else BEGINNING)
    stop = request.query.get("to")
    stop_position = decode_token(stop) if stop else (BEGINNING if backwards else newest)
    event_filter = room_event_filter(request)
    page = await server.timelines.page(
        reader,
        start=min(start_position, newest) if backwards else start_position,
        stop=stop_position,
        limit=max(limit, 1),
        backwards=backwards,
        event_filter=event_filter,
        may_fill=True,
    )
    chunk = await server.event_views.room_events(request.requester, reader, page.events)
    members = await _lazy_members(request, reader, page.events) if event_filter.lazy_load_members else []
    parts = [b'{"chunk":[', b",".join(chunk), b'],"start":"', encode_token(start_position).encode(), b'"']
    if page.end is not None:
        parts += (b',"end":"', encode_token(page.end).encode(), b'"')
    if members:
        parts += (b',"state":[', b",".join(members), b"]")
    return b"".join((*parts, b"}"))


async def _lazy_members(request: Request, reader: Reader, events: list[StoredEvent]) -> list[bytes]:
    """The member events of the page's senders, as they are where the reader stands."""
    state = await request.server.access.state_positions(reader)
    senders = dict.fromkeys(event.pdu.sender for event in events)
    positions = [position for user_id in senders if (position := state.get(("m.room.member", user_id))) is not None]
    loaded = await request.server.events.load(positions)
    return await request.server.event_views.room_events(
        request.requester, reader, [loaded[position] for position in positions]
    )


ROUTES = [
    Route("GET", "/_matrix/client/v3/rooms/{roomId}/event/{eventId}", "getOneRoomEvent", get_one_room_event),
    Route(
        "GET", "/_matrix/client/v3/rooms/{roomId}/joined_members", "getJoinedMembersByRoom", get_joined_members_by_room
    ),
    Route("GET", "/_matrix/client/v3/rooms/{roomId}/members", "getMembersByRoom", get_members_by_room),
    Route("GET", "/_matrix/client/v3/rooms/{roomId}/messages", "getRoomEvents", get_room_events),
]

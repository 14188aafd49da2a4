"""event_context.yaml"""

from __future__ import annotations

from homeserver.client_api.event_filters import room_event_filter
from homeserver.http.request import Request, Result, Route
from homeserver.services.rooms.access import Reader
from homeserver.services.sync.tokens import BEGINNING, encode_token
from matrix.filters import RoomEventFilter
from storage.events import StoredEvent

DEFAULT_EVENTS = 10


async def get_event_context(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidcontexteventid"""
    server, params = request.server, request.params
    user_id = request.requester.user_id
    limit = request.query_integer("limit", DEFAULT_EVENTS, maximum=server.config.limits.max_page_events)
    event_filter = room_event_filter(request)
    event = await server.access.access_event(user_id, params["roomId"], params["eventId"])
    reader = await server.access.access_readable_room(user_id, params["roomId"])
    newest = server.stream.current if reader.up_to is None else reader.up_to
    before, start = await _around(request, reader, event.position - 1, BEGINNING, limit // 2, event_filter)
    after, end = await _around(request, reader, event.position, newest, limit - limit // 2, event_filter)
    shown = [*before, event, *after]
    state = await _state(request, reader, shown, event_filter)
    views = await server.event_views.room_events(request.requester, reader, [*shown, *state])
    chunks = views[: len(before)], views[len(before) + 1 : len(shown)], views[len(shown) :]
    return b'{"start":"%s","end":"%s","event":%s,"events_before":[%s],"events_after":[%s],"state":[%s]}' % (
        encode_token(start).encode(),
        encode_token(end).encode(),
        views[len(before)],
        *map(b",".join, chunks),
    )


async def _around(
    request: Request, reader: Reader, start: int, stop: int, limit: int, event_filter: RoomEventFilter
) -> tuple[list[StoredEvent], int]:
    """Up to `limit` events from a position on in the direction of another, and the position to go on from."""
    if not limit:
        return [], start
    backwards = stop < start
    page = await request.server.timelines.page(
        reader, start=start, stop=stop, limit=limit, backwards=backwards, event_filter=event_filter
    )
    if page.end is not None:
        return page.events, page.end
    return page.events, min(start, stop) if backwards else max(start, stop)


async def _state(
    request: Request, reader: Reader, shown: list[StoredEvent], event_filter: RoomEventFilter
) -> list[StoredEvent]:
    """The state at the last event shown, of members only the senders if they are to be loaded lazily."""
    server = request.server
    last = max(shown, key=lambda event: event.position)
    state = await server.access.state_at(reader.room, last.snapshot)
    if event_filter.lazy_load_members:
        senders = {event.pdu.sender for event in shown}
        state = {key: at for key, at in state.items() if key[0] != "m.room.member" or key[1] in senders}
    loaded = await server.events.load(state.values())
    events = [loaded[position] for position in sorted(loaded)]
    return [event for event in events if event_filter.matches(event.pdu.json)]


ROUTES = [
    Route("GET", "/_matrix/client/v3/rooms/{roomId}/context/{eventId}", "getEventContext", get_event_context),
]

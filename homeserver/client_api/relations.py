"""relations.yaml"""

from __future__ import annotations

import orjson

from homeserver.http.request import Request, Result, Route
from homeserver.services.errors import InvalidParam
from homeserver.services.relations import MAX_DEPTH
from homeserver.services.sync.tokens import BEGINNING, decode_token, encode_token

DEFAULT_PAGE = 20


async def get_relating_events(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1roomsroomidrelationseventid"""
    return await _relations(request, None, None)


async def get_relating_events_with_rel_type(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1roomsroomidrelationseventidreltype"""
    return await _relations(request, request.params["relType"], None)


async def get_relating_events_with_rel_type_and_event_type(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1roomsroomidrelationseventidreltypeeventtype"""
    return await _relations(request, request.params["relType"], request.params["eventType"])


async def _relations(request: Request, rel_type: str | None, event_type: str | None) -> Result:
    server, params, query = request.server, request.params, request.query
    direction = query.get("dir", "b")
    if direction not in ("b", "f"):
        raise InvalidParam("dir must be b or f")
    backwards = direction == "b"
    limit = request.query_integer("limit", DEFAULT_PAGE, minimum=1, maximum=server.config.limits.max_page_events)
    depth = MAX_DEPTH if request.query_boolean("recurse") else 1
    given_start = decode_token(query["from"]) if query.get("from") else None
    given_stop = decode_token(query["to"]) if query.get("to") else None
    user_id = request.requester.user_id
    parent = await server.access.access_event(user_id, params["roomId"], params["eventId"])
    reader = await server.access.access_readable_room(user_id, params["roomId"])
    newest = server.stream.current if reader.up_to is None else reader.up_to
    start, stop = (newest, BEGINNING) if backwards else (BEGINNING, newest)
    page = await server.relations.page(
        reader,
        parent.event_id,
        rel_type=rel_type,
        event_type=event_type,
        start=start if given_start is None else min(given_start, newest),
        stop=stop if given_stop is None else min(given_stop, newest),
        limit=limit,
        backwards=backwards,
        depth=depth,
    )
    chunk = await server.event_views.room_events(request.requester, reader, page.events)
    parts = [b'{"chunk":[', b",".join(chunk), b"]"]
    if given_start is not None:
        parts += (b',"prev_batch":', orjson.dumps(encode_token(given_start)))
    if page.end is not None:
        parts += (b',"next_batch":', orjson.dumps(encode_token(page.end)))
    if "recurse" in query:
        parts.append(b',"recursion_depth":%d' % depth)
    return b"".join((*parts, b"}"))


PATH = "/_matrix/client/v1/rooms/{roomId}/relations/{eventId}"
ROUTES = [
    Route("GET", PATH, "getRelatingEvents", get_relating_events),
    Route("GET", PATH + "/{relType}", "getRelatingEventsWithRelType", get_relating_events_with_rel_type),
    Route(
        "GET",
        PATH + "/{relType}/{eventType}",
        "getRelatingEventsWithRelTypeAndEventType",
        get_relating_events_with_rel_type_and_event_type,
    ),
]

"""threads_list.yaml"""

from __future__ import annotations

from homeserver.http.request import Request, Result, Route
from homeserver.services.errors import InvalidParam
from homeserver.services.sync.tokens import decode_token, encode_token

DEFAULT_PAGE = 20


async def get_thread_roots(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1roomsroomidthreads"""
    server, query = request.server, request.query
    include = query.get("include", "all")
    if include not in ("all", "participated"):
        raise InvalidParam("include must be all or participated")
    limit = request.query_integer("limit", DEFAULT_PAGE, minimum=1, maximum=server.config.limits.max_page_events)
    given_start = decode_token(query["from"]) if query.get("from") else None
    reader = await server.access.access_readable_room(request.requester.user_id, request.params["roomId"])
    newest = server.stream.current if reader.up_to is None else reader.up_to
    page = await server.relations.threads(
        reader,
        start=newest if given_start is None else min(given_start, newest),
        up_to=newest,
        limit=limit,
        participated=include == "participated",
    )
    chunk = await server.event_views.room_events(request.requester, reader, page.events)
    parts = [b'{"chunk":[', b",".join(chunk), b"]"]
    if page.end is not None:
        parts += (b',"next_batch":"', encode_token(page.end).encode(), b'"')
    return b"".join((*parts, b"}"))


ROUTES = [Route("GET", "/_matrix/client/v1/rooms/{roomId}/threads", "getThreadRoots", get_thread_roots, limited=True)]

"""sync.yaml"""

from __future__ import annotations

from homeserver.http.request import Request, Result, Route
from homeserver.services.errors import InvalidParam
from homeserver.services.sync.tokens import decode_token

PRESENCES = ("offline", "online", "unavailable")


async def sync(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3sync"""
    query = request.query
    if query.get("set_presence", "online") not in PRESENCES:
        raise InvalidParam("set_presence is not a presence state")
    since = query.get("since")
    return await request.server.sync.sync(
        request.requester,
        await request.server.filters.resolve(request.requester.user_id, query.get("filter")),
        since=decode_token(since) if since else None,
        full_state=request.query_boolean("full_state"),
        timeout_ms=request.query_integer("timeout", 0),
        state_after=request.query_boolean("use_state_after"),
    )


ROUTES = [Route("GET", "/_matrix/client/v3/sync", "sync", sync)]

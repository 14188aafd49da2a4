"""sync.yaml"""

from __future__ import annotations

from homeserver.http.request import Request, Result, Route
from homeserver.services.errors import InvalidParam, UnknownToken
from homeserver.services.presence import State
from homeserver.services.sync.tokens import decode_sync_token

PRESENCES: dict[str, State] = {"offline": "offline", "online": "online", "unavailable": "unavailable"}


async def sync(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3sync"""
    query = request.query
    presence = PRESENCES.get(query.get("set_presence", "online"))
    if presence is None:
        raise InvalidParam("set_presence is not a presence state")
    since = query.get("since")
    timeout_ms = min(request.query_integer("timeout", 0), request.server.config.limits.max_sync_timeout_ms)
    request.server.presence.on_sync(request.requester, presence, timeout_ms)
    answer = await request.server.sync.sync(
        request.requester,
        await request.server.filters.resolve(request.requester.user_id, query.get("filter")),
        token=decode_sync_token(since) if since else None,
        full_state=request.query_boolean("full_state"),
        timeout_ms=timeout_ms,
        state_after=request.query_boolean("use_state_after"),
    )
    if request.server.sessions.has_ended(request.requester.device):  # while this waited
        raise UnknownToken
    return answer


ROUTES = [Route("GET", "/_matrix/client/v3/sync", "sync", sync)]

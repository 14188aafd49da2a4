"""notifications.yaml"""

from __future__ import annotations

from homeserver.http.request import Request, Result, Route
from homeserver.services.sync.tokens import MAX_POSITION, decode_token, encode_token

DEFAULT_NOTIFICATIONS = 20
MAX_NOTIFICATIONS = 100


async def get_notifications(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3notifications"""
    token = request.query.get("from")
    before = MAX_POSITION if not token else decode_token(token)
    limit = request.query_integer("limit", DEFAULT_NOTIFICATIONS, minimum=1, maximum=MAX_NOTIFICATIONS)
    found, more = await request.server.notifications.page(
        request.requester, before=before, limit=limit, only_highlights=request.query.get("only") == "highlight"
    )
    return {"notifications": found} | ({} if more is None else {"next_token": encode_token(more)})


ROUTES = [Route("GET", "/_matrix/client/v3/notifications", "getNotifications", get_notifications)]

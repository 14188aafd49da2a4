"""Proving to another service who one is: https://spec.matrix.org/v1.19/client-server-api/#openid"""

from __future__ import annotations

from homeserver.http.request import Request, Result, Route
from homeserver.services.accounts.openid import OPENID_TOKEN_LIFETIME_S
from homeserver.services.errors import Forbidden


async def request_open_id_token(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3useruseridopenidrequest_token"""
    server, user_id = request.server, request.requester.user_id
    if request.params["userId"] != user_id:
        raise Forbidden("This is another user")
    await request.json_object()
    server.rate_limits.check("credentials", user_id)
    return {
        "access_token": await server.openid.new_token(user_id),
        "token_type": "Bearer",
        "matrix_server_name": server.config.server_name,
        "expires_in": OPENID_TOKEN_LIFETIME_S,
    }


ROUTES = [
    Route("POST", "/_matrix/client/v3/user/{userId}/openid/request_token", "requestOpenIdToken", request_open_id_token),
]

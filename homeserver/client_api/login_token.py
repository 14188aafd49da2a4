"""A token for logging in on another device: https://spec.matrix.org/v1.19/client-server-api/#token-based"""

from __future__ import annotations

from typing import Any

import msgspec

from homeserver.http.request import Request, Result, Route
from homeserver.services.accounts.interactive_auth import PASSWORD_FLOWS
from homeserver.services.accounts.login import LOGIN_TOKEN_LIFETIME_MS


class GenerateLoginTokenBody(msgspec.Struct):
    """Interactive authentication alone."""

    auth: dict[str, Any] | None = None


async def generate_login_token(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv1loginget_token"""
    body = await request.body(GenerateLoginTokenBody, optional=True)
    server, user_id = request.server, request.requester.user_id
    await server.interactive_auth.check(request.route.name, body.auth, PASSWORD_FLOWS, user_id=user_id)
    server.rate_limits.check("login_token", user_id)
    token = await server.login.new_login_token(user_id)
    return {"login_token": token, "expires_in_ms": LOGIN_TOKEN_LIFETIME_MS}


ROUTES = [
    Route("POST", "/_matrix/client/v1/login/get_token", "generateLoginToken", generate_login_token),
]

"""Other tokens for a session: https://spec.matrix.org/v1.19/client-server-api/#refreshing-access-tokens"""

from __future__ import annotations

import msgspec

from homeserver.http.request import Request, Result, Route
from homeserver.services.accounts.sessions import hash_token


class RefreshBody(msgspec.Struct):
    """The refresh token, which is all the authentication there is."""

    refresh_token: str


async def refresh(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3refresh"""
    body = await request.body(RefreshBody)
    request.server.rate_limits.check("credentials", f"refresh {hash_token(body.refresh_token).hex()}")
    return (await request.server.sessions.refresh(body.refresh_token)).body()


ROUTES = [
    Route("POST", "/_matrix/client/v3/refresh", "refresh", refresh, auth=False),
]

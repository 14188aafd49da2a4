"""openid.yaml: whose an OpenID token is."""

from __future__ import annotations

from homeserver.http.request import Request, Result, Route
from homeserver.services.errors import MissingParam


async def exchange_open_id_token(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1openiduserinfo"""
    token = request.query.get("access_token")
    if not token:
        raise MissingParam("Missing access_token")
    return {"sub": await request.server.openid.user_of(token)}


ROUTES = [
    Route(
        "GET",
        "/_matrix/federation/v1/openid/userinfo",
        "exchangeOpenIdToken",
        exchange_open_id_token,
        auth=False,
        resource="federation",
    ),
]

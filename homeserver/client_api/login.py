"""Logging in: https://spec.matrix.org/v1.19/client-server-api/#legacy-login"""

from __future__ import annotations

from typing import Any

import msgspec

from homeserver.http.request import Request, Result, Route, convert
from homeserver.services.accounts.login import LOGIN_TYPES
from homeserver.services.errors import MatrixError


class LoginBody(msgspec.Struct):
    """What a client logs in with; `user`, `medium` and `address` are deprecated forms of `identifier`."""

    type: str
    identifier: dict[str, Any] | None = None
    user: str | None = None
    medium: str | None = None
    address: str | None = None
    password: str | None = None
    device_id: str | None = None
    initial_device_display_name: str | None = None


async def get_login_flows(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3login"""
    return {"flows": [{"type": login_type} for login_type in LOGIN_TYPES]}


async def login(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3login"""
    server = request.server
    credentials = await request.json_object()
    body = convert(credentials, LoginBody)
    if body.type not in LOGIN_TYPES:
        raise MatrixError(400, "M_UNKNOWN", "Unknown login type")
    answer = await server.login.login(
        credentials,
        device_id=body.device_id,
        display_name=body.initial_device_display_name,
        address=request.address,
    )
    if server.config.public_base_url is not None:
        answer["well_known"] = {"m.homeserver": {"base_url": server.config.base_url}}
    return answer


ROUTES = [
    Route("GET", "/_matrix/client/v3/login", "getLoginFlows", get_login_flows, auth=False),
    Route("POST", "/_matrix/client/v3/login", "login", login, auth=False),
]

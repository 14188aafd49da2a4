"""Logging in: https://spec.matrix.org/v1.19/client-server-api/#legacy-login, and the ways that are not here."""

from __future__ import annotations

from typing import Any

import msgspec

from homeserver.http.request import Request, Result, Route, convert
from homeserver.services.appservices.accounts import APPLICATION_SERVICE
from homeserver.services.errors import MatrixError, MissingParam, NotFound


class LoginBody(msgspec.Struct):
    """What a client logs in with; `user`, `medium` and `address` are deprecated forms of `identifier`."""

    type: str
    identifier: dict[str, Any] | None = None
    user: str | None = None
    medium: str | None = None
    address: str | None = None
    password: str | None = None
    token: str | None = None
    device_id: str | None = None
    initial_device_display_name: str | None = None
    refresh_token: bool = False


async def get_login_flows(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3login"""
    request.server.rate_limits.check("login", f"flows {request.address}")
    flows = request.server.login.flows
    if request.server.appservices.services:
        flows.append({"type": APPLICATION_SERVICE})
    return {"flows": flows}


async def login(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3login"""
    server = request.server
    credentials = await request.json_object()
    body = convert(credentials, LoginBody)
    if body.type == APPLICATION_SERVICE:
        answer = await server.appservices.accounts.login(
            request.access_service(),
            credentials,
            device_id=body.device_id,
            display_name=body.initial_device_display_name,
            refreshable=body.refresh_token,
        )
    else:
        answer = await server.login.login(
            body.type,
            credentials,
            device_id=body.device_id,
            display_name=body.initial_device_display_name,
            address=request.address,
            refreshable=body.refresh_token,
        )
    if server.config.public_base_url is not None:
        answer["well_known"] = {"m.homeserver": {"base_url": server.config.base_url}}
    return answer


async def redirect_to_sso(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3loginssoredirect

    There is no single sign-on here: no such flow is offered.
    """
    _check_redirect_url(request)
    raise MatrixError(404, "M_UNRECOGNIZED", "This server has no single sign-on")


async def redirect_to_id_p(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3loginssoredirectidpid"""
    _check_redirect_url(request)
    raise NotFound("This server knows no such identity provider")


def _check_redirect_url(request: Request) -> None:
    if not request.query.get("redirectUrl"):
        raise MissingParam("Missing redirectUrl")


async def get_auth_metadata(_request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1auth_metadata"""
    raise MatrixError(404, "M_UNRECOGNIZED", "Legacy authentication is in use on this homeserver")


ROUTES = [
    Route("GET", "/_matrix/client/v3/login", "getLoginFlows", get_login_flows, auth=False),
    Route("POST", "/_matrix/client/v3/login", "login", login, auth=False),
    Route("GET", "/_matrix/client/v3/login/sso/redirect", "redirectToSSO", redirect_to_sso, auth=False),
    Route("GET", "/_matrix/client/v3/login/sso/redirect/{idpId}", "redirectToIdP", redirect_to_id_p, auth=False),
    Route("GET", "/_matrix/client/v1/auth_metadata", "getAuthMetadata", get_auth_metadata, auth=False),
]

"""Registration: https://spec.matrix.org/v1.19/client-server-api/#legacy-account-registration"""

from __future__ import annotations

from typing import Any

import msgspec

from homeserver.http.request import Request, Result, Route
from homeserver.services.accounts.interactive_auth import EMAIL_STAGE, Completed
from homeserver.services.appservices.accounts import APPLICATION_SERVICE
from homeserver.services.errors import InvalidParam, MatrixError, MissingParam
from storage.accounts import ProvedEmail


class RegisterBody(msgspec.Struct):
    """What a client wants to be registered as; `auth` is for interactive authentication.

    `type` is for application services, which authenticate otherwise.
    """

    type: str | None = None
    auth: dict[str, Any] | None = None
    username: str | None = None
    password: str | None = None
    device_id: str | None = None
    initial_device_display_name: str | None = None
    inhibit_login: bool = False
    refresh_token: bool = False


async def register(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3register"""
    kind = request.query.get("kind", "user")
    if kind == "guest":
        raise MatrixError(403, "M_GUEST_ACCESS_FORBIDDEN", "There are no guest accounts on this server")
    if kind != "user":
        raise InvalidParam("kind must be user or guest")
    server = request.server
    body = await request.body(RegisterBody)
    if body.type == APPLICATION_SERVICE:
        return await _register_for_service(request, body)
    flows = server.registration.flows
    # Whether the name can be had is to be known before the client goes through the stages.
    if body.username is not None:
        await server.registration.check_username(body.username)
    if body.auth is not None:
        if body.auth.get("type") == EMAIL_STAGE:  # clients ask now and then whether the mail has been read
            server.rate_limits.check("login", f"email {request.address}")
        else:
            server.rate_limits.check("registration", request.address)
        if body.password is None:
            raise MissingParam("Missing password")
    completed = await server.interactive_auth.check(
        request.route.name, body.auth, flows, params=server.registration.flow_params
    )
    assert body.password is not None, "interactive authentication lets nobody through without auth"
    return await server.registration.register(
        body.username,
        body.password,
        device_id=body.device_id,
        display_name=body.initial_device_display_name,
        inhibit_login=body.inhibit_login,
        refreshable=body.refresh_token,
        registration_token=completed.registration_token,
        email=_proof(request, completed),
    )


def _proof(request: Request, completed: Completed) -> ProvedEmail | None:
    """What shows that the new user reads the mails of an address, if they have proved one."""
    if completed.email_sid is None or request.server.email is None:
        return None
    return request.server.email.validations.proof(completed.email_sid)


async def _register_for_service(request: Request, body: RegisterBody) -> Result:
    """https://spec.matrix.org/v1.19/application-service-api/#server-admin-style-permissions"""
    service = request.access_service()
    if body.username is None:
        raise MissingParam("Missing username")
    return await request.server.appservices.accounts.register(
        service,
        body.username,
        device_id=body.device_id,
        display_name=body.initial_device_display_name,
        inhibit_login=body.inhibit_login,
        refreshable=body.refresh_token,
    )


async def check_username_availability(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3registeravailable"""
    server = request.server
    username = request.query.get("username")
    if username is None:
        raise MissingParam("Missing username")
    # As often as one may log in, in a bucket of its own: trying names must not use up the registration itself.
    server.rate_limits.check("login", f"available {request.address}")
    server.registration.check_enabled()
    await server.registration.check_username(username)
    return {"available": True}


ROUTES = [
    Route("POST", "/_matrix/client/v3/register", "register", register, auth=False),
    Route(
        "GET",
        "/_matrix/client/v3/register/available",
        "checkUsernameAvailability",
        check_username_availability,
        auth=False,
    ),
]

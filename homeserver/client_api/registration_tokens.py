"""Registration tokens: https://spec.matrix.org/v1.19/client-server-api/#token-authenticated-registration"""

from __future__ import annotations

from homeserver.http.request import Request, Result, Route
from homeserver.services.errors import Forbidden, MissingParam


async def registration_token_validity(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1registermloginregistration_tokenvalidity"""
    token = request.query.get("token")
    if token is None:
        raise MissingParam("Missing token")
    # The bucket of registrations, so that guessing here and guessing there do not add up.
    request.server.rate_limits.check("registration", request.address)
    registration = request.server.registration
    registration.check_enabled()
    try:
        await registration.check_token(token)
    except Forbidden:
        return {"valid": False}
    return {"valid": True}


ROUTES = [
    Route(
        "GET",
        "/_matrix/client/v1/register/m.login.registration_token/validity",
        "registrationTokenValidity",
        registration_token_validity,
        auth=False,
    ),
]

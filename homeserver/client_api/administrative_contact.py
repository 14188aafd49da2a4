"""administrative_contact.yaml, and what other files have of verifying addresses.

E-mail addresses are verified by this server itself, where it sends mails; telephone numbers are not, and no identity
server is known. https://spec.matrix.org/v1.19/client-server-api/#adding-account-administrative-contact-information
"""

from __future__ import annotations

import re
from typing import Any, TypeVar

import msgspec

from homeserver.http.request import Request, Result, Route
from homeserver.services.accounts.interactive_auth import PASSWORD_FLOWS
from homeserver.services.email.validations import CLIENT_SECRET, Purpose
from homeserver.services.errors import InvalidParam, MatrixError
from matrix.third_party_ids import canonical_email

COUNTRY = re.compile(r"[A-Z]{2}")


class Post3PidsBody(msgspec.Struct):
    """Credentials of an identity server."""

    three_pid_creds: dict[str, Any]


class Add3PidBody(msgspec.Struct):
    """The validation that proves whose the identifier is."""

    client_secret: str
    sid: str
    auth: dict[str, Any] | None = None


class Bind3PidBody(msgspec.Struct):
    """The validation, on an identity server."""

    client_secret: str
    id_server: str
    id_access_token: str
    sid: str


class Remove3PidBody(msgspec.Struct):
    """The identifier to remove."""

    medium: str
    address: str
    id_server: str | None = None


class RequestEmailTokenBody(msgspec.Struct):
    """The e-mail address to verify."""

    client_secret: str
    email: str
    send_attempt: int
    next_link: str | None = None
    id_server: str | None = None


class RequestMsisdnTokenBody(msgspec.Struct):
    """The telephone number to verify."""

    client_secret: str
    country: str
    phone_number: str
    send_attempt: int
    id_server: str | None = None


Verification = TypeVar("Verification", RequestEmailTokenBody, RequestMsisdnTokenBody)


async def _verification(request: Request, form: type[Verification]) -> Verification:
    """A request for a token, checked as far as it can be. Raises InvalidParam, or 400 M_SERVER_NOT_TRUSTED.

    Where this server verifies addresses by itself, an identity server is not looked at, as the specification has it.
    """
    body = await request.body(form)
    if not CLIENT_SECRET.fullmatch(body.client_secret):
        raise InvalidParam("Not a client_secret")
    if isinstance(body, RequestEmailTokenBody) and canonical_email(body.email) is None:
        raise InvalidParam("Not an e-mail address")
    if isinstance(body, RequestMsisdnTokenBody) and not COUNTRY.fullmatch(body.country):
        raise InvalidParam("Not the code of a country")
    if body.id_server is not None and not (isinstance(body, RequestEmailTokenBody) and request.server.email):
        raise MatrixError(400, "M_SERVER_NOT_TRUSTED", "This server trusts no identity server")
    return body


async def _request_email(request: Request, purpose: Purpose, refusal: MatrixError) -> Result:
    """Has a mail sent; `refusal` is raised where this server sends none."""
    body = await _verification(request, RequestEmailTokenBody)
    email = request.server.email
    if email is None:
        raise refusal
    sid = await email.validations.request(
        purpose,
        body.email,
        body.client_secret,
        send_attempt=body.send_attempt,
        next_link=body.next_link,
        network_address=request.address,
    )
    email.validation_mails.wake()
    return {"sid": sid}


async def get_account3_pids(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3account3pid"""
    return {"threepids": await request.server.third_party_ids.of(request.requester.user_id)}


async def post3_pids(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3account3pid"""
    await request.body(Post3PidsBody)
    raise MatrixError(403, "M_THREEPID_AUTH_FAILED", "This server trusts no identity server")


async def add3_pid(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3account3pidadd"""
    body = await request.body(Add3PidBody)
    server, user_id = request.server, request.requester.user_id
    server.rate_limits.check("credentials", user_id)
    await server.interactive_auth.check(request.route.name, body.auth, PASSWORD_FLOWS, user_id=user_id)
    if server.email is None:
        raise MatrixError(403, "M_THREEPID_AUTH_FAILED", "No identifier was verified in such a session")
    proved = await server.email.validations.proved({"sid": body.sid, "client_secret": body.client_secret}, "add")
    await server.third_party_ids.add(user_id, proved.sid)
    return {}


async def bind3_pid(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3account3pidbind"""
    await request.body(Bind3PidBody)
    request.server.rate_limits.check("credentials", request.requester.user_id)
    raise MatrixError(400, "M_SERVER_NOT_TRUSTED", "This server trusts no identity server")


async def delete3pid_from_account(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3account3piddelete"""
    body = await request.body(Remove3PidBody)
    await request.server.third_party_ids.remove(request.requester.user_id, body.medium, body.address)
    return {"id_server_unbind_result": "no-support"}


async def unbind3pid_from_account(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3account3pidunbind"""
    await request.body(Remove3PidBody)
    return {"id_server_unbind_result": "no-support"}


async def request_token_to3_pidemail(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3account3pidemailrequesttoken"""
    return await _request_email(request, "add", medium_not_supported("e-mail addresses"))


async def request_token_to3_pidmsisdn(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3account3pidmsisdnrequesttoken"""
    await _verification(request, RequestMsisdnTokenBody)
    raise medium_not_supported("telephone numbers")


async def request_token_to_register_email(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3registeremailrequesttoken"""
    return await _request_email(request, "register", medium_not_supported("e-mail addresses"))


async def request_token_to_register_msisdn(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3registermsisdnrequesttoken"""
    await _verification(request, RequestMsisdnTokenBody)
    raise medium_not_supported("telephone numbers")


async def request_token_to_reset_password_email(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3accountpasswordemailrequesttoken"""
    refusal = MatrixError(400, "M_THREEPID_NOT_FOUND", "No account has this e-mail address")
    return await _request_email(request, "password", refusal)


async def request_token_to_reset_password_msisdn(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3accountpasswordmsisdnrequesttoken"""
    await _verification(request, RequestMsisdnTokenBody)
    raise MatrixError(400, "M_THREEPID_NOT_FOUND", "No account has this telephone number")


def medium_not_supported(medium: str) -> MatrixError:
    """400 M_THREEPID_MEDIUM_NOT_SUPPORTED."""
    return MatrixError(400, "M_THREEPID_MEDIUM_NOT_SUPPORTED", f"This server does not verify {medium}")


ACCOUNT = "/_matrix/client/v3/account"
REGISTER = "/_matrix/client/v3/register"
EMAIL, MSISDN = "email/requestToken", "msisdn/requestToken"

ROUTES = [
    Route("GET", f"{ACCOUNT}/3pid", "getAccount3PIDs", get_account3_pids),
    Route("POST", f"{ACCOUNT}/3pid", "post3PIDs", post3_pids),
    Route("POST", f"{ACCOUNT}/3pid/add", "add3PID", add3_pid),
    Route("POST", f"{ACCOUNT}/3pid/bind", "bind3PID", bind3_pid),
    Route("POST", f"{ACCOUNT}/3pid/delete", "delete3pidFromAccount", delete3pid_from_account),
    Route("POST", f"{ACCOUNT}/3pid/unbind", "unbind3pidFromAccount", unbind3pid_from_account),
    Route("POST", f"{ACCOUNT}/3pid/{EMAIL}", "requestTokenTo3PIDEmail", request_token_to3_pidemail, auth=False),
    Route("POST", f"{ACCOUNT}/3pid/{MSISDN}", "requestTokenTo3PIDMSISDN", request_token_to3_pidmsisdn, auth=False),
    Route(
        "POST",
        f"{ACCOUNT}/password/{EMAIL}",
        "requestTokenToResetPasswordEmail",
        request_token_to_reset_password_email,
        auth=False,
    ),
    Route(
        "POST",
        f"{ACCOUNT}/password/{MSISDN}",
        "requestTokenToResetPasswordMSISDN",
        request_token_to_reset_password_msisdn,
        auth=False,
    ),
    Route("POST", f"{REGISTER}/{EMAIL}", "requestTokenToRegisterEmail", request_token_to_register_email, auth=False),
    Route("POST", f"{REGISTER}/{MSISDN}", "requestTokenToRegisterMSISDN", request_token_to_register_msisdn, auth=False),
]

"""Changing one's password, and setting another in place of one that is forgotten.

https://spec.matrix.org/v1.19/client-server-api/#password-management
"""

from __future__ import annotations

from typing import Any

import msgspec

from homeserver.http.request import Request, Result, Route
from homeserver.services.accounts.interactive_auth import PASSWORD_FLOWS, RESET_FLOWS
from homeserver.services.accounts.passwords import check_new_password
from homeserver.services.errors import MissingToken


class ChangePasswordBody(msgspec.Struct):
    """The new password, and whether all other sessions end with the old one."""

    new_password: str
    logout_devices: bool = True
    auth: dict[str, Any] | None = None


async def change_password(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3accountpassword

    With an access token the old password is proved. Without one it is an address of the account, where the server sends
    e-mail; where it does not, an administrator resets forgotten passwords.
    """
    if request.authenticated is None:
        return await _reset_password(request)
    body = await request.body(ChangePasswordBody)
    check_new_password(body.new_password)
    server, requester = request.server, request.requester
    await server.interactive_auth.check(request.route.name, body.auth, PASSWORD_FLOWS, user_id=requester.user_id)
    await server.passwords.change(requester, body.new_password, logout_devices=body.logout_devices)
    return {}


async def _reset_password(request: Request) -> Result:
    server = request.server
    if server.email is None:
        raise MissingToken
    server.rate_limits.check("login", f"reset {request.address}")
    body = await request.body(ChangePasswordBody)
    check_new_password(body.new_password)
    completed = await server.interactive_auth.check(request.route.name, body.auth, RESET_FLOWS, email_for="password")
    assert completed.email_sid is not None, "the one stage is about it"
    await server.email.password_reset.reset(completed.email_sid, body.new_password, logout_devices=body.logout_devices)
    return {}


ROUTES = [
    Route(
        "POST", "/_matrix/client/v3/account/password", "changePassword", change_password, anonymous=True, limited=True
    ),
]

"""Changing one's password: https://spec.matrix.org/v1.19/client-server-api/#password-management"""

from __future__ import annotations

from typing import Any

import msgspec

from homeserver.http.request import Request, Result, Route
from homeserver.services.accounts.interactive_auth import PASSWORD_FLOWS
from homeserver.services.accounts.passwords import check_new_password


class ChangePasswordBody(msgspec.Struct):
    """The new password, and whether all other sessions end with the old one."""

    new_password: str
    logout_devices: bool = True
    auth: dict[str, Any] | None = None


async def change_password(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3accountpassword

    An access token is needed: the one flow proves the password, and a forgotten one is reset by an administrator.
    """
    body = await request.body(ChangePasswordBody)
    check_new_password(body.new_password)
    server, requester = request.server, request.requester
    await server.interactive_auth.check(request.route.name, body.auth, PASSWORD_FLOWS, user_id=requester.user_id)
    await server.passwords.change(requester, body.new_password, logout_devices=body.logout_devices)
    return {}


ROUTES = [
    Route("POST", "/_matrix/client/v3/account/password", "changePassword", change_password, limited=True),
]

"""Closing one's account: https://spec.matrix.org/v1.19/client-server-api/#account-deactivation"""

from __future__ import annotations

from typing import Any

import msgspec

from homeserver.http.request import Request, Result, Route
from homeserver.services.accounts.interactive_auth import PASSWORD_FLOWS


class DeactivateBody(msgspec.Struct):
    """Whether what the user left on the server should go too. There are no identity servers to unbind from."""

    erase: bool = False
    auth: dict[str, Any] | None = None


async def deactivate_account(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3accountdeactivate"""
    body = await request.body(DeactivateBody, optional=True)
    server, user_id = request.server, request.requester.user_id
    await server.interactive_auth.check(request.route.name, body.auth, PASSWORD_FLOWS, user_id=user_id)
    await server.deactivation.deactivate(user_id, erase=body.erase)
    return {"id_server_unbind_result": "success"}


ROUTES = [
    Route("POST", "/_matrix/client/v3/account/deactivate", "deactivateAccount", deactivate_account, limited=True),
]

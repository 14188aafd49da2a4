"""Ending sessions: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3logout"""

from __future__ import annotations

from homeserver.http.request import Request, Result, Route


async def logout(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3logout"""
    requester = request.requester
    await request.server.sessions.close(requester.user_id, [requester.device_id])
    return {}


async def logout_all(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3logoutall"""
    await request.server.sessions.close_all(request.requester.user_id)
    return {}


ROUTES = [
    Route("POST", "/_matrix/client/v3/logout", "logout", logout),
    Route("POST", "/_matrix/client/v3/logout/all", "logout_all", logout_all),
]

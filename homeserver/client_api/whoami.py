"""Whose token it is: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3accountwhoami"""

from __future__ import annotations

from homeserver.http.request import Request, Result, Route


async def get_token_owner(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3accountwhoami"""
    requester = request.requester
    device = {"device_id": requester.device_id} if requester.device_id else {}  # application services may have none
    return {"user_id": requester.user_id, **device, "is_guest": False}


ROUTES = [
    Route("GET", "/_matrix/client/v3/account/whoami", "getTokenOwner", get_token_owner, limited=True),
]

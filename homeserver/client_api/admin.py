"""What administrators do: https://spec.matrix.org/v1.19/client-server-api/#server-administration"""

from __future__ import annotations

import msgspec

from homeserver.http.request import Request, Result, Route


class SuspendBody(msgspec.Struct):
    """Whether the user is to be suspended."""

    suspended: bool


class LockBody(msgspec.Struct):
    """Whether the user is to be locked."""

    locked: bool


async def get_who_is(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3adminwhoisuserid"""
    return await request.server.moderation.whois(request.requester, request.params["userId"])


async def get_admin_suspend_user(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1adminsuspenduserid"""
    user = await request.server.moderation.access_account(request.requester, request.params["userId"])
    return {"suspended": user.suspended}


async def set_admin_suspend_user(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv1adminsuspenduserid"""
    body = await request.body(SuspendBody)
    await request.server.moderation.set_suspended(request.requester, request.params["userId"], body.suspended)
    return {"suspended": body.suspended}


async def get_admin_lock_user(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1adminlockuserid"""
    user = await request.server.moderation.access_account(request.requester, request.params["userId"])
    return {"locked": user.locked}


async def set_admin_lock_user(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv1adminlockuserid"""
    body = await request.body(LockBody)
    await request.server.moderation.set_locked(request.requester, request.params["userId"], body.locked)
    return {"locked": body.locked}


SUSPEND = "/_matrix/client/v1/admin/suspend/{userId}"
LOCK = "/_matrix/client/v1/admin/lock/{userId}"

ROUTES = [
    Route("GET", "/_matrix/client/v3/admin/whois/{userId}", "getWhoIs", get_who_is),
    Route("GET", SUSPEND, "getAdminSuspendUser", get_admin_suspend_user),
    Route("PUT", SUSPEND, "setAdminSuspendUser", set_admin_suspend_user),
    Route("GET", LOCK, "getAdminLockUser", get_admin_lock_user),
    Route("PUT", LOCK, "setAdminLockUser", set_admin_lock_user),
]

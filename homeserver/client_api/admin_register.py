"""Registration with the shared secret, at the path that tools know.

https://element-hq.github.io/synapse/latest/admin_api/register_api.html
"""

from __future__ import annotations

import msgspec

from homeserver.http.request import Request, Result, Route


class SharedSecretRegisterBody(msgspec.Struct):
    """The user to make, and the proof of knowing the secret; see `SharedSecretRegistration.register`."""

    nonce: str
    username: str
    password: str
    mac: str
    admin: bool = False
    displayname: str | None = None
    user_type: str | None = None


async def get_register_nonce(request: Request) -> Result:
    """A nonce for the request below, good for a minute."""
    return {"nonce": request.server.shared_secret_registration.new_nonce()}


async def register_with_shared_secret(request: Request) -> Result:
    """Makes an account in whatever registration mode, and logs in: answers as /register does."""
    body = await request.body(SharedSecretRegisterBody)
    return await request.server.shared_secret_registration.register(
        nonce=body.nonce,
        username=body.username,
        password=body.password,
        admin=body.admin,
        user_type=body.user_type,
        mac=body.mac,
        displayname=body.displayname,
    )


ROUTES = [
    Route("GET", "/_synapse/admin/v1/register", "getRegisterNonce", get_register_nonce, auth=False),
    Route("POST", "/_synapse/admin/v1/register", "registerWithSharedSecret", register_with_shared_secret, auth=False),
]

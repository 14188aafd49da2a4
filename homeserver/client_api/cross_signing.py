"""cross_signing.yaml: https://spec.matrix.org/v1.19/client-server-api/#cross-signing"""

from __future__ import annotations

from typing import Any

import msgspec

from homeserver.http.request import Request, Result, Route, convert
from homeserver.services.accounts.interactive_auth import PASSWORD_FLOWS

SignedKeys = dict[str, dict[str, dict[str, Any]]]


class SigningKeysBody(msgspec.Struct):
    """The user's keys, each optional, and interactive authentication."""

    master_key: dict[str, Any] | None = None
    self_signing_key: dict[str, Any] | None = None
    user_signing_key: dict[str, Any] | None = None
    auth: dict[str, Any] | None = None


async def upload_cross_signing_keys(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keysdevice_signingupload"""
    body = await request.body(SigningKeysBody)
    server, user_id = request.server, request.requester.user_id
    given = {
        "master": body.master_key,
        "self_signing": body.self_signing_key,
        "user_signing": body.user_signing_key,
    }
    keys = {usage: key for usage, key in given.items() if key is not None}
    while True:
        new = await server.cross_signing.check_keys(user_id, keys)
        # Application services have no password: https://spec.matrix.org/v1.19/application-service-api/#cross-signing
        if new.needs_auth and request.requester.appservice is None:
            await server.interactive_auth.check(request.route.name, body.auth, PASSWORD_FLOWS, user_id=user_id)
        if await server.cross_signing.store_keys(user_id, new):
            return {}


async def upload_cross_signing_signatures(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keyssignaturesupload"""
    signed = convert(await request.json_object(), SignedKeys)
    return {"failures": await request.server.cross_signing.add_signatures(request.requester.user_id, signed)}


ROUTES = [
    Route("POST", "/_matrix/client/v3/keys/device_signing/upload", "uploadCrossSigningKeys", upload_cross_signing_keys),
    Route(
        "POST",
        "/_matrix/client/v3/keys/signatures/upload",
        "uploadCrossSigningSignatures",
        upload_cross_signing_signatures,
    ),
]

"""keys.yaml: https://spec.matrix.org/v1.19/client-server-api/#key-management-api"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from homeserver.http.request import Request, Result, Route
from homeserver.services.errors import MissingParam
from homeserver.services.sync.tokens import decode_token

DEFAULT_TIMEOUT_MS = 10_000

Timeout = Annotated[int, msgspec.Meta(ge=0, le=2**53)]


class UploadBody(msgspec.Struct):
    """Keys of the device, each kind optional."""

    device_keys: dict[str, Any] | None = None
    one_time_keys: dict[str, Any] | None = None
    fallback_keys: dict[str, Any] | None = None


class QueryBody(msgspec.Struct):
    """Whose keys: user ID -> device IDs, none for all. The timeout is in milliseconds."""

    device_keys: dict[str, list[str]]
    timeout: Timeout = DEFAULT_TIMEOUT_MS


class ClaimBody(msgspec.Struct):
    """Which keys: user ID -> device ID -> algorithm. The timeout is in milliseconds."""

    one_time_keys: dict[str, dict[str, str]]
    timeout: Timeout = DEFAULT_TIMEOUT_MS


async def upload_keys(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keysupload"""
    body = await request.body(UploadBody)
    counts = await request.server.device_keys.upload(
        request.requester_with_device(),
        device_keys=body.device_keys,
        one_time_keys=body.one_time_keys or {},
        fallback_keys=body.fallback_keys or {},
    )
    return {"one_time_key_counts": {"signed_curve25519": 0, **counts}}


async def query_keys(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keysquery"""
    body = await request.body(QueryBody)
    return await request.server.device_keys.query(request.requester.user_id, body.device_keys, timeout_ms=body.timeout)


async def claim_keys(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keysclaim"""
    body = await request.body(ClaimBody)
    keys, failures = await request.server.device_keys.claim(body.one_time_keys, timeout_ms=body.timeout)
    return {"one_time_keys": keys, "failures": failures}


async def get_keys_changes(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3keyschanges

    What changed after `to` is told as well: the newest keys are what a client gets when it looks them up.
    """
    query = request.query
    if "from" not in query or "to" not in query:
        raise MissingParam("from and to are needed")
    since = decode_token(query["from"])
    decode_token(query["to"])
    server = request.server
    changed, left = await server.device_lists.changes(request.requester.user_id, since, server.stream.current)
    return {"changed": changed, "left": left}


ROUTES = [
    Route("POST", "/_matrix/client/v3/keys/upload", "uploadKeys", upload_keys),
    Route("POST", "/_matrix/client/v3/keys/query", "queryKeys", query_keys),
    Route("POST", "/_matrix/client/v3/keys/claim", "claimKeys", claim_keys),
    Route("GET", "/_matrix/client/v3/keys/changes", "getKeysChanges", get_keys_changes),
]

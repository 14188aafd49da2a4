"""user_keys.yaml: the keys of this server's users, for other servers' users."""

from __future__ import annotations

from typing import Any

import msgspec

from homeserver.http.request import Request, Result, Route
from homeserver.services.encryption.device_keys import MAX_CLAIMED_KEYS, MAX_QUERIED_USERS
from homeserver.services.errors import InvalidParam
from homeserver.services.federation.edus.incoming import is_user_of


class QueryBody(msgspec.Struct):
    """User ID -> device IDs, none for all."""

    device_keys: dict[str, list[str]]


class ClaimBody(msgspec.Struct):
    """User ID -> device ID -> algorithm."""

    one_time_keys: dict[str, dict[str, str]]


def _local(request: Request, wanted: dict[str, Any]) -> dict[str, Any]:
    """What is wanted of users of this server: it answers for nobody else."""
    name = request.server.config.server_name
    return {user_id: value for user_id, value in wanted.items() if is_user_of(user_id, name)}


async def query_user_encryption_keys(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/server-server-api/#post_matrixfederationv1userkeysquery"""
    body = await request.body(QueryBody)
    if len(body.device_keys) > MAX_QUERIED_USERS:
        raise InvalidParam(f"No more than {MAX_QUERIED_USERS} users can be asked for at once")
    answer = await request.server.device_keys.query_local(None, _local(request, body.device_keys))
    del answer["user_signing_keys"]
    return answer


async def claim_user_encryption_keys(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/server-server-api/#post_matrixfederationv1userkeysclaim"""
    body = await request.body(ClaimBody)
    if sum(map(len, body.one_time_keys.values())) > MAX_CLAIMED_KEYS:
        raise InvalidParam(f"No more than {MAX_CLAIMED_KEYS} keys can be claimed at once")
    claimed = await request.server.device_keys.claim_local(_local(request, body.one_time_keys))
    return {"one_time_keys": claimed}


KEYS = "/_matrix/federation/v1/user/keys"

ROUTES = [
    Route(
        "POST",
        f"{KEYS}/query",
        "queryUserEncryptionKeys",
        query_user_encryption_keys,
        signed=True,
        resource="federation",
    ),
    Route(
        "POST",
        f"{KEYS}/claim",
        "claimUserEncryptionKeys",
        claim_user_encryption_keys,
        signed=True,
        resource="federation",
    ),
]

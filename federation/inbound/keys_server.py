"""keys_server.yaml: the keys that this server signs with."""

from __future__ import annotations

from typing import Any

from homeserver.http.context import Server
from homeserver.http.request import Request, Result, Route
from matrix.signatures import sign_json

VALID_FOR_MS = 24 * 3600 * 1000


async def get_server_key(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/server-server-api/#get_matrixkeyv2server"""
    return own_keys(request.server)


def own_keys(server: Server) -> dict[str, Any]:
    """The keys of this server, signed."""
    key, config = server.signing_key, server.config
    keys: dict[str, Any] = {
        "server_name": config.server_name,
        "valid_until_ts": server.clock() + VALID_FOR_MS,
        "verify_keys": {key.key_id: {"key": key.public_key_base64}},
        "old_verify_keys": {
            old.key_id: {"key": old.public_key, "expired_ts": old.expired_ts} for old in config.signing.old_keys
        },
    }
    return sign_json(keys, config.server_name, key)


ROUTES = [
    Route("GET", "/_matrix/key/v2/server", "getServerKey", get_server_key, auth=False, resource="federation"),
]

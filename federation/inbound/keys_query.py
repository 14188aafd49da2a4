"""keys_query.yaml: this server as a notary, which says what other servers said of their keys."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import msgspec

from federation.inbound.keys_server import own_keys
from homeserver.http.request import Request, Result, Route
from homeserver.services.errors import InvalidParam
from matrix.canonical_json import encode_canonical_json, parse_json
from matrix.identifiers import is_server_name
from matrix.signatures import sign_json

MAX_SERVERS = 50
MAX_KEYS = 200


class Criteria(msgspec.Struct):
    """What is asked about one key."""

    minimum_valid_until_ts: int | None = None


class KeyQuery(msgspec.Struct):
    """The body of bulkPerspectivesKeyQuery: server name -> key ID -> criteria."""

    server_keys: dict[str, dict[str, Criteria]]


async def perspectives_key_query(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/server-server-api/#get_matrixkeyv2queryservername"""
    server_name = request.params["serverName"]
    if not is_server_name(server_name):
        raise InvalidParam("Not a server name")
    valid_at_ms = request.query_integer("minimum_valid_until_ts", request.server.clock())
    _check_limit(request, 1)
    answer = await _vouched_for(request, server_name, {}, valid_at_ms)
    return _answer([] if answer is None else [answer])


async def bulk_perspectives_key_query(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/server-server-api/#post_matrixkeyv2query"""
    query = await request.body(KeyQuery)
    if len(query.server_keys) > MAX_SERVERS:
        raise InvalidParam(f"One query can name {MAX_SERVERS} servers")
    if any(len(keys) > MAX_KEYS for keys in query.server_keys.values()):
        raise InvalidParam(f"One query can name {MAX_KEYS} keys of a server")
    _check_limit(request, len(query.server_keys))
    now = request.server.clock()
    found = await asyncio.gather(
        *(
            _vouched_for(request, server_name, {key_id: _time(one, now) for key_id, one in keys.items()}, now)
            for server_name, keys in query.server_keys.items()
            if is_server_name(server_name)
        )
    )
    return _answer([answer for answer in found if answer is not None])


def _answer(server_keys: list[dict[str, Any]]) -> bytes:
    """Number for number as servers said it, of whatever size, or their own signatures would not be good any more."""
    return encode_canonical_json({"server_keys": server_keys})


def _time(criteria: Criteria, now_ms: int) -> int:
    wanted = criteria.minimum_valid_until_ts
    return now_ms if wanted is None else wanted


def _check_limit(request: Request, servers: int) -> None:
    """Anybody may ask, and each question may send this server to another. Raises LimitExceeded."""
    if servers:
        request.server.rate_limits.check("federation", f"keys for {request.address}", cost=servers)


async def _vouched_for(
    request: Request, server_name: str, key_ids: Mapping[str, int], valid_at_ms: int
) -> dict[str, Any] | None:
    """What a server said of its keys, with this server's signature beside its own; None where nothing was ever had."""
    server = request.server
    if server_name == server.config.server_name:
        return own_keys(server)
    answer = await server.network.keys.load_answer(server_name, key_ids, valid_at_ms=valid_at_ms)
    if answer is None:
        return None
    return sign_json(parse_json(answer.json), server.config.server_name, server.signing_key)


QUERY = "/_matrix/key/v2/query"

ROUTES = [
    Route(
        "GET",
        f"{QUERY}/{{serverName}}",
        "perspectivesKeyQuery",
        perspectives_key_query,
        auth=False,
        resource="federation",
    ),
    Route("POST", QUERY, "bulkPerspectivesKeyQuery", bulk_perspectives_key_query, auth=False, resource="federation"),
]

"""Other networks that bridges lead to: https://spec.matrix.org/v1.19/client-server-api/#third-party-networks

What is known of them, application services know: they are asked each time.
"""

from __future__ import annotations

import asyncio

import msgspec

from homeserver.http.request import Request, Result, Route
from homeserver.services.appservices.queries import Protocol
from homeserver.services.errors import MissingParam, NotFound

NOT_FIELDS = ("access_token", "user_id", "device_id")


async def get_protocols(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3thirdpartyprotocols"""
    queries = request.server.appservices.queries
    names = queries.protocols()
    found = await asyncio.gather(*map(queries.protocol, names), return_exceptions=True)
    protocols: dict[str, Protocol] = {}
    for name, answer in zip(names, found, strict=True):
        if isinstance(answer, Protocol):
            protocols[name] = answer
        elif not isinstance(answer, NotFound):
            raise answer
    return msgspec.json.encode(protocols)


async def get_protocol_metadata(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3thirdpartyprotocolprotocol"""
    return msgspec.json.encode(await request.server.appservices.queries.protocol(request.params["protocol"]))


async def query_location_by_protocol(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3thirdpartylocationprotocol"""
    queries = request.server.appservices.queries
    return msgspec.json.encode(await queries.locations(request.params["protocol"], _fields(request)))


async def query_user_by_protocol(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3thirdpartyuserprotocol"""
    return msgspec.json.encode(
        await request.server.appservices.queries.users(request.params["protocol"], _fields(request))
    )


async def query_location_by_alias(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3thirdpartylocation"""
    return msgspec.json.encode(await request.server.appservices.queries.locations_of(_required(request, "alias")))


async def query_user_by_id(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3thirdpartyuser"""
    return msgspec.json.encode(await request.server.appservices.queries.users_of(_required(request, "userid")))


def _fields(request: Request) -> dict[str, str]:
    """What is searched for. What says who asks is not passed on."""
    return {name: value for name, value in request.query.items() if name not in NOT_FIELDS}


def _required(request: Request, name: str) -> str:
    value = request.query.get(name)
    if value is None:
        raise MissingParam(f"Missing {name}")
    return value


THIRD_PARTY = "/_matrix/client/v3/thirdparty"

ROUTES = [
    Route("GET", f"{THIRD_PARTY}/protocols", "getProtocols", get_protocols),
    Route("GET", f"{THIRD_PARTY}/protocol/{{protocol}}", "getProtocolMetadata", get_protocol_metadata),
    Route("GET", f"{THIRD_PARTY}/location/{{protocol}}", "queryLocationByProtocol", query_location_by_protocol),
    Route("GET", f"{THIRD_PARTY}/user/{{protocol}}", "queryUserByProtocol", query_user_by_protocol),
    Route("GET", f"{THIRD_PARTY}/location", "queryLocationByAlias", query_location_by_alias),
    Route("GET", f"{THIRD_PARTY}/user", "queryUserByID", query_user_by_id),
]

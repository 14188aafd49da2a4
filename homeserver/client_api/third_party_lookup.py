"""Other networks that bridges lead to: https://spec.matrix.org/v1.19/client-server-api/#third-party-networks

There are none, and these operations say so.
"""

from __future__ import annotations

from homeserver.http.request import Request, Result, Route
from homeserver.services.errors import NotFound


async def get_protocols(_request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3thirdpartyprotocols"""
    return {}


async def get_protocol_metadata(_request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3thirdpartyprotocolprotocol"""
    raise NotFound("The protocol is unknown")


async def query_location_by_protocol(_request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3thirdpartylocationprotocol"""
    raise NotFound("No portal rooms were found")


async def query_user_by_protocol(_request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3thirdpartyuserprotocol"""
    raise NotFound("No users were found")


async def query_location_by_alias(_request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3thirdpartylocation"""
    raise NotFound("No third-party locations were found")


async def query_user_by_id(_request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3thirdpartyuser"""
    raise NotFound("No third-party users were found")


THIRD_PARTY = "/_matrix/client/v3/thirdparty"

ROUTES = [
    Route("GET", f"{THIRD_PARTY}/protocols", "getProtocols", get_protocols),
    Route("GET", f"{THIRD_PARTY}/protocol/{{protocol}}", "getProtocolMetadata", get_protocol_metadata),
    Route("GET", f"{THIRD_PARTY}/location/{{protocol}}", "queryLocationByProtocol", query_location_by_protocol),
    Route("GET", f"{THIRD_PARTY}/user/{{protocol}}", "queryUserByProtocol", query_user_by_protocol),
    Route("GET", f"{THIRD_PARTY}/location", "queryLocationByAlias", query_location_by_alias),
    Route("GET", f"{THIRD_PARTY}/user", "queryUserByID", query_user_by_id),
]

"""appservice_room_directory.yaml: https://spec.matrix.org/v1.19/application-service-api/#published-room-directories"""

from __future__ import annotations

from typing import Literal

import msgspec

from homeserver.http.request import Request, Result, Route
from homeserver.services.errors import Forbidden


class NetworkVisibility(msgspec.Struct):
    """Whether a room is to be on the network's list."""

    visibility: Literal["public", "private"]


async def update_appservice_room_directory_visibility(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/application-service-api/#put_matrixclientv3directorylistappservicenetworkidroomid"""
    body = await request.body(NetworkVisibility)
    service_id = request.requester.appservice
    if service_id is None:
        raise Forbidden("This is for application services alone")
    params = request.params
    await request.server.directory.set_listed_by_network(
        service_id, params["networkId"], params["roomId"], body.visibility == "public"
    )
    return {}


ROUTES = [
    Route(
        "PUT",
        "/_matrix/client/v3/directory/list/appservice/{networkId}/{roomId}",
        "updateAppserviceRoomDirectoryVisibility",
        update_appservice_room_directory_visibility,
    ),
]

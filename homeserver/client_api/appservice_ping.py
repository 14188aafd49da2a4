"""appservice_ping.yaml: https://spec.matrix.org/v1.19/application-service-api/#pinging"""

from __future__ import annotations

import msgspec

from homeserver.http.request import Request, Result, Route
from homeserver.services.errors import Forbidden, InvalidParam

MAX_TRANSACTION_ID_CHARS = 255


class PingBody(msgspec.Struct):
    """What is passed on."""

    transaction_id: str | None = None


async def ping_appservice(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv1appserviceappserviceidping"""
    body = await request.body(PingBody)
    if body.transaction_id is not None and len(body.transaction_id) > MAX_TRANSACTION_ID_CHARS:
        raise InvalidParam("The transaction ID is too long")
    service_id = request.requester.appservice
    service = None if service_id is None else request.server.appservices.services.get(service_id)
    if service is None or service.id != request.params["appserviceId"]:
        raise Forbidden("This is not the access token of that application service")
    duration_ms = await request.server.appservices.queries.ping(service, body.transaction_id)
    request.server.appservices.deliveries.hurry(service)
    return {"duration_ms": duration_ms}


ROUTES = [
    Route("POST", "/_matrix/client/v1/appservice/{appserviceId}/ping", "pingAppservice", ping_appservice),
]

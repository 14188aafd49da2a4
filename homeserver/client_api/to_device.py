"""to_device.yaml: https://spec.matrix.org/v1.19/client-server-api/#send-to-device-messaging"""

from __future__ import annotations

from typing import Any

import msgspec

from homeserver.http.request import Request, Result, Route


class ToDeviceBody(msgspec.Struct):
    """User ID -> device ID, or * for all devices -> content."""

    messages: dict[str, dict[str, dict[str, Any]]]


async def send_to_device(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3sendtodeviceeventtypetxnid"""
    body = await request.body(ToDeviceBody)
    params = request.params
    await request.server.to_device.send(request.requester, params["eventType"], params["txnId"], body.messages)
    return {}


ROUTES = [
    Route("PUT", "/_matrix/client/v3/sendToDevice/{eventType}/{txnId}", "sendToDevice", send_to_device),
]

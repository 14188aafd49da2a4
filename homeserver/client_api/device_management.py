"""A user's devices: https://spec.matrix.org/v1.19/client-server-api/#device-management"""

from __future__ import annotations

from typing import Any

import msgspec

from homeserver.http.answer import json_response
from homeserver.http.request import Request, Result, Route
from homeserver.services.accounts.interactive_auth import PASSWORD_FLOWS
from homeserver.services.errors import NotFound
from storage.accounts import DeviceRow


class UpdateDeviceBody(msgspec.Struct):
    """What to change of a device; what is left out stays."""

    display_name: str | None = None


class DeleteDeviceBody(msgspec.Struct):
    """Interactive authentication alone: the device is in the path."""

    auth: dict[str, Any] | None = None


class DeleteDevicesBody(msgspec.Struct):
    """IDs of the devices to remove."""

    devices: list[str]
    auth: dict[str, Any] | None = None


async def get_devices(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3devices"""
    return {"devices": [device_json(row) for row in await request.server.sessions.devices(request.requester.user_id)]}


async def get_device(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3devicesdeviceid"""
    return device_json(await access_device(request))


async def update_device(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3devicesdeviceid"""
    body = await request.body(UpdateDeviceBody)
    requester, device_id = request.requester, request.params["deviceId"]
    if requester.appservice is not None and await request.server.appservices.accounts.create_device(
        requester.user_id, device_id, body.display_name
    ):
        return json_response(b"{}", status=201)
    device = await access_device(request)
    if body.display_name is not None:
        await request.server.sessions.rename(request.requester.user_id, device.device_id, body.display_name)
    return {}


async def delete_device(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#delete_matrixclientv3devicesdeviceid"""
    body = await request.body(DeleteDeviceBody, optional=True)
    user_id, device_id = request.requester.user_id, request.params["deviceId"]
    operation = f"{request.route.name} {device_id}"
    await _authenticate(request, operation, body.auth)
    await request.server.sessions.close(user_id, [device_id])
    return {}


async def delete_devices(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3delete_devices"""
    body = await request.body(DeleteDevicesBody)
    await _authenticate(request, request.route.name, body.auth)
    await request.server.sessions.close(request.requester.user_id, body.devices)
    return {}


async def _authenticate(request: Request, operation: str, auth: dict[str, Any] | None) -> None:
    """Interactive authentication, but for application services.

    https://spec.matrix.org/v1.19/application-service-api/#deleting-devices
    """
    if request.requester.appservice is None:
        user_id = request.requester.user_id
        await request.server.interactive_auth.check(operation, auth, PASSWORD_FLOWS, user_id=user_id)


async def access_device(request: Request) -> DeviceRow:
    """The requester's device that the path names. Raises NotFound."""
    for row in await request.server.sessions.devices(request.requester.user_id):
        if row.device_id == request.params["deviceId"]:
            return row
    raise NotFound("You have no such device")


def device_json(row: DeviceRow) -> dict[str, Any]:
    """A device as the API has it. What is not known is null: clients (matrix-nio) refuse a device without the keys."""
    return {
        "device_id": row.device_id,
        "display_name": row.display_name,
        "last_seen_ip": row.last_seen_ip,
        "last_seen_ts": row.last_seen_ts,
    }


ROUTES = [
    Route("GET", "/_matrix/client/v3/devices", "getDevices", get_devices),
    Route("GET", "/_matrix/client/v3/devices/{deviceId}", "getDevice", get_device),
    Route("PUT", "/_matrix/client/v3/devices/{deviceId}", "updateDevice", update_device),
    Route("DELETE", "/_matrix/client/v3/devices/{deviceId}", "deleteDevice", delete_device),
    Route("POST", "/_matrix/client/v3/delete_devices", "deleteDevices", delete_devices),
]

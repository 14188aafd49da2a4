"""user_devices.yaml: all devices of a user of this server."""

from __future__ import annotations

from typing import Any

from homeserver.http.request import Request, Result, Route
from homeserver.services.errors import NotFound
from homeserver.services.federation.edus.incoming import is_user_of


async def get_user_devices(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1userdevicesuserid"""
    server, user_id = request.server, request.params["userId"]
    if not is_user_of(user_id, server.config.server_name):
        raise NotFound("Not a user of this server")
    stream_id = await server.device_lists.load_position(user_id)  # first: a change meanwhile is told of later
    found = await server.device_keys.query_local(None, {user_id: []})
    if user_id not in found["device_keys"]:
        raise NotFound("No devices of such a user")
    devices: list[dict[str, Any]] = []
    for device_id, keys in found["device_keys"][user_id].items():
        name = keys.pop("unsigned", {}).get("device_display_name")
        devices.append({"device_id": device_id, "keys": keys} | ({"device_display_name": name} if name else {}))
    answer: dict[str, Any] = {"user_id": user_id, "stream_id": stream_id, "devices": devices}
    for kind in ("master", "self_signing"):
        if (key := found[f"{kind}_keys"].get(user_id)) is not None:
            answer[f"{kind}_key"] = key
    return answer


ROUTES = [
    Route(
        "GET",
        "/_matrix/federation/v1/user/devices/{userId}",
        "getUserDevices",
        get_user_devices,
        signed=True,
        resource="federation",
    ),
]

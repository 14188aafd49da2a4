"""Dehydrated devices, by the proposal: https://github.com/matrix-org/matrix-spec-proposals/pull/3814"""

from __future__ import annotations

from typing import Any

import msgspec
import orjson

from homeserver.http.request import Request, Result, Route
from homeserver.services.encryption.dehydrated_devices import Page


class DehydratedDeviceBody(msgspec.Struct):
    """A device with its keys, and what brings it back to life."""

    device_id: str
    device_data: dict[str, Any]
    device_keys: dict[str, Any]
    initial_device_display_name: str | None = None
    one_time_keys: dict[str, Any] | None = None
    fallback_keys: dict[str, Any] | None = None


class EventsBody(msgspec.Struct):
    """Where to go on."""

    next_batch: str | None = None


async def put_dehydrated_device(request: Request) -> Result:
    """Replaces the user's dehydrated device."""
    body = await request.body(DehydratedDeviceBody)
    await request.server.dehydrated_devices.put(
        request.requester.user_id,
        body.device_id,
        display_name=body.initial_device_display_name,
        device_data=body.device_data,
        device_keys=body.device_keys,
        one_time_keys=body.one_time_keys or {},
        fallback_keys=body.fallback_keys or {},
    )
    return {"device_id": body.device_id}


async def get_dehydrated_device(request: Request) -> Result:
    """The user's dehydrated device."""
    row = await request.server.dehydrated_devices.access(request.requester.user_id)
    return orjson.dumps({"device_id": row.device_id, "device_data": orjson.Fragment(row.device_data)})


async def delete_dehydrated_device(request: Request) -> Result:
    """Removes the user's dehydrated device."""
    return {"device_id": await request.server.dehydrated_devices.remove(request.requester.user_id)}


async def get_dehydrated_device_events(request: Request) -> Result:
    """What was sent to the device: `next_batch` is there if there is more."""
    page = await _page(request, request.query.get("from"))
    return _events_json(page, None if page.is_last else page.token)


async def post_dehydrated_device_events(request: Request) -> Result:
    """The same in the form that clients know from earlier versions of the proposal: the end is an empty page."""
    body = await request.body(EventsBody, optional=True)
    page = await _page(request, body.next_batch)
    return _events_json(page, page.token)


async def _page(request: Request, after: str | None) -> Page:
    return await request.server.dehydrated_devices.events(request.requester.user_id, request.params["deviceId"], after)


def _events_json(page: Page, next_batch: str | None) -> bytes:
    events = {"events": [orjson.Fragment(event) for event in page.events]}
    return orjson.dumps(events if next_batch is None else {**events, "next_batch": next_batch})


DEVICE = "/_matrix/client/unstable/org.matrix.msc3814.v1/dehydrated_device"
EVENTS = f"{DEVICE}/{{deviceId}}/events"

ROUTES = [
    Route("PUT", DEVICE, "putDehydratedDevice", put_dehydrated_device),
    Route("GET", DEVICE, "getDehydratedDevice", get_dehydrated_device),
    Route("DELETE", DEVICE, "deleteDehydratedDevice", delete_dehydrated_device),
    Route("GET", EVENTS, "getDehydratedDeviceEvents", get_dehydrated_device_events),
    Route("POST", EVENTS, "postDehydratedDeviceEvents", post_dehydrated_device_events),
]

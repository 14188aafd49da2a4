"""Dehydrated devices: a user who has no device at hand still receives the keys of messages.

https://github.com/matrix-org/matrix-spec-proposals/pull/3814
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import orjson

from homeserver.services.accounts.sessions import check_device_id, check_display_name
from homeserver.services.encryption.device_keys import encode_upload
from homeserver.services.encryption.device_lists import DeviceLists
from homeserver.services.encryption.to_device import ToDevice
from homeserver.services.errors import BadJson, Forbidden, InvalidParam, NotFound, TooLarge
from homeserver.services.stream import Stream
from storage.dehydrated_devices import DehydratedDeviceRepository, DehydratedDeviceRow, DeviceIdTaken

MAX_DATA_BYTES = 1024 * 1024


class Page(NamedTuple):
    """Messages to a dehydrated device as JSON; `token` goes on behind them, and `is_last` says that none follow."""

    events: list[bytes]
    token: str
    is_last: bool


class DehydratedDevices:
    """Keeps each user's dehydrated device, of which there is at most one."""

    def __init__(
        self, repository: DehydratedDeviceRepository, to_device: ToDevice, device_lists: DeviceLists, stream: Stream
    ) -> None:
        self._repository = repository
        self._to_device = to_device
        self._device_lists = device_lists
        self._stream = stream

    async def put(
        self,
        user_id: str,
        device_id: str,
        *,
        display_name: str | None,
        device_data: dict[str, Any],
        device_keys: dict[str, Any],
        one_time_keys: Mapping[str, object],
        fallback_keys: Mapping[str, object],
    ) -> None:
        """Puts a device in place of any that is there. Raises InvalidParam, BadJson, TooLarge."""
        if not device_id:
            raise InvalidParam("device_id must not be empty")
        check_device_id(device_id)
        check_display_name(display_name)
        if not isinstance(device_data.get("algorithm"), str):
            raise InvalidParam("device_data must have an algorithm")
        try:
            data = orjson.dumps(device_data)
        except orjson.JSONEncodeError:
            raise BadJson("A number is too large") from None
        if len(data) > MAX_DATA_BYTES:
            raise TooLarge(f"device_data can have {MAX_DATA_BYTES} bytes")
        encoded, one_time, fallback = encode_upload(user_id, device_id, device_keys, one_time_keys, fallback_keys)
        assert encoded is not None, "there are device keys"
        try:
            await self._repository.replace(
                user_id,
                device_id,
                display_name=display_name,
                device_data=data,
                device_keys=encoded,
                one_time_keys=one_time,
                fallback_keys=fallback,
            )
        except DeviceIdTaken:
            raise InvalidParam("You have another device by this ID") from None
        await self._device_lists.announce(user_id)

    async def access(self, user_id: str) -> DehydratedDeviceRow:
        """A user's dehydrated device. Raises NotFound."""
        row = await self._repository.load(user_id)
        if row is None:
            raise NotFound("You have no dehydrated device")
        return row

    async def remove(self, user_id: str) -> str:
        """Removes a user's dehydrated device; its ID. Raises NotFound."""
        row = await self._repository.remove(user_id)
        if row is None:
            raise NotFound("You have no dehydrated device")
        await self._device_lists.announce(user_id)
        return row.device_id

    async def events(self, user_id: str, device_id: str, after: str | None) -> Page:
        """What was sent to a user's dehydrated device, behind a token of a page. It stays. Raises Forbidden,
        InvalidParam."""
        row = await self._repository.load(user_id)
        if row is None or row.device_id != device_id:
            raise Forbidden("This is not your dehydrated device")
        now = self._stream.current
        start = 0 if after is None else _decode(after)
        events, has_until = await self._to_device.waiting(row.device, after=start, up_to=now)
        return Page(events, f"d{has_until}", has_until == now)


def _decode(token: str) -> int:
    digits = token.removeprefix("d")
    if digits == token or not (digits.isascii() and digits.isdigit() and len(digits) < 19):
        raise InvalidParam("Not a token of this server")
    return int(digits)

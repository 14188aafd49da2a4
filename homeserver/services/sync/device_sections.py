"""The parts of a /sync answer that belong to a device: messages to it, its keys, whose keys have changed.

https://spec.matrix.org/v1.19/client-server-api/#extensions-to-sync and
https://spec.matrix.org/v1.19/client-server-api/#e2e-extensions-to-sync

That there is nothing to tell is known in memory, and costs some look-ups.
"""

from __future__ import annotations

from typing import NamedTuple

import orjson

from homeserver.services.accounts.sessions import Requester
from homeserver.services.encryption.device_keys import DeviceKeys
from homeserver.services.encryption.device_lists import DeviceLists
from homeserver.services.encryption.to_device import ToDevice

NO_MESSAGES = b',"to_device":{"events":[]}'
NO_LISTS = b',"device_lists":{"changed":[],"left":[]}'


class DevicePart(NamedTuple):
    """Members of a JSON object, whether there is news in them, and up to where the device then has its messages.

    `got` is None where it has them all.
    """

    json: bytes
    has_news: bool = False
    got: int | None = None


class DeviceSections:
    """Makes the parts of an answer that belong to devices.

    `quiet` has what the devices are told for whom no message waits, by number, as long as nobody's list has changed:
    what is in it is so. It costs the path of a sync one look-up.
    """

    def __init__(
        self, to_device: ToDevice, device_keys: DeviceKeys, device_lists: DeviceLists, *, max_devices: int
    ) -> None:
        self._to_device = to_device
        self._device_keys = device_keys
        self._device_lists = device_lists
        self._max_devices = max_devices
        self.quiet: dict[int, DevicePart] = {}
        to_device.on_changed = device_keys.on_changed = self._forget

    def _forget(self, device: int) -> None:
        """Takes in that a device's messages or keys are others."""
        self.quiet.pop(device, None)

    async def begin(self, device: int, got: int) -> None:
        """A device syncs that has its messages up to `got`: they are removed."""
        await self._to_device.acknowledge(device, got)

    async def empty(self, device: int) -> bytes:
        """What a device is told where nothing is new."""
        return NO_MESSAGES + await self._counts(device) + NO_LISTS

    def known(self, device: int, since: int | None) -> DevicePart | None:
        """What a device is told that knows what was until `since`, if that is nothing new. None: ask `make`."""
        if since is None or self._device_lists.may_have_changed(since):
            return None
        return self.quiet.get(device)

    async def make(self, requester: Requester, *, since: int | None, got: int, now: int) -> DevicePart:
        """What a device is told that knows what was until `since` (None: nothing), and has its messages up to `got`."""
        messages, lists, has_news, has_until = NO_MESSAGES, NO_LISTS, False, now
        device = requester.device
        if await self._to_device.load_newest(device) > got:
            events, has_until = await self._to_device.waiting(device, after=got, up_to=now)
            if events:
                messages, has_news = b',"to_device":{"events":[%s]}' % b",".join(events), True
        if since is None:
            lists = b""
        elif self._device_lists.may_have_changed(since):
            changed, left = await self._device_lists.changes(requester.user_id, since, now)
            if changed or left:
                lists, has_news = b',"device_lists":' + orjson.dumps({"changed": changed, "left": left}), True
        json = messages + await self._counts(device) + lists
        self._note_quiet(device)
        return DevicePart(json, has_news, None if has_until == now else has_until)

    def _note_quiet(self, device: int) -> None:
        """Keeps what a device is told where nothing is new, if memory knows all that it takes at this moment."""
        counts = self._device_keys.known_counts(device)
        if counts is None or self._to_device.known_newest(device) != 0:
            return
        if len(self.quiet) >= self._max_devices:
            self.quiet.clear()
        self.quiet[device] = DevicePart(NO_MESSAGES + counts + NO_LISTS)

    async def _counts(self, device: int) -> bytes:
        return self._device_keys.known_counts(device) or await self._device_keys.load_counts(device)

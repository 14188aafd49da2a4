"""What is known of devices while they sync: read once, kept up to date, in a bounded cache."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from homeserver.metrics import Metrics

Value = TypeVar("Value")


class DeviceCache(Generic[Value]):
    """Device number -> something that `read` reads from the database."""

    def __init__(
        self, name: str, read: Callable[[int], Awaitable[Value]], metrics: Metrics, *, max_devices: int
    ) -> None:
        self._read = read
        self._max_devices = max_devices
        self._devices: OrderedDict[int, Value] = OrderedDict()
        self._loading: dict[int, object] = {}
        self._figures = metrics.cache(name, lambda: len(self._devices))

    def known(self, device: int) -> Value | None:
        """What is known of a device, if anything."""
        value = self._devices.get(device)
        if value is not None:
            self._devices.move_to_end(device)
            self._figures.hits += 1
        return value

    async def load(self, device: int) -> Value:
        """The same, read if need be. It is kept unless the device was forgotten while it was read."""
        value = self.known(device)
        if value is not None:
            return value
        self._figures.misses += 1
        mark = self._loading[device] = object()
        try:
            value = await self._read(device)
        finally:
            is_kept = self._loading.get(device) is mark
            if is_kept:
                del self._loading[device]
        if is_kept:
            self._devices[device] = value
            if len(self._devices) > self._max_devices:
                self._devices.popitem(last=False)
        return value

    def forget(self, device: int) -> None:
        """Drops what is known, and what is being read: it may be no longer so."""
        self._devices.pop(device, None)
        self._loading.pop(device, None)

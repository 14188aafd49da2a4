"""Transaction IDs: a request that is sent again gets the answer of the first time, also after a restart.

https://spec.matrix.org/v1.19/client-server-api/#transaction-identifiers

The answers stand in the events themselves. To tell a new ID from a used one without asking the database each time,
the IDs that a device has used are remembered (as hashes), from its first request on.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from storage.events import EventRepository, StoredEvent

MAX_LOADED_IDS = 20_000
MAX_REMEMBERED_IDS = 200_000


@dataclass(slots=True)
class _Device:
    """The hashes of the IDs a device has used. `complete` says whether these are all."""

    used: set[int] = field(default_factory=set)
    complete: bool = True


class Transactions:
    """Runs each of a device's transactions once."""

    def __init__(self, events: EventRepository) -> None:
        self._events = events
        self._devices: OrderedDict[int, _Device] = OrderedDict()
        self._remembered = 0
        self._running: dict[tuple[int, str, str], asyncio.Future[str]] = {}

    async def once(
        self,
        device: int,
        path: str,
        txn_id: str,
        is_same: Callable[[StoredEvent], bool],
        send: Callable[[], Awaitable[str]],
    ) -> str:
        """The event ID that `send` returned the first time that this device used this ID on this path.

        `is_same` tells whether a stored event came by this path. A request that repeats one still running waits for it.
        """
        key = (device, path, txn_id)
        if (running := self._running.get(key)) is not None:
            return await asyncio.shield(running)
        first = self._running[key] = asyncio.get_running_loop().create_future()
        try:
            event_id = await self._once(device, txn_id, is_same, send)
        except Exception as error:
            first.set_exception(error)
            first.exception()  # it counts as looked at, whether or not anybody waits for it
            raise
        except BaseException:
            first.cancel()
            raise
        else:
            first.set_result(event_id)
            return event_id
        finally:
            del self._running[key]

    async def _once(
        self, device: int, txn_id: str, is_same: Callable[[StoredEvent], bool], send: Callable[[], Awaitable[str]]
    ) -> str:
        known = self._devices.get(device) or await self._load(device)
        digest = hash(txn_id)
        if digest in known.used or not known.complete:
            for event in await self._events.load_by_transaction(device, txn_id):
                if is_same(event):
                    return event.event_id
        # Before it is sent: even what seems to fail may be stored, and the next request with this ID has to look.
        self._remember(device, known, digest)
        return await send()

    async def _load(self, device: int) -> _Device:
        ids = await self._events.load_transactions(device, limit=MAX_LOADED_IDS)
        if (known := self._devices.get(device)) is not None:
            return known
        known = _Device({hash(txn_id) for txn_id in ids}, complete=len(ids) < MAX_LOADED_IDS)
        self._devices[device] = known
        self._remembered += len(known.used)
        return known

    def _remember(self, device: int, known: _Device, digest: int) -> None:
        if len(known.used) >= MAX_LOADED_IDS:
            known.complete = False
            return
        if digest in known.used or self._devices.get(device) is not known:
            return
        known.used.add(digest)
        self._remembered += 1
        self._devices.move_to_end(device)
        while self._remembered > MAX_REMEMBERED_IDS and len(self._devices) > 1:
            _, old = self._devices.popitem(last=False)
            self._remembered -= len(old.used)

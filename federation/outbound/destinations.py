"""Which servers do not answer, and for how long they are left alone."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from homeserver.clock import Clock
from storage.database import CONNECTION_ERRORS
from storage.destinations import DestinationRepository, DestinationRow

logger = logging.getLogger(__name__)

MAX_FAILING = 20_000
PERSIST_EVERY_MS = 5_000


@dataclass(slots=True)
class _Failing:
    since_ts: int
    retry_after_ms: int
    retry_ts: int


class Destinations:
    """Backs off from servers that fail: twice as long each time, up to a ceiling, with chance in it.

    Whatever a server signs, and whatever it answers, ends that. Kept in memory, and written now and then so that a
    restart does not forget: what a crash loses is a few tries.
    """

    def __init__(self, rows: DestinationRepository, clock: Clock, *, min_retry_ms: int, max_retry_ms: int) -> None:
        self._rows = rows
        self._clock = clock
        self._min_retry_ms = min_retry_ms
        self._max_retry_ms = max_retry_ms
        self._failing: OrderedDict[str, _Failing] = OrderedDict()
        self._changed: set[str] = set()
        self.on_recovered: list[Callable[[str], None]] = []

    async def open(self) -> None:
        """Takes up what was known before the restart."""
        for row in await self._rows.load_failing(MAX_FAILING):
            self._failing[row.destination] = _Failing(row.failing_since_ts, row.retry_after_ms, row.retry_ts)

    def retry_ts(self, destination: str) -> int:
        """When the server may be tried (ms since the epoch); 0 for one that does not fail."""
        failing = self._failing.get(destination)
        return 0 if failing is None else failing.retry_ts

    def failed(self, destination: str) -> None:
        """A server did not answer. Tries that were made at the same time count as one."""
        now = self._clock()
        failing = self._failing.get(destination)
        if failing is None:
            failing = self._failing[destination] = _Failing(now, 0, 0)
        elif now < failing.retry_ts:
            return
        failing.retry_after_ms = min(max(failing.retry_after_ms * 2, self._min_retry_ms), self._max_retry_ms)
        # Servers that failed together are not to be tried together.
        failing.retry_ts = now + failing.retry_after_ms - secrets.randbelow(failing.retry_after_ms // 4 + 1)
        self._failing.move_to_end(destination)
        self._changed.add(destination)
        if len(self._failing) > MAX_FAILING:
            self._changed.add(self._failing.popitem(last=False)[0])

    def is_alive(self, destination: str) -> None:
        """A server answered: it is tried again at once."""
        if destination in self._failing:
            self.has_signed(destination)

    def has_signed(self, origin: str) -> None:
        """A server signed a request: it is tried again, also by who waits because it answered with errors alone."""
        if self._failing.pop(origin, None) is not None:
            self._changed.add(origin)
        for notify in self.on_recovered:
            notify(origin)

    async def persist(self) -> None:
        """Writes what changed since the last time."""
        if not self._changed:
            return
        changed, self._changed = self._changed, set()
        failing = [
            DestinationRow(name, state.since_ts, state.retry_after_ms, state.retry_ts)
            for name in changed
            if (state := self._failing.get(name)) is not None
        ]
        try:
            await self._rows.persist(failing, [name for name in changed if name not in self._failing])
        except CONNECTION_ERRORS as error:
            self._changed |= changed
            logger.warning("not written which servers do not answer: %s", error)

    async def persist_forever(self) -> None:
        """Runs `persist` at an interval until cancelled."""
        while True:
            await asyncio.sleep(PERSIST_EVERY_MS / 1000)
            await self.persist()

"""Wakes those who wait for news: each waiting request once, after the news is published."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable

from homeserver.metrics import Metrics


class Notifier:
    """Who waits, and who is to be woken. `mark` while publishing, `wake_marked` after it."""

    def __init__(self) -> None:
        self._waiting: dict[str, set[asyncio.Future[None]]] = {}
        self._marked: set[str] = set()
        self._metrics = Metrics()
        self.stopping = False

    def use(self, metrics: Metrics) -> None:
        """Counts in these metrics from now on."""
        self._metrics = metrics
        metrics.sync_waiting.set_function(lambda: sum(map(len, self._waiting.values())))

    @property
    def waiting_users(self) -> int:
        """How many users wait."""
        return len(self._waiting)

    def mark_users(self, user_ids: Iterable[str]) -> None:
        """Notes that there is news for these users."""
        for user_id in user_ids:
            if user_id in self._waiting:
                self._marked.add(user_id)

    def mark_members(self, members: Collection[str]) -> None:
        """The same for a room's members, at the cost of the smaller of two sets: they, and who waits."""
        if len(members) <= len(self._waiting):
            self.mark_users(members)
        else:
            self._marked.update(user_id for user_id in self._waiting if user_id in members)

    def wake_marked(self) -> None:
        """Wakes the requests of everyone who was marked."""
        if not self._marked:
            return
        marked, self._marked = self._marked, set()
        woken = 0
        for user_id in marked:
            for future in self._waiting.pop(user_id, ()):
                if not future.done():
                    future.set_result(None)
                    woken += 1
        self._metrics.sync_woken.inc(woken)

    async def wait(self, user_id: str, timeout_s: float) -> None:
        """Returns when there is news for the user, when the time is up, or when the server stops."""
        if self.stopping or timeout_s <= 0:
            return
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        waiting = self._waiting.setdefault(user_id, set())
        waiting.add(future)
        timer = loop.call_later(timeout_s, _finish, future)
        try:
            await future
        finally:
            timer.cancel()
            if (waiting := self._waiting.get(user_id, waiting)) and future in waiting:
                waiting.discard(future)
                if not waiting:
                    self._waiting.pop(user_id, None)

    def stop(self) -> None:
        """Wakes everyone: the server is going down, and nobody is left without an answer."""
        self.stopping = True
        self._marked.update(self._waiting)
        self.wake_marked()


def _finish(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)

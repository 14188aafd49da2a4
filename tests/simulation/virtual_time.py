"""An event loop whose time passes only when there is nothing left to do: hours of a simulation take seconds.

Real work still takes real time: while a query or a thread is under way, the loop waits for it, and its clock stands.
So whatever happens, happens in the same order for the same seed.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import asyncpg

MAX_REAL_WAIT_S = 20.0


class Deadlock(Exception):
    """Nothing will ever happen any more."""


class _Selector(selectors.DefaultSelector):
    def __init__(self) -> None:
        super().__init__()
        self.loop: VirtualTimeLoop | None = None

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        loop = self.loop
        assert loop is not None
        if loop.in_flight:
            return super().select(MAX_REAL_WAIT_S if timeout is None or timeout > 0 else 0)
        ready = super().select(0)
        if ready or timeout == 0:
            return ready
        if timeout is None:
            # What is left is what the operating system tells: a connection that was closed, a process that ended.
            ready = super().select(MAX_REAL_WAIT_S)
            if not ready:
                raise Deadlock
            return ready
        loop.advance(timeout)
        return []


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """`in_flight` counts what real time is needed for."""

    def __init__(self) -> None:
        selector = _Selector()
        self._virtual_s = 1_000_000.0
        self.in_flight = 0
        super().__init__(selector)
        selector.loop = self

    def time(self) -> float:
        """Seconds of the simulation."""
        return self._virtual_s

    def advance(self, seconds: float) -> None:
        """Lets time pass."""
        self._virtual_s += seconds

    def clock_ms(self) -> int:
        """The `Clock` of servers in the simulation: milliseconds since the epoch."""
        return 1_700_000_000_000 + int((self._virtual_s - 1_000_000.0) * 1000)

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> Any:  # type: ignore[override]
        """Counts threads that work."""
        future = super().run_in_executor(executor, func, *args)
        self.in_flight += 1
        future.add_done_callback(lambda _: self._landed())
        return future

    def _landed(self) -> None:
        self.in_flight -= 1


@contextmanager
def real_time() -> Iterator[None]:
    """What happens inside takes the time that it takes, and the simulation's stands."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop)
    loop.in_flight += 1
    try:
        yield
    finally:
        loop.in_flight -= 1


def count_connecting(pool: asyncpg.Pool) -> None:
    """Counts connections that are being made as in flight: the pool closes those that were idle for some minutes."""
    connect = pool._connect

    async def counted(*args: Any, **more: Any) -> Any:
        with real_time():
            return await connect(*args, **more)

    pool._connect = counted


class CountedConnection(asyncpg.Connection):  # type: ignore[misc]
    """A connection whose queries are counted as in flight."""

    async def execute(self, query: str, *args: Any, timeout: float | None = None) -> Any:
        """See asyncpg."""
        with real_time():
            return await super().execute(query, *args, timeout=timeout)

    async def copy_records_to_table(self, *args: Any, **more: Any) -> Any:
        """See asyncpg."""
        with real_time():
            return await super().copy_records_to_table(*args, **more)

    async def _execute(self, *args: Any, **more: Any) -> Any:
        with real_time():
            return await super()._execute(*args, **more)

"""An event loop whose time passes only when there is nothing left to do: hours of a simulation take seconds.

What takes real time (the queries of a database, above all) is awaited as `VirtualTimeLoop.awaits`: the clock stands
meanwhile, and what was asked for first is answered first, one answer at a time, each when all that followed from the
last one has been done. So what happens follows from the program alone, and not from how fast the machine is.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import selectors
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any, TypeVar

MAX_REAL_WAIT_S = 20.0

T = TypeVar("T")


class Deadlock(Exception):
    """Nothing will ever happen any more."""


class _Timer(asyncio.TimerHandle):
    """Of two timers for the same moment the older one is first; asyncio leaves that to its heap."""

    number = 0

    def __lt__(self, other: object) -> bool:
        assert isinstance(other, _Timer)
        return (self.when(), self.number) < (other.when(), other.number)


class _Selector(selectors.DefaultSelector):
    def __init__(self) -> None:
        super().__init__()
        self.loop: VirtualTimeLoop | None = None

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Looks at the world only where the loop has nothing to do."""
        loop = self.loop
        assert loop is not None
        if timeout == 0 or loop.give_answer():
            return []
        if loop.awaits_answers or timeout is None:
            # No time limit and no question: what is left is what the operating system tells, a connection that ended.
            ready = super().select(MAX_REAL_WAIT_S)
            if not ready:
                raise Deadlock
            return ready
        if not (ready := super().select(0)):
            loop.advance(timeout)
        return ready


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """See the module."""

    def __init__(self) -> None:
        selector = _Selector()
        self._virtual_s = 1_000_000.0
        self._questions: deque[tuple[asyncio.Task[Any], asyncio.Future[None]]] = deque()
        self._timer_numbers = itertools.count()
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

    async def awaits(self, work: Coroutine[Any, Any, T]) -> T:
        """What `work` gets in real time. Who is cancelled meanwhile goes on to wait, for the same real time."""
        task, given = self.create_task(work), self.create_future()
        self._questions.append((task, given))
        cancelled = None
        while not given.done():
            try:
                await asyncio.shield(given)
            except asyncio.CancelledError as error:
                cancelled = error
        if cancelled is not None:
            task.exception()
            raise cancelled
        return task.result()

    @property
    def awaits_answers(self) -> bool:
        """Whether real time is needed."""
        return bool(self._questions)

    def give_answer(self) -> bool:
        """Gives the answer to the oldest question, if it is there."""
        if not self._questions or not self._questions[0][0].done():
            return False
        self._questions.popleft()[1].set_result(None)
        return True

    def call_at(
        self, when: float, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """As asyncio does it, with timers that have an order."""
        timer = _Timer(when, callback, args, self, context)
        timer.number = next(self._timer_numbers)
        heapq.heappush(self._scheduled, timer)  # type: ignore[attr-defined]
        timer._scheduled = True  # type: ignore[attr-defined]
        return timer

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> Any:  # type: ignore[override]
        """Does at once what would be done in a thread."""
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:  # noqa: BLE001 -- it is for who awaits the future
            future.set_exception(error)
        return future

"""The databases of a simulation: real ones, that answer in an order of which the machine decides nothing.

Transactions of one server take turns, so that none ever waits for a lock that another one holds; servers do not wait
for one another.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Coroutine
from typing import Any, TypeVar

import asyncpg

from storage.database import Database
from tests.simulation.virtual_time import VirtualTimeLoop

MAX_CONNECTIONS = 4

T = TypeVar("T")


class Turns:
    """Whose turn it is to use a database."""

    def __init__(self, loop: VirtualTimeLoop) -> None:
        self._loop = loop
        self._holder: object = None
        self._holding_task: asyncio.Task[Any] | None = None
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._under_way = 0
        self._is_lost = False

    async def take(self, connection: asyncpg.Connection, work: Coroutine[Any, Any, T]) -> T:
        """Does `work` when it is this connection's turn, which it keeps for as long as it is in a transaction."""
        try:
            await self._wait_for_turn(connection)
        except BaseException:
            work.close()  # it is never begun
            raise
        try:
            return await self.do(work)
        finally:
            if self._is_lost or connection.is_closed() or not connection.is_in_transaction():
                self._pass_on()

    async def do(self, work: Coroutine[Any, Any, T]) -> T:
        """Does `work`, whoever's turn it is."""
        if self._is_lost:
            work.close()
            raise _lost()
        self._under_way += 1
        try:
            result = await self._loop.awaits(work)
        finally:
            self._under_way -= 1
        if self._is_lost:
            raise _lost()
        return result

    async def lose(self) -> None:
        """From now on the server hears nothing of the database. What was under way takes place, untold."""
        self._is_lost = True
        while self._waiting:
            if not (turn := self._waiting.popleft()).done():
                turn.set_exception(_lost())
        while self._under_way:  # noqa: ASYNC110 -- time that costs nothing
            await asyncio.sleep(0.001)

    async def _wait_for_turn(self, connection: asyncpg.Connection) -> None:
        if self._is_lost:
            raise _lost()
        task = asyncio.current_task()
        if self._holder is None:
            self._holder, self._holding_task = connection, task
        if self._holder is connection:
            return
        assert task is not self._holding_task, "a transaction must not wait for another connection"
        turn = self._loop.create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self._pass_on()
            raise
        self._holder, self._holding_task = connection, task

    def _pass_on(self) -> None:
        self._holder = self._holding_task = None
        while self._waiting:
            if not (turn := self._waiting.popleft()).done():
                self._holder = turn
                turn.set_result(None)
                return


class TurnConnection(asyncpg.Connection):  # type: ignore[misc]
    """A connection that waits for its turn."""

    turns: Turns

    async def execute(self, query: str, *args: Any, timeout: float | None = None) -> Any:
        """See asyncpg."""
        if args:
            return await super().execute(query, *args, timeout=timeout)  # by `_execute`
        return await self.turns.take(self, super().execute(query, timeout=timeout))

    async def copy_records_to_table(self, *args: Any, **more: Any) -> Any:
        """See asyncpg."""
        return await self.turns.take(self, super().copy_records_to_table(*args, **more))

    async def _execute(self, *args: Any, **more: Any) -> Any:
        return await self.turns.take(self, super()._execute(*args, **more))


class SimulatedDatabase(Database):
    """The database of one server of a simulation, from its start to its crash."""

    def __init__(self, url: str) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualTimeLoop)
        self._turns = Turns(loop)
        connection_class = type("OwnConnection", (TurnConnection,), {"turns": self._turns})
        super().__init__(url, max_connections=MAX_CONNECTIONS, connection_class=connection_class)

    async def crash(self) -> None:
        """Ends every connection as a crash would."""
        await self._turns.lose()
        self.abandon()

    async def _connect_once(self) -> asyncpg.Connection:
        return await self._turns.do(super()._connect_once())


def _lost() -> asyncpg.PostgresConnectionError:
    return asyncpg.ConnectionDoesNotExistError("the server has crashed")

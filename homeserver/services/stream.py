"""The stream: everything that a /sync can show, in one total order, committed in batches by one writer.

1. A service works out what is to be written, takes positions for it, and submits it; it does so without awaiting in
   between, so the order of submission is the order of positions.
2. The writer takes all that is waiting and commits it in one transaction (group commit): while one batch commits,
   the next one gathers.
3. After the commit each unit is published, in order: heads and caches advance, `current` moves, the submitters'
   requests are answered, and then those who wait for news are woken.

A position is thus never visible before a smaller one, and nothing is visible before it is durable. What is not
durable (typing) takes a position too and travels the same road, with nothing to write.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

from homeserver.logs import get_logger
from homeserver.metrics import Metrics
from homeserver.services.errors import MatrixError
from storage.database import CONNECTION_ERRORS, Connection, Database, StorageError
from storage.stream import StreamRepository, Writes

log = get_logger(__name__)

RESERVE_POSITIONS = 1_000_000
RESERVE_BELOW = 100_000
OUT_OF_REACH_AFTER_S = 10.0
RECONNECT_INTERVAL_S = 0.2
MAX_ATTEMPTS = 3
MAX_BATCH_UNITS = 512
MAX_QUEUED_UNITS = 10_000


class Overloaded(MatrixError):
    """More is waiting to be written than the server will hold."""

    def __init__(self) -> None:
        super().__init__(503, "M_LIMIT_EXCEEDED", "The server is overloaded", {"retry_after_ms": 1000})


class Unit(NamedTuple):
    """Something to be written and shown whole. `publish` must not fail; `undo` is called in its stead on an error."""

    position: int
    writes: Writes
    publish: Callable[[], None]
    undo: Callable[[], None]
    done: asyncio.Future[None]


class Stream:
    """Hands out positions and runs the writer. `current` is the last position that is published."""

    def __init__(self, database: Database, repository: StreamRepository, metrics: Metrics) -> None:
        self._database = database
        self._repository = repository
        self._metrics = metrics
        self._queue: list[Unit] = []
        self._wake: asyncio.Event = asyncio.Event()
        self._next = 0
        self._reserved_until = 0
        self._stopping = False
        self._is_out_of_reach = False
        self._connection: Connection | None = None
        self.current = 0
        self.started_at = 0
        self.on_published: Callable[[], None] = lambda: None

    async def open(self, server_name: str) -> None:
        """Becomes the writer. Raises StorageError when another process is, or the database is another server's."""
        try:
            connection = self._connection = await self._database.writer()
            await self._repository.claim_server_name(connection, server_name)
            positions = await self._repository.reserve_positions(connection, RESERVE_POSITIONS)
        except CONNECTION_ERRORS as error:
            raise StorageError(f"cannot use the PostgreSQL database: {error}") from error
        # The first one is where the stream stands now: 0 means "from the beginning" and is nobody's token.
        self._next, self._reserved_until = positions.start + 1, positions.stop
        self.current = self.started_at = positions.start

    def next_position(self) -> int:
        """Takes the next position; it must be submitted before anything is awaited."""
        if self._next >= self._reserved_until or len(self._queue) >= MAX_QUEUED_UNITS or self._is_out_of_reach:
            raise Overloaded
        position = self._next
        self._next += 1
        return position

    def submit(
        self, position: int, writes: Writes, publish: Callable[[], None], undo: Callable[[], None] = lambda: None
    ) -> asyncio.Future[None]:
        """Queues a unit whose last position is `position`. The future is done once it is durable and published."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self._stopping:
            undo()
            done.set_exception(Overloaded())
            return done
        self._queue.append(Unit(position, writes, publish, undo, done))
        self._wake.set()
        return done

    async def run(self) -> None:
        """Commits until `stop` was called and nothing is waiting any more.

        Raises StorageError when another process has become the writer: this one must not go on.
        """
        batch: list[Unit] = []
        try:
            while not (self._stopping and not self._queue):
                await self._wake.wait()
                self._wake.clear()
                while self._queue:
                    batch, self._queue = self._queue[:MAX_BATCH_UNITS], self._queue[MAX_BATCH_UNITS:]
                    await self._commit(batch)
                    batch = []
        except BaseException as error:
            self._stopping = True
            self._fail(batch, error)
            raise

    def stop(self) -> None:
        """Lets `run` end after what is queued; what comes later is refused."""
        self._stopping = True
        self._wake.set()

    async def _commit(self, batch: list[Unit]) -> None:
        writes = Writes()
        for unit in batch:
            writes.extend(unit.writes)
        started = time.perf_counter()
        try:
            if writes.kinds():
                await self._write(batch, writes)
        except StorageError:
            raise
        except Exception as error:
            log.exception("a batch could not be committed", units=len(batch))
            self._fail(batch, error)
            return
        if writes.events:
            self._metrics.events_persisted.inc(len(writes.events))
            self._metrics.commit_batch_events.observe(len(writes.events))
            self._metrics.commit_seconds.observe(time.perf_counter() - started)
        for unit in batch:
            unit.publish()
        self.current = batch[-1].position
        for unit in batch:
            if not unit.done.done():
                unit.done.set_result(None)
        self.on_published()
        if self._reserved_until - self._next < RESERVE_BELOW:
            await self._reserve()

    async def _write(self, batch: list[Unit], writes: Writes) -> None:
        """Makes a batch durable, over as many connections as it takes.

        A connection that breaks leaves open whether the commit it carried took place. To fail a batch that is durable
        would keep its events from everyone who syncs, and to write it again would fail: the database is asked.
        """
        for attempt in itertools.count():
            try:
                await self._repository.commit(await self._writer(), writes)
                return
            except CONNECTION_ERRORS as error:
                if attempt >= MAX_ATTEMPTS:
                    raise
                log.warning("the database was lost during a commit", units=len(batch), error=repr(error))
                if await self._is_committed(batch, writes):
                    return

    async def _is_committed(self, batch: list[Unit], writes: Writes) -> bool:
        """Whether a batch is durable; waits until the database can tell, or the server is stopped."""
        patience = time.monotonic() + OUT_OF_REACH_AFTER_S
        try:
            while True:
                self._database.drop_writer()
                try:
                    return await self._repository.is_committed(await self._writer(), writes)
                except CONNECTION_ERRORS:
                    if self._stopping:
                        raise
                if time.monotonic() > patience:
                    self._is_out_of_reach = True
                    _refuse(batch + self._queue)
                await asyncio.sleep(RECONNECT_INTERVAL_S)
        finally:
            self._is_out_of_reach = False

    async def _writer(self) -> Connection:
        """The writer's connection. Raises StorageError when somebody else has been the writer since the last one."""
        connection = await self._database.writer()
        if connection is not self._connection:
            if await self._repository.load_reserved_until(connection) != self._reserved_until:
                raise StorageError("another Weft process has written to this database meanwhile")
            self._connection = connection
        return connection

    async def _reserve(self) -> None:
        """Reserves more positions; if the database cannot be reached, after a later batch."""
        try:
            positions = await self._repository.reserve_positions(await self._writer(), RESERVE_POSITIONS)
        except CONNECTION_ERRORS as error:
            log.warning("no positions could be reserved", error=repr(error))
            return
        assert positions.start == self._reserved_until, "somebody else has reserved positions"
        self._reserved_until = positions.stop

    def _fail(self, batch: list[Unit], error: BaseException) -> None:
        """Gives up a batch and all that was built on it since."""
        failed, self._queue = batch + self._queue, []
        for unit in failed:
            unit.undo()
            if not unit.done.done():
                unit.done.set_exception(MatrixError(500, "M_UNKNOWN", f"Not stored: {type(error).__name__}"))


def _refuse(units: Iterable[Unit]) -> None:
    """Answers requests whose outcome is not known yet. What becomes of them is seen to all the same."""
    for unit in units:
        if not unit.done.done():
            unit.done.set_exception(Overloaded())

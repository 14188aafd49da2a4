"""Sends what is for other servers, to each of them one transaction after another.

1. What is published is noted for its destinations (`on_outgoing`), and nothing else before its sender is answered.
2. A destination with something to send has a task. It composes a transaction of the oldest events and EDUs, and sends
   it, under the same ID and as often as it takes. A destination that lacks nothing has neither task nor queue.
3. What is acknowledged is noted, now and then in the database: after a crash a little is sent again, which receivers
   know by its event IDs. Nothing is left out.

That there is no queue for a destination says that it has everything up to the newest event that was noted.
https://spec.matrix.org/v1.19/server-server-api/#transactions
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import orjson

from config.schema import Federation
from homeserver.clock import Clock
from homeserver.logs import get_logger
from homeserver.metrics import Metrics
from homeserver.services.federation.sending.delivery import DATABASE_RETRY_MS, Backoff, Delivery
from homeserver.services.federation.sending.edus import Edu, combine
from homeserver.services.federation.sending.queue import (
    FAR_BEHIND_EVENTS,
    MAX_EDUS,
    Batch,
    DestinationQueue,
    EduKey,
)
from homeserver.services.remote import Transport
from homeserver.services.rooms.event_cache import EventCache
from homeserver.services.rooms.room import Room
from matrix.identifiers import get_domain, is_server_name
from storage.database import CONNECTION_ERRORS
from storage.events import StoredEvent
from storage.federation import FederationRepository, OutgoingEdu

log = get_logger(__name__)

PERSIST_EVERY_MS = 1_000
MAX_DURABLE_BYTES = 1024 * 1024
"""Of the EDUs that wait in storage no more goes into one transaction, but for a single one that is larger."""


class _Transaction(NamedTuple):
    """`durable_up_to` is the position of the newest durable EDU in it, 0 for none."""

    transaction_id: str
    batch: Batch
    edus: list[dict[str, Any]]
    durable_up_to: int
    origin_server_ts: int
    waited_since_ms: int


class Sender:
    """Holds the queues of all destinations that lack something."""

    def __init__(
        self,
        transport: Transport,
        backoff: Backoff,
        repository: FederationRepository,
        events: EventCache,
        metrics: Metrics,
        clock: Clock,
        options: Federation,
        *,
        server_name: str,
    ) -> None:
        self._delivery = Delivery(transport, backoff, metrics, clock, options)
        self._repository = repository
        self._events = events
        self._metrics = metrics
        self._clock = clock
        self._enabled = options.enabled
        self._keep_unsent_ms = options.keep_unsent_ms
        self._server_name = server_name
        self._queues: dict[str, DestinationQueue] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._unpersisted: dict[str, int] = {}
        self._run = secrets.token_hex(6)
        self._sent = 0
        self._stopping = False
        self._last_position = 0
        metrics.federation_destinations_behind.set_function(self._count_resting)

    def _count_resting(self) -> float:
        return sum(queue.is_resting for queue in self._queues.values())

    async def open(self, position: int) -> None:
        """Finds out who is behind, by the stream's `position`, and begins to send to them."""
        self._last_position = position
        if not self._enabled:
            return
        for row in await self._repository.load_destinations_behind():
            if is_server_name(row.destination) and row.destination != self._server_name:
                queue = self._queues[row.destination] = DestinationQueue(row.destination, row.position)
                queue.fall_behind(row.newest)
        self.on_durable_edus(await self._repository.load_destinations_with_edus())
        for queue in self._queues.values():
            self._start(queue)

    def on_outgoing(self, room: Room, event: StoredEvent, _before: str | None) -> None:
        """Notes a published event that is for this server to send (a `PublishObserver`)."""
        if not self._enabled:
            return
        destinations = set(room.servers)
        key, is_out = event.pdu.state_key, event.pdu.content.get("membership") in ("leave", "ban")
        if event.pdu.type == "m.room.member" and key is not None and is_out:
            destinations.add(get_domain(key))  # who is shown out is told so
        destinations.discard(get_domain(event.pdu.sender))
        for destination in destinations:
            if self._is_destination(destination):
                queue = self._queue(destination)
                queue.add_event(event.position)
                self._start(queue)
        self._last_position = event.position

    def send_edu(self, destinations: Iterable[str], key: EduKey, edu: Edu) -> None:
        """Tells servers something that is of no use to them later: those that do not answer, or crash, miss it."""
        if not self._enabled:
            return
        for destination in destinations:
            if self._is_destination(destination) and not self._delivery.is_failing(destination):
                queue = self._queue(destination)
                queue.add_edu(key, edu)
                self._start(queue)

    def on_durable_edus(self, destinations: Iterable[str]) -> None:
        """Says that EDUs were committed for these servers (`Writes.outgoing_edus`)."""
        if not self._enabled:
            return
        for destination in destinations:
            if self._is_destination(destination):
                queue = self._queue(destination)
                queue.has_durable_edus = True
                self._start(queue)

    def on_recovered(self, destination: str) -> None:
        """A server that did not answer is there again, or one that refused something has signed a request."""
        if (queue := self._queues.get(destination)) is not None:
            queue.recovered.set()

    def _is_destination(self, name: str) -> bool:
        return name in self._queues or (name != self._server_name and is_server_name(name))

    def _queue(self, destination: str) -> DestinationQueue:
        queue = self._queues.get(destination)
        if queue is None:
            queue = self._queues[destination] = DestinationQueue(destination, self._last_position)
            # Who is not known to the database, where they have got to, must be, before the first crash.
            self._unpersisted.setdefault(destination, self._last_position)
        return queue

    def _start(self, queue: DestinationQueue) -> None:
        queue.waits_since_ms = queue.waits_since_ms or self._clock()
        if queue.destination in self._tasks or self._stopping:
            return
        task = asyncio.create_task(self._serve(queue), name=f"send to {queue.destination}")
        self._tasks[queue.destination] = task
        task.add_done_callback(lambda done: self._ended(queue, done))

    def _ended(self, queue: DestinationQueue, task: asyncio.Task[None]) -> None:
        self._tasks.pop(queue.destination, None)
        if task.cancelled():
            return
        if (error := task.exception()) is not None:
            log.error("sending to a server ended", destination=queue.destination, exc_info=error)
        elif queue.has_work:
            self._start(queue)
        else:
            del self._queues[queue.destination]

    async def _serve(self, queue: DestinationQueue) -> None:
        """Sends until there is nothing more."""
        while queue.has_work:
            await self._delivery.wait_until_allowed(queue)
            try:
                transaction = await self._compose(queue)
            except CONNECTION_ERRORS as error:
                log.warning("nothing can be read to be sent", destination=queue.destination, error=repr(error))
                await asyncio.sleep(DATABASE_RETRY_MS / 1000)
                continue
            if transaction.batch.positions or transaction.edus:
                await self._deliver(queue, transaction)
            await self._acknowledge(queue, transaction)

    async def _deliver(self, queue: DestinationQueue, transaction: _Transaction) -> None:
        async def make() -> dict[str, Any]:
            return await self._content(transaction)

        if await self._delivery.deliver(queue, transaction.transaction_id, make):
            self._metrics.federation_sent.labels("pdu").inc(len(transaction.batch.positions))
            self._metrics.federation_sent.labels("edu").inc(len(transaction.edus))
            self._metrics.federation_send_seconds.observe((self._clock() - transaction.waited_since_ms) / 1000)

    async def _compose(self, queue: DestinationQueue) -> _Transaction:
        """The next transaction, with nothing in it if there turned out to be nothing to send."""
        batch = await self._next_batch(queue)
        durable: list[Any] = []
        durable_up_to = 0
        if queue.has_durable_edus:
            queue.has_durable_edus = False  # set again by what is committed while this is read
            try:
                rows = await self._repository.load_outgoing_edus(queue.destination, queue.edus_sent, limit=MAX_EDUS)
            except BaseException:
                queue.has_durable_edus = True
                raise
            fitting = rows[: _count_fitting(rows)]
            queue.has_durable_edus |= len(rows) == MAX_EDUS or len(fitting) < len(rows)
            rows = fitting
            durable = [orjson.loads(row.edu) for row in rows]
            durable_up_to = rows[-1].position if rows else 0
        edus = durable + combine(queue.take_edus(MAX_EDUS - len(durable)))
        since, queue.waits_since_ms = queue.waits_since_ms, 0
        self._sent += 1
        now = self._clock()
        return _Transaction(f"{self._run}-{self._sent}", batch, edus, durable_up_to, now, since or now)

    async def _next_batch(self, queue: DestinationQueue) -> Batch:
        if not queue.is_behind:
            return queue.from_memory()
        if not queue.is_leaping:
            newest, after, destination = queue.newest, queue.acknowledged, queue.destination
            found = await self._repository.load_outgoing(destination, after, limit=FAR_BEHIND_EVENTS)
            if len(found) < FAR_BEHIND_EVENTS:
                return queue.from_storage(found, newest)
            leap = await self._repository.load_newest_outgoing(destination, after, up_to=max(newest, found[-1]))
            queue.leap(leap, max(newest, found[-1]))
        return queue.from_leap()

    async def _content(self, transaction: _Transaction) -> dict[str, Any]:
        """The body of a transaction. Its events are not held while it waits for its destination to come back."""
        events = await self._events.load(transaction.batch.positions)
        return {
            "origin": self._server_name,
            "origin_server_ts": transaction.origin_server_ts,
            "pdus": [
                without_local_fields(events[position].pdu.json)
                for position in transaction.batch.positions
                if position in events
            ],
            "edus": transaction.edus,
        }

    async def _acknowledge(self, queue: DestinationQueue, transaction: _Transaction) -> None:
        queue.acknowledge(transaction.batch)
        if transaction.batch.positions:
            self._unpersisted[queue.destination] = queue.acknowledged
        if transaction.durable_up_to:
            queue.edus_sent = transaction.durable_up_to
            with suppress(*CONNECTION_ERRORS):  # what is not deleted is sent again after the next start
                await self._repository.delete_outgoing_edus(queue.destination, transaction.durable_up_to)

    @property
    def is_busy(self) -> bool:
        """Whether there is anything to send to anybody."""
        return bool(self._tasks)

    def abandon(self) -> None:
        """Ends as a crash would, with nothing written."""
        self._stopping = True
        for task in self._tasks.values():
            task.cancel()

    async def persist_forever(self) -> None:
        """Writes now and then how far destinations have got, until cancelled."""
        while True:
            await asyncio.sleep(PERSIST_EVERY_MS / 1000)
            await self.persist()

    async def persist(self) -> None:
        """Writes how far destinations have got."""
        rows, self._unpersisted = self._unpersisted, {}
        if not rows:
            return
        try:
            await self._repository.persist_destinations(rows)
        except CONNECTION_ERRORS as error:
            log.warning("not written how far servers have got", error=repr(error))
            self._unpersisted = rows | self._unpersisted

    async def clean(self) -> None:
        """Forgets which events and EDUs were to be sent: when all have them, or after a long time."""
        if not self._enabled:
            return
        position, lacking = self._last_position, list(self._queues)
        await self._repository.advance_others(lacking, position)
        await self._repository.prune_outgoing(self._clock() - self._keep_unsent_ms)

    async def close(self) -> None:
        """Stops sending; what is under way is sent again after the next start."""
        self._stopping = True
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await self.persist()


def _count_fitting(rows: Sequence[OutgoingEdu]) -> int:
    """How many of these EDUs, one at least, go into a transaction."""
    total = 0
    for count, row in enumerate(rows):
        total += len(row.edu)
        if count and total > MAX_DURABLE_BYTES:
            return count
    return len(rows)


def without_local_fields(pdu: dict[str, Any]) -> dict[str, Any]:
    """An event as it goes to other servers: what stands in `unsigned` is this server's own."""
    return {key: value for key, value in pdu.items() if key != "unsigned"} if "unsigned" in pdu else pdu

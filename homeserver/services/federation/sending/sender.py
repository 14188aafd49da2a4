"""Sends what is for other servers, to each of them one transaction after another.

1. What is published is noted for its destinations (`on_outgoing`), and nothing else before its sender is answered.
2. A destination with something to send has a task. It composes a transaction of the oldest events and EDUs, and sends
   it, under the same ID and as often as it takes.
3. What is acknowledged is noted, now and then in the database: after a crash a little is sent again, which receivers
   know by its event IDs. Nothing is left out.

https://spec.matrix.org/v1.19/server-server-api/#transactions
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, Protocol
from urllib.parse import quote

import orjson

from homeserver.clock import Clock
from homeserver.logs import get_logger
from homeserver.services.errors import MatrixError
from homeserver.services.federation.sending.queue import DestinationQueue, EduKey
from homeserver.services.remote import NoFederation, RemoteFailure, RemoteRefused, Transport
from homeserver.services.rooms.event_cache import EventCache
from homeserver.services.rooms.room import Room
from matrix.identifiers import get_domain, is_server_name
from storage.database import CONNECTION_ERRORS
from storage.events import StoredEvent
from storage.federation import FederationRepository

log = get_logger(__name__)

MAX_PDUS = 50
MAX_EDUS = 100
PERSIST_EVERY_MS = 1_000
MAX_REFUSALS = 5
"""How often a transaction is sent that its destination does not want; then it is left out, or nothing would follow."""
MIN_RETRY_MS = 1_000
MAX_RETRY_MS = 3_600_000
TRANSACTION_TIMEOUT_MS = 60_000


class Backoff(Protocol):
    """When a server that failed may be tried again."""

    def retry_ts(self, destination: str) -> int:
        """Milliseconds since the epoch; 0 for a server that does not fail."""


class _Transaction(NamedTuple):
    transaction_id: str
    content: dict[str, Any]
    up_to: int
    durable_edus_up_to: int
    caught_up: bool


class Sender:
    """Holds the queues of all destinations."""

    def __init__(
        self,
        transport: Transport,
        backoff: Backoff,
        repository: FederationRepository,
        events: EventCache,
        clock: Clock,
        *,
        server_name: str,
        max_concurrent_destinations: int,
    ) -> None:
        self._transport = transport
        self._backoff = backoff
        self._repository = repository
        self._events = events
        self._clock = clock
        self._server_name = server_name
        self._gate = asyncio.Semaphore(max_concurrent_destinations)
        self._queues: dict[str, DestinationQueue] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._run = secrets.token_hex(6)
        self._sent = 0
        self._stopping = False
        self._last_position = 0

    async def open(self, position: int) -> None:
        """Finds out who is behind, by the stream's `position`, and begins to send to them."""
        self._last_position = position
        last = await self._repository.load_last_outgoing()
        with_edus = await self._repository.load_destinations_with_edus()
        for destination, acknowledged in (await self._repository.load_destinations()).items():
            queue = DestinationQueue(destination, acknowledged, is_behind=acknowledged < last)
            queue.newest = max(last, acknowledged)
            self._queues[destination] = queue
        for destination in with_edus:
            self._queue(destination).has_durable_edus = True
        for queue in self._queues.values():
            if queue.has_work:
                self._start(queue)

    def on_outgoing(self, room: Room, event: StoredEvent, _before: str | None) -> None:
        """Notes a published event that is for this server to send (a `PublishObserver`)."""
        self._last_position = event.position
        destinations = set(room.servers)
        if event.pdu.type == "m.room.member" and event.pdu.state_key is not None:
            destinations.add(get_domain(event.pdu.state_key))  # who is shown out is told so
        destinations.discard(self._server_name)
        destinations.discard(get_domain(event.pdu.sender))
        for destination in destinations:
            if is_server_name(destination):
                queue = self._queue(destination)
                queue.add_event(event.position)
                self._start(queue)

    def send_edu(self, destinations: Iterable[str], key: EduKey, edu_type: str, content: dict[str, Any]) -> None:
        """Tells servers something that is of no use to them later: it is lost with a restart."""
        for destination in destinations:
            if destination != self._server_name and is_server_name(destination):
                queue = self._queue(destination)
                queue.add_edu(key, {"edu_type": edu_type, "content": content})
                self._start(queue)

    def on_durable_edus(self, destinations: Iterable[str]) -> None:
        """Says that EDUs were committed for these servers (`Writes.outgoing_edus`)."""
        for destination in destinations:
            queue = self._queue(destination)
            queue.has_durable_edus = True
            queue.wake.set()
            self._start(queue)

    def on_recovered(self, destination: str) -> None:
        """A server that did not answer is there again."""
        if (queue := self._queues.get(destination)) is not None:
            queue.wake.set()

    def _queue(self, destination: str) -> DestinationQueue:
        queue = self._queues.get(destination)
        if queue is None:
            queue = self._queues[destination] = DestinationQueue(destination, self._last_position, is_behind=False)
        return queue

    def _start(self, queue: DestinationQueue) -> None:
        if queue.destination in self._tasks or self._stopping:
            return
        task = asyncio.create_task(self._serve(queue), name=f"send to {queue.destination}")
        self._tasks[queue.destination] = task
        task.add_done_callback(lambda done: self._ended(queue, done))

    def _ended(self, queue: DestinationQueue, task: asyncio.Task[None]) -> None:
        self._tasks.pop(queue.destination, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("sending to a server ended", destination=queue.destination, exc_info=error)
        elif queue.has_work and not task.cancelled():
            self._start(queue)

    async def _serve(self, queue: DestinationQueue) -> None:
        """Sends until there is nothing more."""
        while queue.has_work:
            try:
                transaction = await self._compose(queue)
            except CONNECTION_ERRORS as error:
                log.warning("nothing can be read to be sent", destination=queue.destination, error=repr(error))
                await asyncio.sleep(MIN_RETRY_MS / 1000)
                continue
            if transaction is None:
                continue
            await self._deliver(queue, transaction)
            await self._acknowledge(queue, transaction)

    async def _compose(self, queue: DestinationQueue) -> _Transaction | None:
        """The next transaction; None if there turned out to be nothing to send."""
        caught_up, up_to = False, queue.acknowledged
        if queue.is_behind:
            newest = queue.newest
            rooms = await self._repository.load_rooms_of_server(queue.destination)
            found = await self._repository.load_outgoing(queue.acknowledged, rooms, limit=MAX_PDUS)
            positions = [position for position, _ in found]
            caught_up = len(found) < MAX_PDUS and queue.newest == newest
            up_to = max(newest, queue.acknowledged) if len(found) < MAX_PDUS else positions[-1]
        else:
            positions = [queue.events[index] for index in range(min(len(queue.events), MAX_PDUS))]
            up_to = positions[-1] if positions else queue.acknowledged
        durable = []
        if queue.has_durable_edus:
            queue.has_durable_edus = False
            durable = await self._repository.load_outgoing_edus(queue.destination, 0, limit=MAX_EDUS)
            queue.has_durable_edus = len(durable) == MAX_EDUS
        edus: list[Any] = [orjson.loads(row.edu) for row in durable]
        edus += queue.take_edus(MAX_EDUS - len(edus))
        events = await self._events.load(positions)
        pdus = [events[position].pdu.json for position in positions if position in events]
        self._sent += 1
        content = {
            "origin": self._server_name,
            "origin_server_ts": self._clock(),
            "pdus": [without_local_fields(pdu) for pdu in pdus],
            "edus": edus,
        }
        edus_up_to = durable[-1].position if durable else 0
        transaction = _Transaction(f"{self._run}-{self._sent}", content, up_to, edus_up_to, caught_up)
        if not pdus and not edus:
            await self._acknowledge(queue, transaction)
            return None
        return transaction

    async def _deliver(self, queue: DestinationQueue, transaction: _Transaction) -> None:
        """Sends a transaction as often as it takes."""
        refusals, wait_ms = 0, MIN_RETRY_MS
        path = f"/_matrix/federation/v1/send/{quote(transaction.transaction_id, safe='')}"
        while True:
            try:
                async with self._gate:
                    answer = await self._transport.request(
                        queue.destination, "PUT", path, content=transaction.content, timeout_ms=TRANSACTION_TIMEOUT_MS
                    )
                _log_errors(queue.destination, answer)
                return
            except NoFederation:
                return
            except RemoteFailure as failure:
                if isinstance(failure, RemoteRefused) and 400 <= failure.status < 500 and failure.status != 429:
                    refusals += 1
                    if refusals >= MAX_REFUSALS:
                        log.warning("a server does not want what it is sent", destination=queue.destination)
                        return
            until = self._backoff.retry_ts(queue.destination) - self._clock()
            await self._rest(queue, max(until, wait_ms))
            wait_ms = min(2 * wait_ms, MAX_RETRY_MS)

    async def _rest(self, queue: DestinationQueue, wait_ms: int) -> None:
        """Waits for a time, or until the server is known to be there again."""
        queue.wake.clear()
        while True:
            started = self._clock()
            try:
                async with asyncio.timeout(wait_ms / 1000):
                    await queue.wake.wait()
            except TimeoutError:
                return
            queue.wake.clear()
            if not self._backoff.retry_ts(queue.destination):
                return
            wait_ms = max(wait_ms - (self._clock() - started), 1)

    async def _acknowledge(self, queue: DestinationQueue, transaction: _Transaction) -> None:
        queue.acknowledged = max(queue.acknowledged, transaction.up_to)
        while queue.events and queue.events[0] <= queue.acknowledged:
            queue.events.popleft()
        if transaction.caught_up and queue.newest <= queue.acknowledged:
            queue.is_behind = False
        if transaction.durable_edus_up_to:
            with suppress(*CONNECTION_ERRORS):
                await self._repository.delete_outgoing_edus(queue.destination, transaction.durable_edus_up_to)

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
        moved = [queue for queue in self._queues.values() if queue.acknowledged > queue.persisted]
        if not moved:
            return
        rows = {queue.destination: queue.acknowledged for queue in moved}
        try:
            await self._repository.persist_destinations(rows)
        except CONNECTION_ERRORS as error:
            log.warning("not written how far servers have got", error=repr(error))
            return
        for queue in moved:
            queue.persisted = rows[queue.destination]

    async def close(self) -> None:
        """Stops sending; what is under way is sent again after the next start."""
        self._stopping = True
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        with suppress(MatrixError):
            await self.persist()


def without_local_fields(pdu: dict[str, Any]) -> dict[str, Any]:
    """An event as it goes to other servers: what stands in `unsigned` is this server's own."""
    return {key: value for key, value in pdu.items() if key != "unsigned"} if "unsigned" in pdu else pdu


def _log_errors(destination: str, answer: Any) -> None:
    results: Sequence[tuple[str, Any]] = ()
    if isinstance(answer, dict) and isinstance(answer.get("pdus"), dict):
        results = list(answer["pdus"].items())[:MAX_PDUS]
    for event_id, result in results:
        if isinstance(result, dict) and "error" in result:
            log.info("a server did not take an event", destination=destination, event_id=event_id[:255])

"""Handing a service its transactions: in order, one at a time, again and again until it has them.

https://spec.matrix.org/v1.19/application-service-api/#pushing-events

1. What is published and of interest is noted, by position (`offer`). Where that was not possible, before a start or
   because too much was waiting, the stream is read on from where the service was told last (`CatchUp`).
2. The next transaction takes the oldest of it, within bounds, and whatever else there is to tell.
3. It is written down before it is sent for the first time: its ID, its events and the rest. After a crash it is sent
   as the very same transaction, so that the service can tell that it has it already.
4. It is sent until the service answers 200, more and more seldom.
5. That it was handed over is written down together with the next one, or when none comes for a while.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import deque
from collections.abc import Callable

from homeserver.clock import Clock
from homeserver.logs import get_logger
from homeserver.metrics import Metrics
from homeserver.services.appservices.calls import ServiceCalls, ServiceUnreachable
from homeserver.services.appservices.catch_up import CatchUp
from homeserver.services.appservices.device_news import DeviceNews
from homeserver.services.appservices.ephemera import Ephemera, encode_extra, ephemeral_json
from homeserver.services.appservices.services import Service
from homeserver.services.client_events import ClientEvents, serialise
from homeserver.services.rooms.event_cache import EventCache
from storage.appservices import AppserviceRepository, StreamRow
from storage.database import CONNECTION_ERRORS
from storage.events import StoredEvent

log = get_logger(__name__)

MAX_QUEUED_EVENTS = 20_000
MAX_TRANSACTION_EVENTS = 100
MAX_TRANSACTION_BYTES = 512 * 1024
"""Of events; one larger than this goes alone. Web servers in services often take a megabyte."""
REQUEST_TIMEOUT_S = 60.0
SETTLE_S = 1.0
"""After how long without news it is written down that the last transaction has arrived."""
FIRST_RETRY_S = 0.5
MAX_RETRY_S = 60.0
DATABASE_RETRY_S = 1.0
LOG_FAILURES_FROM = 2
"""The failure of a row that is logged, once: a single one is nothing to wake anybody for."""

_chance = secrets.SystemRandom()


def retry_delay_s(failures: int) -> float:
    """How long to wait after so many failures in a row: twice as long each time, and never two services in step."""
    ceiling: float = min(MAX_RETRY_S, FIRST_RETRY_S * 2.0 ** min(failures - 1, 20))
    return ceiling * _chance.uniform(0.5, 1.0)


class Delivery:
    """One service's transactions. `service` may be replaced by a newer registration under the same ID."""

    def __init__(
        self,
        service: Service,
        repository: AppserviceRepository,
        catch_up: CatchUp,
        events: EventCache,
        client_events: ClientEvents,
        calls: ServiceCalls,
        metrics: Metrics,
        clock: Clock,
        current: Callable[[], int],
        ephemera: Ephemera,
        devices: DeviceNews,
    ) -> None:
        self.service = service
        self.ephemera = ephemera
        self.devices = devices
        self._repository = repository
        self._catch_up = catch_up
        self._events = events
        self._client_events = client_events
        self._calls = calls
        self._clock = clock
        self._current = current
        self._sent = metrics.appservice_transactions.labels(service.id)
        self._failed = metrics.appservice_failures.labels(service.id)
        metrics.appservice_lag.labels(service.id).set_function(self.lag_s)
        self._queue: deque[tuple[int, float]] = deque()
        self._live = False
        self._seen_up_to = 0
        self._behind_since: float | None = time.monotonic()
        self._state = StreamRow(service.id, 0)
        self._failures = 0
        self._has_arrived = False
        self._has_to_load_devices = False
        self._news = asyncio.Event()
        self._retry = asyncio.Event()

    # What is to be told -----------------------------------------------------------------------------------------------

    def offer(self, position: int) -> None:
        """Notes a published event of interest."""
        if not self._live:
            return  # it is found when the stream is read
        if len(self._queue) >= MAX_QUEUED_EVENTS:
            self._live = False
            self._seen_up_to = self._queue[-1][0]
            return
        self._queue.append((position, time.monotonic()))
        self._news.set()

    def notice(self) -> None:
        """Says that there is something else to tell than events."""
        self._news.set()

    def replace(self, service: Service) -> None:
        """Takes another registration of the service, and tries again at once."""
        if service.registration.receive_encryption and not self.service.registration.receive_encryption:
            self._has_to_load_devices = True
            self._news.set()
        self.service = service
        self._retry.set()

    def hurry(self) -> None:
        """Tries again at once: the service has just been heard of."""
        self._retry.set()

    def lag_s(self) -> float:
        """For how long the oldest thing has been waiting that the service has not been told."""
        if self._behind_since is None:
            return 0.0
        return time.monotonic() - self._behind_since

    @property
    def idle_position(self) -> int | None:
        """Up to where there is nothing left to tell; None while there is something."""
        is_idle = self._live and not self._queue and self._state.transaction_id is None
        return self._current() if is_idle else None

    # Telling it -------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Hands over transaction after transaction, until cancelled."""
        while True:
            try:
                await self._open()
                while True:
                    await self._deliver(await self._next())
            except CONNECTION_ERRORS as error:
                log.warning(
                    "the database was lost to an application service", service=self.service.id, error=repr(error)
                )
                await asyncio.sleep(DATABASE_RETRY_S)

    async def _open(self) -> None:
        """Begins where the service was told last: with the transaction that was on its way, if any."""
        self._has_arrived = False
        self._state = await self._repository.open_stream(self.service.id, self._current())
        self._queue.clear()
        self._live = False
        self._seen_up_to = self._state.position
        self._has_to_load_devices = self.service.registration.receive_encryption
        if self._state.transaction_id is not None and self._state.up_to is not None:
            self._seen_up_to = self._state.up_to
            body, _ = await self._body(self._state, max_bytes=None)
            await self._deliver(body)

    async def _next(self) -> bytes:
        """The body of the next transaction, which is written down; waits until there is something to tell."""
        while True:
            await self._wait_for_news()
            if self._behind_since is None:
                self._behind_since = self._queue[0][1] if self._queue else time.monotonic()
            body = await self._begin()
            if body is not None:
                return body

    async def _wait_for_news(self) -> None:
        while True:
            if self._has_to_load_devices:
                await self.devices.load(self.service, self._told_up_to())
                self._has_to_load_devices = False
            await self._read_on()
            if self._queue or self.ephemera or self.devices:
                return
            self._behind_since = None
            self._news.clear()
            is_written = self._state.transaction_id is None
            if not await _is_set(self._news, None if is_written else SETTLE_S):
                await self._handed_over()

    async def _begin(self) -> bytes | None:
        """Makes a transaction of what there is and writes it down; None if there was nothing to it in the end."""
        positions = [position for position, _ in list(self._queue)[:MAX_TRANSACTION_EVENTS]]
        ephemeral = self.ephemera.take()
        extra = ephemeral_json(ephemeral, is_unstable=self.service.registration.ephemeral_is_unstable)
        devices = await self.devices.take(self.service)
        extra |= devices.parts
        if not positions and not extra:
            return None
        wanted = StreamRow(self.service.id, 0, secrets.token_hex(12), 0, positions, encode_extra(extra))
        body, taken = await self._body(wanted, max_bytes=MAX_TRANSACTION_BYTES)
        for _ in range(taken):
            self._queue.popleft()
        up_to = self._up_to(positions[:taken])
        self._has_arrived = False
        self._state = wanted._replace(position=self._told_up_to(), up_to=up_to, events=positions[:taken])
        await self._repository.save_stream(self._state, devices.messages)
        self.devices.taken(devices.messages)
        return body

    async def _read_on(self) -> None:
        """Reads the stream where it was not noted, as far as it is needed for a transaction."""
        while not self._live and len(self._queue) < MAX_TRANSACTION_EVENTS:
            self._behind_since = self._behind_since or time.monotonic()
            found = await self._catch_up.find(self.service, self._seen_up_to, self._current())
            now = time.monotonic()
            self._queue.extend((position, now) for position in found.positions)
            self._seen_up_to = found.up_to
            self._live = found.up_to >= self._current()  # what is published from here on is noted

    def _up_to(self, positions: list[int]) -> int:
        """How far the service has been told once it has the events at these positions, which are no longer queued."""
        if self._queue:
            return positions[-1] if positions else self._told_up_to()
        return self._current() if self._live else self._seen_up_to

    def _told_up_to(self) -> int:
        """How far the service has been told. The last transaction is over whenever this is asked."""
        up_to = self._state.up_to
        return self._state.position if up_to is None else up_to

    async def close(self) -> None:
        """Writes down that the last transaction has arrived, if it has; to be called when `run` is over."""
        if self._has_arrived and self._state.transaction_id is not None:
            await self._handed_over()

    async def _handed_over(self) -> None:
        """Writes down that the last transaction has arrived, and nothing else is on its way."""
        self._state = StreamRow(self.service.id, self._told_up_to())
        await self._repository.save_stream(self._state)

    async def _body(self, wanted: StreamRow, *, max_bytes: int | None) -> tuple[bytes, int]:
        """The JSON of a transaction, and how many of its events are in it, from the first on: as many as may be.

        Events that are no longer there count as being in it.
        """
        events = await self._events.load(wanted.events)
        await self._client_events.prepare(events.values())
        now_ms = self._clock()
        parts: list[bytes] = []
        size = taken = 0
        for position in wanted.events:
            event = events.get(position)
            if event is not None:
                part = self._event_json(event, now_ms)
                size += len(part)
                if parts and max_bytes is not None and size > max_bytes:
                    break
                parts.append(part)
            taken += 1
        rest = b"," + wanted.extra[1:] if len(wanted.extra) > 2 else b"}"
        return b'{"events":[' + b",".join(parts) + b"]" + rest, taken

    def _event_json(self, event: StoredEvent, now_ms: int) -> bytes:
        """An event as clients see it; with its transaction ID if it is what the service itself has sent."""
        is_own = event.device is not None and event.device < 0 and self.service.covers_user(event.pdu.sender)
        device = event.device if is_own else None
        return serialise(event, now_ms=now_ms, device=device, membership=None, with_room_id=True)

    async def _deliver(self, body: bytes) -> None:
        """Sends the transaction that is written down until the service has it."""
        transaction_id = self._state.transaction_id
        assert transaction_id is not None, "a transaction is written down before it is sent"
        while True:
            problem = await self._attempt(transaction_id, body)
            if problem is None:
                break
            self._failures += 1
            self._failed.inc()
            delay_s = retry_delay_s(self._failures)
            if self._failures == LOG_FAILURES_FROM:
                log.warning(
                    "an application service does not take its transactions", service=self.service.id, why=problem
                )
            await self._pause(delay_s)
        if self._failures >= LOG_FAILURES_FROM:
            log.info("an application service takes its transactions again", service=self.service.id)
        self._failures = 0
        self._sent.inc()
        self._has_arrived = True
        self._behind_since = self._queue[0][1] if self._queue else None

    async def _attempt(self, transaction_id: str, body: bytes) -> str | None:
        """Sends it once; returns what went wrong, None if nothing did."""
        try:
            answer = await self._calls.transaction(self.service, transaction_id, body, timeout_s=REQUEST_TIMEOUT_S)
        except ServiceUnreachable as error:
            return str(error)
        return None if answer.status == 200 else f"it answered {answer.status}"

    async def _pause(self, delay_s: float) -> None:
        self._retry.clear()
        await _is_set(self._retry, delay_s)


async def _is_set(event: asyncio.Event, timeout_s: float | None) -> bool:
    """Waits for an event; False if it did not come in time."""
    try:
        async with asyncio.timeout(timeout_s):
            await event.wait()
    except TimeoutError:
        return False
    return True

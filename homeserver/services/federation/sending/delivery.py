"""Brings one transaction to its destination, under the same ID and as often as it takes.

https://spec.matrix.org/v1.19/server-server-api/#transactions
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol
from urllib.parse import quote

from config.schema import Federation
from homeserver.clock import Clock
from homeserver.logs import get_logger
from homeserver.metrics import Metrics
from homeserver.services.federation.sending.queue import MAX_PDUS, DestinationQueue
from homeserver.services.remote import RemoteFailure, RemoteRefused, Transport
from storage.database import CONNECTION_ERRORS

log = get_logger(__name__)

DATABASE_RETRY_MS = 1_000
MAX_REFUSALS = 5
"""How often a transaction is sent that its destination calls wrong; then it is left out, or nothing would follow."""
REFUSING_STATUSES = frozenset((400, 413, 422))
"""What is said of the transaction itself; by other errors a server says that it will not have any for now."""

DELIVERED, FAILED, GIVEN_UP = "delivered", "failed", "given_up"


class Backoff(Protocol):
    """When a server that failed may be tried again."""

    def retry_ts(self, destination: str) -> int:
        """Milliseconds since the epoch; 0 for a server that does not fail."""


class Delivery:
    """Sends to a bounded number of destinations at a time; those that fail have a few places of their own.

    Dead servers, however many, thus never hold up what is for those that answer.
    """

    def __init__(
        self, transport: Transport, backoff: Backoff, metrics: Metrics, clock: Clock, options: Federation
    ) -> None:
        self._transport = transport
        self._backoff = backoff
        self._metrics = metrics
        self._clock = clock
        self._min_wait_ms = options.min_retry_interval_ms
        self._max_wait_ms = options.max_retry_interval_ms
        self._gate = asyncio.Semaphore(options.max_concurrent_destinations)
        self._gate_of_failing = asyncio.Semaphore(max(1, options.max_concurrent_destinations // 5))

    async def deliver(
        self, queue: DestinationQueue, transaction_id: str, make: Callable[[], Awaitable[dict[str, Any]]]
    ) -> bool:
        """Sends what `make` makes, until it is answered. False if the destination will not take it, ever."""
        path = f"/_matrix/federation/v1/send/{quote(transaction_id, safe='')}"
        refusals, wait_ms = 0, self._min_wait_ms
        while True:
            try:
                async with self._gate_for(queue.destination):
                    answer = await self._transport.request(queue.destination, "PUT", path, content=await make())
                _log_errors(queue.destination, answer)
                self._metrics.federation_transactions.labels(DELIVERED).inc()
                return True
            except CONNECTION_ERRORS as error:
                log.warning("nothing can be read to be sent", destination=queue.destination, error=repr(error))
                await asyncio.sleep(DATABASE_RETRY_MS / 1000)
                continue
            except RemoteFailure as failure:
                refusals += isinstance(failure, RemoteRefused) and failure.status in REFUSING_STATUSES
                if refusals >= MAX_REFUSALS:
                    log.warning("a server refuses what it is sent", destination=queue.destination, reason=str(failure))
                    self._metrics.federation_transactions.labels(GIVEN_UP).inc()
                    return False
            self._metrics.federation_transactions.labels(FAILED).inc()
            await self._rest_after_failure(queue, wait_ms)
            wait_ms = min(2 * wait_ms, self._max_wait_ms)

    async def _rest_after_failure(self, queue: DestinationQueue, wait_ms: int) -> None:
        """Waits `wait_ms` at most, with chance in it, or as long as a server that is down is left alone.

        One that refuses what it is sent, and goes on sending itself, is tried again after the shortest wait.
        """
        if (left_alone_ms := self._left_alone_ms(queue.destination)) > 0:
            await self._rest(queue, left_alone_ms)
            return
        queue.recovered.clear()
        queue.is_resting = True
        try:
            await asyncio.sleep(self._min_wait_ms / 1000)
        finally:
            queue.is_resting = False
        rest_ms = wait_ms - secrets.randbelow(wait_ms // 4 + 1) - self._min_wait_ms
        if rest_ms > 0 and not queue.recovered.is_set():
            await self._rest(queue, rest_ms)

    async def wait_until_allowed(self, queue: DestinationQueue) -> None:
        """Waits while a server that fails is to be left alone."""
        if (wait_ms := self._left_alone_ms(queue.destination)) > 0:
            await self._rest(queue, wait_ms)

    def is_failing(self, destination: str) -> bool:
        """Whether a server did not answer the last time."""
        return self._backoff.retry_ts(destination) > 0

    def _gate_for(self, destination: str) -> asyncio.Semaphore:
        return self._gate_of_failing if self.is_failing(destination) else self._gate

    def _left_alone_ms(self, destination: str) -> int:
        return self._backoff.retry_ts(destination) - self._clock()

    async def _rest(self, queue: DestinationQueue, wait_ms: int) -> None:
        """Waits for a time, or until the server is known to be there again."""
        queue.recovered.clear()
        queue.is_resting = True
        try:
            async with asyncio.timeout(wait_ms / 1000):
                await queue.recovered.wait()
        except TimeoutError:
            return
        finally:
            queue.is_resting = False


def _log_errors(destination: str, answer: Any) -> None:
    results: Sequence[tuple[str, Any]] = ()
    if isinstance(answer, dict) and isinstance(answer.get("pdus"), dict):
        results = list(answer["pdus"].items())[:MAX_PDUS]
    for event_id, result in results:
        if isinstance(result, dict) and "error" in result:
            log.info("a server did not take an event", destination=destination, event_id=event_id[:255])

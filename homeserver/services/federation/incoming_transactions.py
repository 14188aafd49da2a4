"""Transactions of other servers, each taken in once.

https://spec.matrix.org/v1.19/server-server-api/#transactions
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence

import orjson

from homeserver.clock import Clock
from homeserver.services.errors import LimitExceeded
from homeserver.services.federation.edus.incoming import IncomingEdus
from homeserver.services.federation.incoming_events import IncomingEvents
from storage.federation import FederationRepository

KEPT_MS = 24 * 3600 * 1000
"""For how long answers are kept: nobody repeats a transaction for longer."""

MAX_RUNNING = 20
"""How many transactions of one server are received at once: one that keeps to the specification sends one at a time."""
RETRY_AFTER_MS = 1000

PRUNE_EVERY_TRANSACTIONS = 1000


class IncomingTransactions:
    """Receives transactions. One that is sent again is answered as before, also while the first is being received."""

    def __init__(
        self, events: IncomingEvents, edus: IncomingEdus, repository: FederationRepository, clock: Clock
    ) -> None:
        self._events = events
        self._edus = edus
        self._repository = repository
        self._clock = clock
        self._running: dict[tuple[str, str], asyncio.Task[bytes]] = {}
        self._running_of: Counter[str] = Counter()
        self._received = 0

    async def receive(self, origin: str, transaction_id: str, pdus: Sequence[object], edus: Sequence[object]) -> bytes:
        """The answer, {"pdus": {event ID: {} or {"error": …}}}, once everything is durable. Raises LimitExceeded."""
        key = (origin, transaction_id)
        task = self._running.get(key)
        if task is None:
            if self._running_of[origin] >= MAX_RUNNING:
                raise LimitExceeded(RETRY_AFTER_MS)
            self._running_of[origin] += 1
            task = self._running[key] = asyncio.create_task(self._receive_once(origin, transaction_id, pdus, edus))
            task.add_done_callback(lambda _: self._ended(key))
        # Whoever asked may go away: what was begun is brought to its end, for when they ask again.
        return await asyncio.shield(task)

    def _ended(self, key: tuple[str, str]) -> None:
        del self._running[key]
        self._running_of[key[0]] -= 1
        if not self._running_of[key[0]]:
            del self._running_of[key[0]]

    async def _receive_once(
        self, origin: str, transaction_id: str, pdus: Sequence[object], edus: Sequence[object]
    ) -> bytes:
        answer = await self._repository.load_answer(origin, transaction_id)
        if answer is not None:
            return answer
        answer = orjson.dumps({"pdus": await self._events.receive(origin, pdus)})
        await self._edus.receive(origin, edus)
        now_ms = self._clock()
        await self._repository.persist_answer(origin, transaction_id, answer, now_ms)
        self._received += 1
        if self._received % PRUNE_EVERY_TRANSACTIONS == 0:
            await self._repository.prune_answers(now_ms - KEPT_MS)
        return answer

"""Queues digests when they are due, and throws away what is kept no longer."""

from __future__ import annotations

import asyncio
import logging

from appservices.summary_bot.clock import HOUR_MS, MINUTE_MS, Clock
from appservices.summary_bot.encryption.parts import Encryption
from appservices.summary_bot.matrix.client import MatrixFailure
from appservices.summary_bot.schedules.keeping import Keeper
from appservices.summary_bot.schedules.times import next_time
from appservices.summary_bot.storage.database import CONNECTION_ERRORS
from appservices.summary_bot.storage.jobs import NewJob
from appservices.summary_bot.storage.schedules import ScheduleRepository, ScheduleRow
from appservices.summary_bot.work.queue import Workers

LONGEST_WAIT_MS = 15 * MINUTE_MS
MAX_LATE_MS = 6 * HOUR_MS
"""A digest that is later than this, because the bot was down, is left out."""

log = logging.getLogger(__name__)


class Timer:
    """One loop for all that happens by the clock."""

    def __init__(
        self,
        schedules: ScheduleRepository,
        keeper: Keeper,
        workers: Workers,
        clock: Clock,
        *,
        encryption: Encryption | None,
    ) -> None:
        self._schedules = schedules
        self._keeper = keeper
        self._workers = workers
        self._clock = clock
        self._encryption = encryption
        self._purged_at = 0
        self._changed = asyncio.Event()

    def change(self) -> None:
        """Says that a digest was ordered: it may be the next one due."""
        self._changed.set()

    async def run(self) -> None:
        """Works until cancelled."""
        while True:
            self._changed.clear()
            wait_ms = LONGEST_WAIT_MS
            try:
                await self.tick()
                due = await self._schedules.load_next_due()
                if due is not None:
                    wait_ms = min(wait_ms, max(0, due - self._clock()))
            except (*CONNECTION_ERRORS, MatrixFailure) as error:
                log.warning("what is due by the clock has to wait: %s", type(error).__name__)
                wait_ms = MINUTE_MS
            try:
                async with asyncio.timeout(wait_ms / 1000 + 0.01):
                    await self._changed.wait()
            except TimeoutError:
                continue

    async def tick(self) -> None:
        """Does what is due now."""
        now = self._clock()
        if await self._schedules.queue_due(now, lambda row: self._plan(row, now)):
            await self._workers.wake()
        if now - self._purged_at > HOUR_MS:
            self._purged_at = now
            await self._keeper.purge(now)
            if self._encryption is not None:
                await self._encryption.purge(now)

    def _plan(self, row: ScheduleRow, now: int) -> tuple[NewJob, int]:
        """The job for a digest that is due, and when the next is."""
        kind = "digest" if now - row.next_ts <= MAX_LATE_MS else "late"
        key = f"digest-{row.schedule}-{row.next_ts}"
        job = NewJob(kind, row.room_id, row.user_id, key, b"{}", now, now)
        return job, next_time(now, row.every, row.minute_of_day, row.zone)

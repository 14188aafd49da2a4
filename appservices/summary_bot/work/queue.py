"""Takes jobs off the queue and does them, a few at a time. Nothing else of the bot waits for them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass

from appservices.summary_bot.clock import SECOND_MS, Clock
from appservices.summary_bot.matrix.client import MatrixFailure
from appservices.summary_bot.storage.database import CONNECTION_ERRORS
from appservices.summary_bot.storage.jobs import MAX_ATTEMPTS, QUESTIONS, Job, JobRepository

MAX_WAIT_S = 300.0
RETRY_MS = 2 * SECOND_MS
MAX_RETRY_MS = 60 * SECOND_MS
RECONNECT_S = 2.0

Handler = Callable[[Job], Awaitable[None]]
Failed = Callable[[Job, str], Awaitable[None]]

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Running:
    job: Job
    task: asyncio.Task[None]


class Workers:
    """`handle` does a job, `failed` tells the asker, with the line that says why, if it could not be done; `cancelled`
    undoes what was done of one that is not to be done any more."""

    def __init__(
        self,
        jobs: JobRepository,
        handle: Handler,
        failed: Failed,
        cancelled: Handler,
        *,
        clock: Clock,
        workers: int,
        timeout_ms: int,
    ) -> None:
        self._jobs = jobs
        self._handle = handle
        self._failed = failed
        self._cancelled = cancelled
        self._clock = clock
        self._workers = workers
        self._timeout_s = timeout_ms / 1000
        self._wake = asyncio.Condition()
        self._running: dict[int, _Running] = {}
        self._news = 0

    async def run(self) -> None:
        """Works until cancelled. One worker more does no questions: what is gone is taken back, and invitations are
        followed, however long models take."""
        await self._jobs.release_all()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._work(housekeeping=True))
            for _ in range(self._workers):
                group.create_task(self._work(housekeeping=False))

    async def wake(self) -> None:
        """Says that there is something new in the queue."""
        self._news += 1
        async with self._wake:
            self._wake.notify_all()

    def cancel(self, event_ids: Collection[str], gone: Collection[tuple[str, str]]) -> None:
        """Stops what was asked by messages that are redacted, or by people who have left."""
        for running in self._running.values():
            job = running.job
            if job.kind in QUESTIONS and (job.event_id in event_ids or (job.room_id, job.asker) in gone):
                running.task.cancel()

    async def _work(self, *, housekeeping: bool) -> None:
        while True:
            try:
                news = self._news
                job = await self._jobs.claim(self._clock(), housekeeping=housekeeping)
                if job is None:
                    await self._wait(news)
                    continue
                await self._do(job)
                await self.wake()  # of whoever asked, the next question may be done now
            except CONNECTION_ERRORS as error:
                log.warning("the database cannot be reached: %s", type(error).__name__)
                await asyncio.sleep(RECONNECT_S)

    async def _wait(self, news: int) -> None:
        """Until something new comes (or has come since `news` was read), or the next job that is put off is due."""
        now = self._clock()
        next_run = await self._jobs.load_next_run(now)
        async with self._wake:
            if self._news != news:
                return
            wait_s = MAX_WAIT_S if next_run is None else min(MAX_WAIT_S, max(0.01, (next_run - now) / 1000))
            try:
                async with asyncio.timeout(wait_s):
                    await self._wake.wait()
            except TimeoutError:
                return

    async def _do(self, job: Job) -> None:
        """Does a job in a task of its own, which `cancel` can end without ending the worker."""
        task = asyncio.create_task(self._attempt(job))
        self._running[job.job] = _Running(job, task)
        try:
            await asyncio.wait([task])
        finally:
            del self._running[job.job]
            if not task.done():  # the bot stops: the job is left as it is, for the next start
                task.cancel()
                await asyncio.wait([task])
        if task.cancelled():
            await self._take_back(job)
        elif (error := task.exception()) is not None:
            if isinstance(error, CONNECTION_ERRORS):
                await self._release(job)
                return
            log.error("job %s (%s) failed", job.job, job.kind, exc_info=error)
            await self._give_up(job, "failed")

    async def _take_back(self, job: Job) -> None:
        """Ends a question that nobody is to get an answer to any more."""
        try:
            await self._cancelled(job)
        except MatrixFailure as failure:
            log.warning("job %s: what was shown of the answer could not be taken back: %s", job.job, failure)
        finally:
            await self._jobs.finish(job.job)

    async def _release(self, job: Job) -> None:
        """Puts a job back that the loss of the database interrupted, as soon as the database is there again."""
        while True:
            try:
                await self._jobs.release(job.job, run_at=self._clock() + RETRY_MS)
                return
            except CONNECTION_ERRORS as error:
                log.warning("the database cannot be reached: %s", type(error).__name__)
                await asyncio.sleep(RECONNECT_S)

    async def _attempt(self, job: Job) -> None:
        if job.attempts > MAX_ATTEMPTS:
            await self._give_up(job, "failed")
            return
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._handle(job)
        except TimeoutError:
            await self._give_up(job, "timed_out")
            return
        except MatrixFailure as failure:
            log.warning("job %s (%s): %s", job.job, job.kind, failure)
            if failure.is_temporary and job.attempts < MAX_ATTEMPTS:
                delay_ms = min(MAX_RETRY_MS, RETRY_MS * 2 ** (job.attempts - 1))
                await self._jobs.release(job.job, run_at=self._clock() + delay_ms)
            else:
                await self._give_up(job, "failed")
            return
        await self._jobs.finish(job.job)

    async def _give_up(self, job: Job, line: str) -> None:
        """Takes a job off the queue, and tells the asker if that can be done."""
        try:
            if job.kind in QUESTIONS:
                await self._failed(job, line)
        except MatrixFailure as failure:
            log.warning("job %s: nobody could be told that it failed: %s", job.job, failure)
        finally:
            await self._jobs.finish(job.job)

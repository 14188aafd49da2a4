"""Sends what the database says is due, again and again until it is sent: a dead SMTP server delays, and loses nothing.

The queue is in the database, as the times at which mails are due. What they say is written when they are sent.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from typing import Final, Generic, Protocol, TypeVar

from config.email import Email
from homeserver.clock import Clock
from homeserver.logs import get_logger
from homeserver.metrics import Metrics
from homeserver.services.email.transport import MailFailed, MailRefused, MailUnreachable
from storage.database import CONNECTION_ERRORS, StorageError

log = get_logger(__name__)

BATCH_MAILS: Final = 16
MAX_DOUBLINGS: Final = 20
MAX_SLEEP_MS: Final = 60_000
RETRY_AFTER_S: Final = 1.0

T = TypeVar("T")


class Work(Protocol[T]):
    """The mails of one kind. All times are in milliseconds."""

    kind: str

    async def load_due(self, limit: int) -> Sequence[T]:
        """What is due now."""

    async def load_next_due_ts(self) -> int | None:
        """When the next is due; None if nothing is."""

    async def send(self, item: T) -> bool:
        """Sends one, if it is still wanted, and writes that down; whether it was. Raises MailFailed, MailRefused."""

    async def give_up(self, item: T) -> None:
        """Writes down that one is not to be sent."""

    async def postpone(self, item: T, wait_ms: int) -> None:
        """Writes down that one is to be tried later, after a failure."""

    def failures(self, item: T) -> int:
        """How often one has failed."""


class MailQueue(Generic[T]):
    """Sends mails of one kind, some at a time."""

    def __init__(self, work: Work[T], clock: Clock, metrics: Metrics, config: Email) -> None:
        self._work = work
        self._clock = clock
        self._metrics = metrics
        self._config = config
        self._wake = asyncio.Event()
        self._failures = 0

    def wake(self) -> None:
        """Says that something may be due sooner than the queue knows."""
        self._wake.set()

    async def run(self) -> None:
        """Sends what is due, until cancelled."""
        while True:
            self._wake.clear()
            try:
                await self._send_due()
                self._failures = 0
                wait_ms = await self._wait_ms()
            except MailUnreachable as error:
                wait_ms = self.retry_after_ms(self._failures)
                self._failures += 1
                log.warning("no mail can be sent", kind=self._work.kind, failures=self._failures, reason=str(error))
                await asyncio.sleep(wait_ms / 1000)  # nobody wakes it: the server is down for all mails
                continue
            except (*CONNECTION_ERRORS, StorageError) as error:
                log.warning("mails wait for the database", kind=self._work.kind, error=repr(error))
                await asyncio.sleep(RETRY_AFTER_S)
                continue
            except Exception:
                log.exception("mails could not be looked at", kind=self._work.kind)
                await asyncio.sleep(MAX_SLEEP_MS / 1000)
                continue
            try:
                async with asyncio.timeout(wait_ms / 1000):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def _wait_ms(self) -> float:
        due_ts = await self._work.load_next_due_ts()
        return MAX_SLEEP_MS if due_ts is None else min(max(due_ts - self._clock(), 0), MAX_SLEEP_MS)

    async def _send_due(self) -> None:
        """Tries all that is due in a batch. Raises MailUnreachable when the server is away."""
        items = await self._work.load_due(BATCH_MAILS)
        outcomes = await asyncio.gather(*(self._try(item) for item in items), return_exceptions=True)
        for failure in [outcome for outcome in outcomes if outcome is not None]:
            raise failure

    async def _try(self, item: T) -> None:
        work = self._work
        try:
            if await work.send(item):
                self._metrics.mails.labels(work.kind, "sent").inc()
        except MailUnreachable:
            self._metrics.mails.labels(work.kind, "failed").inc()
            raise
        except MailFailed as error:
            self._metrics.mails.labels(work.kind, "failed").inc()
            log.info("a mail was not taken", kind=work.kind, failures=work.failures(item) + 1, reason=str(error))
            await work.postpone(item, self.retry_after_ms(work.failures(item)))
        except MailRefused as error:
            self._metrics.mails.labels(work.kind, "refused").inc()
            log.info("a mail was refused", kind=work.kind, reason=str(error))
            await work.give_up(item)
        except (*CONNECTION_ERRORS, StorageError):
            raise
        except Exception:
            log.exception("a mail could not be written", kind=work.kind)
            await work.postpone(item, self._config.max_retry_interval_ms)

    def retry_after_ms(self, failures: int) -> int:
        """How long to wait after so many failures before: twice as long each time, by chance up to a half less."""
        config = self._config
        wait_ms: int = min(
            config.min_retry_interval_ms * 2 ** min(failures, MAX_DOUBLINGS), config.max_retry_interval_ms
        )
        return max(1, wait_ms * (500 + secrets.randbelow(501)) // 1000)

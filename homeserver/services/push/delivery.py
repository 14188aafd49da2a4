"""Delivering pushes: for each pusher one after the other, in order, again and again until they get there or are stale.

https://spec.matrix.org/v1.19/push-gateway-api/#homeserver-behaviour
"""

from __future__ import annotations

import asyncio
import secrets

from config.schema import Push
from homeserver.clock import Clock
from homeserver.logs import get_logger
from homeserver.metrics import Metrics
from homeserver.services.push.gateway import PushFailed, PushGateway
from homeserver.services.push.notification import Composed, Notifications
from homeserver.services.push.pushers import HTTP, Item, Pusher, Pushers, UserPushers
from storage.database import CONNECTION_ERRORS

log = get_logger(__name__)

MAX_ITEMS = 100
"""How many events wait for one pusher; where there are more, only the newest is pushed."""
MAX_DOUBLINGS = 32


class Delivery:
    """Has a task for each pusher that has something to push."""

    def __init__(
        self,
        gateway: PushGateway,
        pushers: Pushers,
        notifications: Notifications,
        clock: Clock,
        metrics: Metrics,
        config: Push,
    ) -> None:
        self._gateway = gateway
        self._pushers = pushers
        self._notifications = notifications
        self._clock = clock
        self._metrics = metrics
        self._config = config
        self._tasks: set[asyncio.Task[None]] = set()
        self.is_unsaved = False
        """Whether pushers have come further since this was last set to False."""

    def push(self, user: UserPushers, item: Item, *, only_late: bool = False) -> None:
        """Lets a user's pushers push an event, which is newer than all before; `only_late`: those that lag behind it.

        Given twice, it is pushed once.
        """
        for pusher in user.pushers:
            is_late = pusher.saved_lag is not None and pusher.saved_lag < item.position
            if pusher.row.kind == HTTP and item.position > pusher.last_position and (is_late or not only_late):
                pusher.last_position = item.position
                if len(pusher.items) >= MAX_ITEMS:
                    self._metrics.pushes.labels("dropped").inc(len(pusher.items))
                    pusher.items.clear()
                pusher.items.append(item)
                self._start(user, pusher)

    def tell_count(self, user: UserPushers, *, only_known: bool = False) -> None:
        """Lets a user's pushers tell how much is unread, if they have told otherwise before.

        `only_known`: but those of which it is not known what they have told, and that are not about to tell it.
        """
        for pusher in user.pushers:
            is_known = pusher.told_count is not None or pusher.is_busy
            if pusher.row.kind == HTTP and pusher.wants_counts and (is_known or not only_known):
                pusher.is_count_due = True
                self._start(user, pusher)

    def _start(self, user: UserPushers, pusher: Pusher) -> None:
        self.is_unsaved = True
        if not pusher.is_busy:
            pusher.is_busy = True
            task = asyncio.create_task(self._deliver(user, pusher), name=f"pusher {pusher.row.pusher}")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def stop(self) -> None:
        """Gives up what is under way: it is pushed after the next start."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _deliver(self, user: UserPushers, pusher: Pusher) -> None:
        """Pushes until nothing is left."""
        try:
            while pusher.items or pusher.is_count_due:
                item = pusher.items[0] if pusher.items else None
                try:
                    await self._deliver_one(user, pusher, item)
                except PushFailed as failure:
                    await asyncio.sleep(self._count_failure(pusher, str(failure), failure.retry_after_ms) / 1000)
                    continue
                except CONNECTION_ERRORS as error:
                    await asyncio.sleep(self._count_failure(pusher, repr(error), None) / 1000)
                    continue
                except Exception:
                    log.exception("a push could not be made", pusher=pusher.row.pusher)
                if item is not None and pusher.items and pusher.items[0] is item:
                    pusher.items.popleft()
                self.is_unsaved = True
        finally:
            pusher.is_busy = False

    async def _deliver_one(self, user: UserPushers, pusher: Pusher, item: Item | None) -> None:
        """Pushes an event (None: the count), if that is still to be told. Raises PushFailed."""
        await self._pushers.load(user.user_id)  # which finds out if others have removed it
        if pusher.is_gone:
            return
        composed: Composed | None
        if item is None:
            pusher.is_count_due = False
            composed = await self._notifications.of_count(user, pusher)
        elif self._clock() - item.known_ts > self._config.give_up_after_ms:
            self._metrics.pushes.labels("dropped").inc()
            return
        else:
            composed = await self._notifications.of_event(user, pusher, item)
        if composed is None or pusher.is_gone:
            return
        try:
            rejected = await self._gateway.notify(pusher.data["url"], composed.body)
        except BaseException:
            pusher.is_count_due = pusher.is_count_due or (item is None and not pusher.is_gone)
            raise
        pusher.failures = 0
        if pusher.row.pushkey in rejected:
            self._metrics.pushes.labels("rejected").inc()
            log.info("a pushkey was rejected", app_id=pusher.row.app_id)
            await self._pushers.delete(user.user_id, pusher.row.app_id, pusher.row.pushkey)
            return
        self._metrics.pushes.labels("sent").inc()
        if item is not None:
            self._metrics.push_lag_seconds.observe(max(0, self._clock() - item.known_ts) / 1000)
        if composed.unread is not None:
            pusher.told_count = composed.unread

    def _count_failure(self, pusher: Pusher, reason: str, retry_after_ms: int | None) -> float:
        """Notes a failure; returns how long (ms) to wait: twice as long each time, by chance up to a half less."""
        self._metrics.pushes.labels("failed").inc()
        log.info("a push failed", app_id=pusher.row.app_id, failures=pusher.failures + 1, reason=reason)
        config = self._config
        wait_ms: int = config.min_retry_interval_ms * 2 ** min(pusher.failures, MAX_DOUBLINGS)
        pusher.failures += 1
        wait_ms = min(max(wait_ms, retry_after_ms or 0), config.max_retry_interval_ms)
        return wait_ms * (0.5 + secrets.randbelow(1001) / 2000)

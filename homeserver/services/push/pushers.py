"""Pushers: set, listed and removed; those of users in memory as delivering them finds them.

https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3pushersset
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Iterable
from typing import Any, NamedTuple

import orjson

from homeserver.metrics import Metrics
from homeserver.services.errors import MatrixError
from homeserver.services.rooms.room import Room
from storage.pushers import PusherRepository, PusherRow

HTTP, EMAIL = "http", "email"


class Item(NamedTuple):
    """An event to be pushed: where it is, since when it is known (ms), and the tweaks that its rule gives it."""

    position: int
    room_id: str
    known_ts: int
    tweaks: dict[str, Any]


class Pusher:
    """A pusher with what it has still to push.

    `is_count_due`: the count of unread messages has changed, and may have to be told; `told_count` is the one that was
    told last, None if that is not known. `last_position` is that of the newest event that it was given. `failures`
    counts those since the last success. `saved_lag` is what the database says of how far it has come
    (`PusherRow.pushed_up_to`). `mail_due_ts` is when one of kind `email` is to look at what is unread (None: nothing
    has happened since it began its last look), `is_mailing` whether it does so now.
    """

    __slots__ = (
        "data",
        "failures",
        "is_busy",
        "is_count_due",
        "is_gone",
        "is_mailing",
        "items",
        "last_position",
        "mail_due_ts",
        "row",
        "saved_lag",
        "told_count",
        "wants_counts",
    )

    def __init__(self, row: PusherRow) -> None:
        self.items: deque[Item] = deque()
        self.is_count_due = False
        self.told_count: int | None = None
        self.last_position = 0
        self.failures = row.mail_failures
        self.is_busy = False
        self.is_gone = False
        self.is_mailing = False
        self.mail_due_ts = row.mail_due_ts
        self.saved_lag = row.pushed_up_to
        self.set_row(row)

    def set_row(self, row: PusherRow) -> None:
        """Takes in what the pusher has been set to."""
        self.row = row
        self.data: dict[str, Any] = orjson.loads(row.data)
        # https://github.com/matrix-org/matrix-spec-proposals/pull/4076, which clients use already
        self.wants_counts = self.data.get("org.matrix.msc4076.disable_badge_count") is not True


class UserPushers:
    """A user's pushers, and the unread counts of their rooms: those that are not 0, but where `recount` says more.

    `counts` is None as long as it is not known in which rooms there is anything unread.
    """

    __slots__ = ("counts", "is_doubtful", "pushers", "recount", "user_id")

    def __init__(self, user_id: str, pushers: Iterable[Pusher]) -> None:
        self.user_id = user_id
        self.pushers = list(pushers)
        self.counts: dict[str, int] | None = None
        self.recount: set[str] = set()
        self.is_doubtful = False
        """Whether some may have been removed by others: see in the database before pushing."""

    @property
    def is_idle(self) -> bool:
        """Whether nothing would be lost if this were loaded anew."""
        return not any(
            p.items or p.is_count_due or p.is_busy or p.is_mailing or p.saved_lag is not None for p in self.pushers
        )


class Pushers:
    """Knows who has pushers (all IDs are in memory), and the pushers of those who had news lately (a bounded cache).

    `rooms` gives the rooms in memory, which have to know which of their members have pushers.
    """

    def __init__(
        self,
        repository: PusherRepository,
        metrics: Metrics,
        rooms: Callable[[], Iterable[Room]],
        *,
        max_users: int,
        max_per_user: int,
    ) -> None:
        self._repository = repository
        self._rooms = rooms
        self._max_users = max_users
        self._max_per_user = max_per_user
        self.users: set[str] = set()
        self._loaded: OrderedDict[str, UserPushers] = OrderedDict()
        self._changes = 0
        self._figures = metrics.cache("pushers", lambda: len(self._loaded))

    async def open(self) -> None:
        """Finds out who has pushers."""
        self.users = await self._repository.load_users()

    def in_memory(self) -> Collection[UserPushers]:
        """Those users whose pushers are in memory."""
        return self._loaded.values()

    def known(self, user_id: str) -> UserPushers | None:
        """A user's pushers, if they are in memory."""
        return self._loaded.get(user_id)

    async def load(self, user_id: str) -> UserPushers | None:
        """A user's pushers, from memory or from the database; None if there are none."""
        while user_id in self.users:
            if (user := self._loaded.get(user_id)) is not None:
                if user.is_doubtful:
                    await self._reconcile(user)
                    continue
                self._loaded.move_to_end(user_id)
                self._figures.hits += 1
                return user
            self._figures.misses += 1
            seen = self._changes
            rows = await self._repository.load_of_user(user_id)
            if seen != self._changes or user_id in self._loaded:
                continue
            if not rows:
                self._set_users(user_id, has_pushers=False)
                return None
            return self._keep(UserPushers(user_id, [Pusher(row) for row in rows]))
        return None

    async def _reconcile(self, user: UserPushers) -> None:
        seen = self._changes
        there = {row.pusher for row in await self._repository.load_of_user(user.user_id)}
        if seen == self._changes:
            user.is_doubtful = False
            self._drop(user.user_id, lambda pusher: pusher.row.pusher not in there)

    def _keep(self, user: UserPushers) -> UserPushers:
        self._loaded[user.user_id] = user
        if len(self._loaded) > self._max_users:
            for user_id, other in self._loaded.items():
                if other is not user and other.is_idle:
                    del self._loaded[user_id]
                    break
        return user

    async def rows(self, user_id: str) -> list[PusherRow]:
        """A user's pushers as they were set."""
        return await self._repository.load_of_user(user_id)

    async def put(self, row: PusherRow, *, append: bool) -> None:
        """Makes or changes a pusher; without `append`, other users lose theirs with this app ID and pushkey.

        Raises M_LIMIT_EXCEEDED (400) if the user would have too many.
        """
        made, others = await self._repository.upsert(row, append=append, max_per_user=self._max_per_user)
        if made is None:
            raise MatrixError(400, "M_LIMIT_EXCEEDED", f"More than {self._max_per_user} pushers")
        for user_id in others:
            self._drop(user_id, lambda pusher: (pusher.row.app_id, pusher.row.pushkey) == (row.app_id, row.pushkey))
        self._changes += 1
        self._set_users(row.user_id, has_pushers=True)
        user = self._loaded.get(row.user_id)
        if user is None:
            return
        for pusher in user.pushers:
            if pusher.row.pusher == made.pusher:
                pusher.set_row(made)
                return
        user.pushers.append(Pusher(made))

    async def delete(self, user_id: str, app_id: str, pushkey: str) -> None:
        """Removes a pusher, if it is there."""
        await self._repository.delete(user_id, app_id, pushkey)
        self._drop(user_id, lambda pusher: (pusher.row.app_id, pusher.row.pushkey) == (app_id, pushkey))

    def devices_ended(self, user_id: str, devices: set[int]) -> None:
        """Lets go of the pushers of devices that are gone, and with them of what they had still to push."""
        self._drop(user_id, lambda pusher: pusher.row.device in devices)

    def changed_elsewhere(self, user_id: str | None) -> None:
        """Notes that others may have removed pushers of a user; None: of anybody."""
        self._changes += 1
        for user in self._loaded.values() if user_id is None else (self._loaded.get(user_id),):
            if user is not None:
                user.is_doubtful = True

    def _drop(self, user_id: str, is_gone: Callable[[Pusher], bool]) -> None:
        self._changes += 1
        if (user := self._loaded.get(user_id)) is None:
            return
        for pusher in user.pushers:
            if is_gone(pusher):
                pusher.is_gone = True
                pusher.items.clear()
                pusher.is_count_due = False
        user.pushers = [pusher for pusher in user.pushers if not pusher.is_gone]
        if not user.pushers:
            del self._loaded[user_id]  # whether there is none at all, the next look in the database tells

    def _set_users(self, user_id: str, *, has_pushers: bool) -> None:
        (self.users.add if has_pushers else self.users.discard)(user_id)
        for room in self._rooms():
            if room.push_members is not None:
                if has_pushers and user_id in room.local_joined:
                    room.push_members.add(user_id)
                elif not has_pushers:
                    room.push_members.discard(user_id)

"""Pushers of kind `email`: some minutes after something notified a user, they are sent what they have not read by then.

1. The first event that notifies a user sets their pusher to look some minutes later. What follows changes nothing.
2. When it looks, it tells of everything that is unread, in one mail (`digests`). A room of which it has told before,
   and which was not read since, waits: longer each time, up to a day.
3. A pusher that has looked is set for the first room that waits, and by the next event, if that is sooner.

The times are in the database: a mail that was due when the server stopped, or while the SMTP server was down, is late.
What has been told is known by the position, so that nothing is told of twice, unless the SMTP server's answer is lost,
or the server dies before its own commit: then the second mail has the Message-ID of the first.

https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3pushersset
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from config.email import Email
from homeserver.clock import Clock
from homeserver.services.email.links import Links
from homeserver.services.email.transport import MailTransport
from homeserver.services.email.writing import Writer
from homeserver.services.push.digests import Digest, Digests
from homeserver.services.push.pushers import EMAIL, Pusher, Pushers, UserPushers
from storage.accounts import AccountRepository
from storage.email_pushers import DuePusher, EmailPusherRepository, MailedRoom
from storage.threepids import ThreepidRepository

GROWTH: Final = 6
"""How many times as long a room waits with each mail that told of it in vain."""
MAX_DOUBLINGS: Final = 8
"""Mails that were refused for good make the next one wait: ten minutes become two days."""


class EmailPushers:
    """Has users sent what they have not read: work for a `MailQueue`."""

    kind = "notification"

    def __init__(
        self,
        repository: EmailPusherRepository,
        pushers: Pushers,
        accounts: AccountRepository,
        threepids: ThreepidRepository,
        digests: Digests,
        links: Links,
        writer: Writer,
        transport: MailTransport,
        clock: Clock,
        config: Email,
    ) -> None:
        self._repository = repository
        self._pushers = pushers
        self._accounts = accounts
        self._threepids = threepids
        self._digests = digests
        self._links = links
        self._writer = writer
        self._transport = transport
        self._clock = clock
        self._config = config
        self.on_armed: Callable[[], None] = lambda: None

    async def note(self, user: UserPushers, position: int) -> None:
        """Notes that an event notifies a user."""
        for pusher in user.pushers:
            if pusher.row.kind != EMAIL:
                continue
            due_ts = self._clock() + self._config.notify_after_ms * 2 ** min(pusher.failures, MAX_DOUBLINGS)
            if pusher.mail_due_ts is None or pusher.mail_due_ts > due_ts:  # it waits for a room that was told in vain
                await self._repository.arm(pusher.row.pusher, due_ts, after=position - 1)
                pusher.mail_due_ts = due_ts
                self.on_armed()

    # Work for the queue.

    async def load_due(self, limit: int) -> Sequence[DuePusher]:
        """The pushers that are to look now."""
        return await self._repository.load_due(self._clock(), limit=limit)

    async def load_next_due_ts(self) -> int | None:
        """When the next is to look."""
        return await self._repository.load_next_due_ts()

    async def send(self, item: DuePusher) -> bool:
        """Looks, and sends a mail if there is anything to tell. Raises as the transport does."""
        pusher = await self._load(item)
        if pusher is None:
            return False
        # What notifies the user from now on sets the pusher anew: it may be too late for this mail.
        pusher.is_mailing, pusher.mail_due_ts = True, None
        try:
            is_sent, next_due_ts = await self._tell(pusher, item)
        except BaseException:
            if pusher.mail_due_ts is None:
                pusher.mail_due_ts = item.due_ts
            raise
        finally:
            pusher.is_mailing = False
        if pusher.mail_due_ts is None:
            pusher.mail_due_ts = next_due_ts
        return is_sent

    async def give_up(self, item: DuePusher) -> None:
        """Notes that a mail was refused for good: the next event is told of, but later each time."""
        await self._finish(item, None, item.failures + 1)

    async def postpone(self, item: DuePusher, wait_ms: int) -> None:
        """Notes when to try again."""
        await self._finish(item, self._clock() + wait_ms, item.failures + 1)

    def failures(self, item: DuePusher) -> int:
        """How often sending has failed."""
        return item.failures

    async def unsubscribe(self, pusher: int) -> None:
        """Removes a pusher, by the link in its mails."""
        if (found := await self._repository.delete(pusher)) is not None:
            await self._pushers.delete(*found)

    async def _load(self, item: DuePusher) -> Pusher | None:
        """The pusher, if it is still there."""
        user = await self._pushers.load(item.user_id)
        found = [] if user is None else [one for one in user.pushers if one.row.pusher == item.pusher]
        return found[0] if found else None

    async def _tell(self, pusher: Pusher, item: DuePusher) -> tuple[bool, int | None]:
        """Sends what there is to be told: whether there was anything, and when to look again, which is committed."""
        user_id, address = item.user_id, pusher.row.pushkey
        if await self._threepids.load_user_of("email", address) != user_id:
            await self.unsubscribe(item.pusher)  # the address is not theirs any more, or they are not here any more
            return False, None
        account = await self._accounts.load_user(user_id)
        if account is None or account.locked:
            await self._repository.finish(item.pusher, item.due_ts, None, (), failures=0)
            return False, None
        after, told = await self._repository.load_told(item.pusher)
        now = self._clock()
        digest = await self._digests.compose(user_id, after, {room.room: room for room in told}, now)
        is_sent = bool(digest.rooms) and not pusher.is_gone
        if is_sent:
            await self._send(pusher, digest)
        now_told = [self._told(room.room, room.newest, room.before, now) for room in digest.rooms]
        await self._repository.finish(item.pusher, item.due_ts, digest.next_due_ts, now_told, failures=0)
        pusher.failures = 0
        return is_sent, digest.next_due_ts

    async def _send(self, pusher: Pusher, digest: Digest) -> None:
        unsubscribe = self._links.unsubscribe(pusher.row.pusher)
        values = {
            "user_id": pusher.row.user_id,
            "client_url": self._config.client_base_url,
            "unsubscribe": unsubscribe,
            **digest.values(),
        }
        headers = {  # https://www.rfc-editor.org/rfc/rfc8058
            "List-Unsubscribe": f"<{unsubscribe}>",
            "List-Unsubscribe-Post": "List-Unsubscribe=One-Click",
        }
        # The time at which it was due may be another if it is sent again; what it tells of is not.
        about = f"{pusher.row.pusher} {sorted((room.room, room.newest) for room in digest.rooms)}"
        address = pusher.row.pushkey
        mail = self._writer.write(
            "notifications", address, values, about=about, language=pusher.row.lang, headers=headers
        )
        await self._transport.send(address, mail)

    def _told(self, room: int, up_to: int, before: MailedRoom | None, now: int) -> MailedRoom:
        """What is remembered of a room that is told of; `before` if that is in vain until now."""
        interval_ms = self._config.notify_after_ms if before is None else before.interval_ms * GROWTH
        return MailedRoom(room, up_to, now, min(interval_ms, self._config.max_notify_interval_ms))

    async def _finish(self, item: DuePusher, next_due_ts: int | None, failures: int) -> None:
        await self._repository.finish(item.pusher, item.due_ts, next_due_ts, (), failures=failures)
        if (user := self._pushers.known(item.user_id)) is not None:
            for pusher in user.pushers:
                if pusher.row.pusher == item.pusher and pusher.mail_due_ts == item.due_ts:
                    pusher.mail_due_ts, pusher.failures = next_due_ts, failures

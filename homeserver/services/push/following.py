"""What is to be pushed: follows what is published, and finds out whom of those with pushers it notifies.

1. An observer notes the events of rooms in which somebody has pushers: a look at two sets, and no more, for the sender.
2. A task takes them up in order. Push rules are evaluated once for all who have the same, and once for each who is
   singled out.
3. Pushers that have something to push get tasks of their own (`delivery`). Those of kind `email` are set to look at
   what is unread some minutes later (`email_pushers`).
4. Every few seconds it is written down how far that has come. What was under way when the server stopped is taken up
   again at the next start: gateways know a repeated event by its ID.

https://spec.matrix.org/v1.19/client-server-api/#server-behaviour-15
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from homeserver.clock import Clock
from homeserver.logs import get_logger
from homeserver.metrics import Metrics
from homeserver.services.push.delivery import MAX_ITEMS, Delivery
from homeserver.services.push.pushers import Item, Pusher, Pushers, UserPushers
from homeserver.services.push.rules import UsersRules
from homeserver.services.rooms.event_cache import EventCache
from homeserver.services.rooms.registry import RoomRegistry
from homeserver.services.rooms.room import Room
from homeserver.services.rooms.user_rooms import UserRooms
from homeserver.services.stream import Stream
from matrix.push_rules import Outcome, PushingRules
from storage.database import CONNECTION_ERRORS, StorageError
from storage.events import StoredEvent
from storage.pushers import PusherRepository
from storage.unread import UnreadRepository

if TYPE_CHECKING:  # who sends no mails need not have what writes them in memory
    from homeserver.services.push.email_pushers import EmailPushers

log = get_logger(__name__)

MAX_PENDING_EVENTS = 10_000
"""How many events wait to be looked at. Where there are more, the oldest are not: newer ones tell the same counts."""
MAX_REPLAYED_EVENTS = 1_000
USERS_AT_A_TIME = 64
ANY_ROOM = ""
SAVE_EVERY_S = 2.0
RETRY_AFTER_S = 1.0


class PushFollower:
    """Takes in what is published, and hands on what is to be pushed."""

    def __init__(
        self,
        repository: PusherRepository,
        unread: UnreadRepository,
        pushers: Pushers,
        delivery: Delivery,
        registry: RoomRegistry,
        events: EventCache,
        rules: UsersRules,
        user_rooms: UserRooms,
        stream: Stream,
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        self._repository = repository
        self._unread = unread
        self._pushers = pushers
        self._delivery = delivery
        self._registry = registry
        self._events = events
        self._rules = rules
        self._user_rooms = user_rooms
        self._stream = stream
        self._clock = clock
        self.email_pushers: EmailPushers | None = None
        self._pending: deque[tuple[Room, StoredEvent]] = deque(maxlen=MAX_PENDING_EVENTS)
        self._counts_due: set[tuple[str, str]] = set()
        self._wake = asyncio.Event()
        self._taking: int | None = None
        self._replay_after: int | None = None
        self._has_caught_up = False
        metrics.push_pending.set_function(lambda: len(self._pending))

    async def open(self) -> None:
        """Finds out who has pushers, and how far they had come."""
        await self._pushers.open()
        self._replay_after = await self._repository.load_progress()

    # What is published.

    def on_event(self, room: Room, event: StoredEvent, _before: str | None) -> None:
        """Notes a published event (a `PublishObserver`) if it may concern somebody who has pushers."""
        users = self._pushers.users
        if not users:
            return
        members = room.push_members
        if members is None:
            members = room.push_members = room.local_joined & users
        concerned = bool(members)
        if event.pdu.type == "m.room.member" and (user_id := event.pdu.state_key) in users:
            concerned = True
            if user_id in room.local_joined:
                members.add(user_id)
            else:
                members.discard(user_id)
        if concerned:
            self._pending.append((room, event))
            self._wake.set()

    def on_counts_moved(self, user_id: str, room_id: str) -> None:
        """Notes that a user's count of a room may have changed otherwise than by an event: they have read."""
        if user_id in self._pushers.users:
            self._counts_due.add((user_id, room_id))
            self._wake.set()

    def on_counts_changed(self, user_id: str) -> None:
        """Notes that a user's counts of any rooms may have changed: what counts for them has."""
        self.on_counts_moved(user_id, ANY_ROOM)

    # Taking it up.

    async def run(self) -> None:
        """Takes up what was published, until cancelled."""
        await self._insist(self._catch_up)
        await self._insist(self.save)  # a first start has to leave a position to go back to
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._pending or self._counts_due:
                await self._insist(self._take_next)

    async def _insist(self, work: Callable[[], Awaitable[None]]) -> None:
        """Does a piece of work, again if the database is away; what cannot be done for other reasons is left."""
        while True:
            try:
                await work()
            except (*CONNECTION_ERRORS, StorageError) as error:
                log.warning("pushes wait for the database", error=repr(error))
                await asyncio.sleep(RETRY_AFTER_S)
                continue
            except Exception:
                log.exception("something was not looked at for pushes")
            return

    async def _take_next(self) -> None:
        if self._pending:
            room, event = self._pending[0]
            self._taking = event.position
            try:
                await self._take(room, event)
            finally:
                self._taking = None
            if self._pending and self._pending[0][1] is event:
                self._pending.popleft()
        elif self._counts_due:
            user_id, room_id = self._counts_due.pop()
            try:
                user = await self._pushers.load(user_id)
            except BaseException:
                self._counts_due.add((user_id, room_id))
                raise
            if user is not None:
                if room_id == ANY_ROOM:
                    user.counts = None
                else:
                    user.recount.add(room_id)
                self._delivery.tell_count(user)

    async def _take(self, room: Room, event: StoredEvent) -> None:
        """Has an event pushed to those whom it notifies."""
        concerned = set(room.push_members or ())
        target = event.pdu.state_key if event.pdu.type == "m.room.member" else None
        if target in self._pushers.users:
            concerned.add(target)
        is_redaction = event.pdu.type == "m.room.redaction"
        named = room.mentions.candidates(event.pdu.json)
        context = room.power_context(event.pdu.sender)
        shared: dict[PushingRules, Outcome] = {}
        for number, user_id in enumerate(concerned, 1):
            if number % USERS_AT_A_TIME == 0:
                await asyncio.sleep(0)
            user = await self._pushers.load(user_id)
            if user is None:
                continue
            user.recount.add(room.room_id)
            outcome = None
            if user_id != event.pdu.sender:
                rules = await self._rules.load(user_id)
                outcome = shared.get(rules)
                if user_id in named or rules.needs_display_name:
                    outcome = rules.evaluate(event.pdu.json, await self._rules.recipient(room, user_id), context)
                elif outcome is None:
                    outcome = shared[rules] = rules.evaluate_unmentioned(event.pdu.json, context)
            if outcome is not None and outcome.notify:
                self._delivery.push(user, Item(event.position, room.room_id, self._clock(), tweaks_of(outcome)))
                if self.email_pushers is not None:
                    await self.email_pushers.note(user, event.position)
            elif is_redaction or user_id in (event.pdu.sender, target):
                self._delivery.tell_count(user, only_known=True)

    # Across restarts.

    async def _catch_up(self) -> None:
        """Takes up what had not been pushed when the server last stopped."""
        if (after := self._replay_after) is not None:
            for user_id in await self._repository.load_lagging_users():
                if (user := await self._pushers.load(user_id)) is not None:
                    await self._catch_up_user(user, after)
            started_at = self._stream.started_at
            positions = await self._repository.load_events_after(after, up_to=started_at, limit=MAX_REPLAYED_EVENTS)
            events = await self._events.load(positions)
            for position in positions:
                event = events[position]
                room = await self._room_of(event)
                room.push_members = room.local_joined & self._pushers.users
                await self._take(room, event)
        self._has_caught_up = True
        self._delivery.is_unsaved = True

    async def _catch_up_user(self, user: UserPushers, up_to: int) -> None:
        """Takes up what a user's pushers were late with: where that is too much, the newest alone."""
        lags = [pusher.saved_lag for pusher in user.pushers if pusher.saved_lag is not None]
        if not lags:
            return
        own_rooms = (await self._user_rooms.load(user.user_id)).values()
        rooms = {r.room: r for r in own_rooms if r.membership in ("join", "invite")}
        begin = {n: max(min(lags), r.position) for n, r in rooms.items()}
        found = await self._unread.load_notifications(user.user_id, begin, before=up_to + 1, limit=MAX_ITEMS + 1)
        # Invitations count for nothing in their room, so that the database does not know them for notifications.
        invited = [r.position for r in rooms.values() if r.membership == "invite"]
        found += [position for position in invited if min(lags) < position <= up_to]
        found.sort(reverse=True)
        if len(found) > MAX_ITEMS:
            found = found[:1]
        events = await self._events.load(found)
        for position in reversed(found):
            event = events[position]
            room = await self._room_of(event)
            outcome = await self._rules.outcome(user.user_id, room, event)
            if outcome.notify:
                item = Item(position, room.room_id, event.pdu.origin_server_ts, tweaks_of(outcome))
                self._delivery.push(user, item, only_late=True)
        self._delivery.tell_count(user)

    async def _room_of(self, event: StoredEvent) -> Room:
        """The room of an event; an empty one for an invitation to a room whose state is not known."""
        room = await self._registry.load(event.pdu.room_id)
        return room or self._registry.stub(event.room, event.pdu.room_id, event.pdu.room_version)

    async def save_forever(self) -> None:
        """Runs `save` at an interval until cancelled."""
        while True:
            await asyncio.sleep(SAVE_EVERY_S)
            try:
                await self.save()
            except (*CONNECTION_ERRORS, StorageError) as error:
                log.warning("not written how far pushes are", error=repr(error))
                self._delivery.is_unsaved = True

    async def save(self) -> None:
        """Writes down how far pushing has come, if it has come further."""
        if not self._has_caught_up or not self._delivery.is_unsaved:
            return
        self._delivery.is_unsaved = False
        position = self._stream.current
        if self._pending:
            position = min(position, self._pending[0][1].position - 1)
        if self._taking is not None:
            position = min(position, self._taking - 1)
        lags: dict[Pusher, int | None] = {}
        for pusher in [pusher for user in self._pushers.in_memory() for pusher in user.pushers]:
            lag = None
            if pusher.items:
                lag = min(position, pusher.items[0].position - 1)
            elif pusher.is_count_due or pusher.is_busy:
                lag = position
            if lag != pusher.saved_lag:
                lags[pusher] = lag
        await self._repository.save_progress(position, {pusher.row.pusher: lag for pusher, lag in lags.items()})
        for pusher, lag in lags.items():
            pusher.saved_lag = lag

    async def stop(self) -> None:
        """Stops delivering, and writes down how far that has come."""
        await self._delivery.stop()
        self._delivery.is_unsaved = True
        try:
            await self.save()
        except (*CONNECTION_ERRORS, StorageError) as error:
            log.warning("not written how far pushes are", error=repr(error))


def tweaks_of(outcome: Outcome) -> dict[str, Any]:
    """A rule's tweaks as a push has them. https://spec.matrix.org/v1.19/client-server-api/#actions"""
    actions = [action for action in outcome.actions if isinstance(action, dict)]
    return {action["set_tweak"]: action.get("value", True) for action in actions if "set_tweak" in action}

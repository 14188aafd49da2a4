"""Presence: who is online, idle or away, and what they say of themselves.

https://spec.matrix.org/v1.19/client-server-api/#presence

1. What users do is noted as it happens, and costs a look-up: a /sync says for how long its device is connected, an
   event when its sender was last active.
2. Once a second, and less often where many wait, what this changes of anybody's presence is published: all changes at
   one position of the stream, with nothing to write. Only those who wait and share a room with one of them are woken.
   Rooms that are not in memory are passed over: who waits in one of those is told when they sync next.
3. A status message that is set by hand is published at once, and is durable.

While a user is currently active, what they do changes nothing that others are told.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from typing import Any, Literal, NamedTuple

import orjson

from homeserver.clock import Clock
from homeserver.services.accounts.sessions import Requester
from homeserver.services.changes import Changes
from homeserver.services.errors import Forbidden, InvalidParam, MatrixError, NotFound
from homeserver.services.notifier import Notifier
from homeserver.services.profiles import Profiles
from homeserver.services.rooms.registry import RoomRegistry
from homeserver.services.rooms.room import Room
from homeserver.services.rooms.user_rooms import UserRoom, UserRooms
from homeserver.services.stream import Stream
from matrix.filters import EventFilter
from storage.events import StoredEvent
from storage.presence import PresenceRepository, StatusRow
from storage.stream import Writes

State = Literal["online", "unavailable", "offline"]

ACTIVE_WINDOW_MS = 60_000
IDLE_AFTER_MS = 300_000
SYNC_GRACE_MS = 30_000
"""How long a device counts as connected after its last /sync has ended."""
SET_BY_HAND_MS = 300_000
"""The same for a device that has said what it is and does not sync."""
PUBLISH_INTERVAL_S = 1.0
PUBLISH_INTERVAL_PER_WAITING_S = 0.002
"""What everyone who waits adds to the interval: to wake them all takes a twentieth of a processor, however many."""
EXPIRY_TURNS = 5
"""Of so many turns of publishing one looks for what has ended of itself."""
MAX_USERS = 100_000
MAX_STATUS_BYTES = 1024
MAX_TOLD = 1000
"""Most users whose presence is told in one answer."""
REMOTE_MS = 3600 * 1000
"""For how long a user of another server is what their server said last."""
TELL_AGAIN_MS = 20 * 60 * 1000
"""How long a user of this server is the same before others are told again: they forget who they do not hear of."""
MAX_REMOTE_USERS = 50_000

PresenceObserver = Callable[[str, Collection[Room], dict[str, Any]], None]
"""Called when the presence of a user of this server changes, with those of their rooms that are in memory."""


class Shown(NamedTuple):
    """What others are told of a user."""

    presence: State = "offline"
    currently_active: bool = False
    status_msg: str | None = None
    displayname: str | None = None
    avatar_url: str | None = None


class _User:
    """A user who is or was here: devices (number -> what it says it is, until when), and what is published.

    `told` is what another server has said of its user, until when (ms).
    """

    __slots__ = (
        "avatar_url",
        "devices",
        "displayname",
        "is_loaded",
        "last_active",
        "position",
        "shown",
        "status_msg",
        "told",
        "told_others_ts",
    )

    def __init__(self) -> None:
        self.devices: dict[int, tuple[State, int]] = {}
        self.last_active = 0
        self.status_msg: str | None = None
        self.displayname: str | None = None
        self.avatar_url: str | None = None
        self.is_loaded = False
        self.shown = Shown()
        self.position = 0
        self.told: tuple[Shown, int] | None = None
        self.told_others_ts = 0

    def as_of(self, now_ms: int) -> Shown:
        """What they are now. One device that is online outweighs all that are not."""
        if self.told is not None:
            return self.told[0] if now_ms < self.told[1] else Shown()
        states = {state for state, until in self.devices.values() if until > now_ms}
        idle_ms = now_ms - self.last_active
        state: State = "unavailable" if states & {"online", "unavailable"} else "offline"
        is_active = False
        if "online" in states and idle_ms < IDLE_AFTER_MS:
            state, is_active = "online", idle_ms < ACTIVE_WINDOW_MS
        return Shown(state, is_active, self.status_msg, self.displayname, self.avatar_url)


class Presence:
    """Notes what users do, and tells those who share rooms with them. `last_position` is that of the newest change.

    `observers` are told of the users whose presence has changed, `local_observers` of what it is for users here.
    """

    def __init__(
        self,
        repository: PresenceRepository,
        profiles: Profiles,
        registry: RoomRegistry,
        user_rooms: UserRooms,
        stream: Stream,
        notifier: Notifier,
        clock: Clock,
        *,
        enabled: bool,
    ) -> None:
        self._repository = repository
        self._profiles = profiles
        self._registry = registry
        self._user_rooms = user_rooms
        self._stream = stream
        self._notifier = notifier
        self._clock = clock
        self._enabled = enabled
        self._users: dict[str, _User] = {}
        self._remote: set[str] = set()
        self.local_observers: list[PresenceObserver] = []
        self._touched: set[str] = set()
        self._joined: set[str] = set()
        self._publishing = asyncio.Lock()
        self._recent = Changes()
        self._recent.start(stream.current)
        self.last_position = 0
        self.observers: list[Callable[[Collection[str]], None]] = []

    def on_sync(self, requester: Requester, state: State, timeout_ms: int) -> None:
        """Notes that a device begins to sync and says that it is in this state."""
        if not self._enabled:
            return
        user_id, now = requester.user_id, self._clock()
        user = self._users.get(user_id)
        if user is None:
            if state == "offline" or len(self._users) >= MAX_USERS:
                return
            user = self._users[user_id] = _User()
        known = user.devices.get(requester.device)
        if state != "offline":
            user.devices[requester.device] = (state, now + timeout_ms + SYNC_GRACE_MS)
        elif known is not None:
            del user.devices[requester.device]
        if known is None or known[0] != state or user.shown.presence == "offline":
            if state == "online" and user.shown.presence == "offline":
                user.last_active = now
            self._touched.add(user_id)

    def on_event(self, room: Room, event: StoredEvent, before: str | None) -> None:
        """Notes that the sender is active, and who joins (a `PublishObserver`)."""
        user = self._users.get(event.pdu.sender)
        if user is None:
            return
        user.last_active = self._clock()
        if not user.shown.currently_active:
            self._touched.add(event.pdu.sender)
        if event.pdu.type == "m.room.member" and before != "join" and event.pdu.state_key in room.local_joined:
            self._joined.add(event.pdu.state_key)  # whom the others in the room have not been told of

    async def set_remote(self, user_id: str, shown: Shown, last_active_ago_ms: int) -> None:
        """Takes in what another server says of its user, if they share a room with somebody here."""
        if not self._enabled or len((shown.status_msg or "").encode(errors="replace")) > MAX_STATUS_BYTES:
            return
        user = self._users.get(user_id)
        if user is None:
            if shown.presence == "offline" or len(self._remote) >= MAX_REMOTE_USERS or len(self._users) >= MAX_USERS:
                return
            rooms = (await self._user_rooms.load(user_id)).values()
            if not any(room.membership == "join" for room in rooms):
                return
            user = self._users.setdefault(user_id, _User())
            user.is_loaded = True
            self._remote.add(user_id)
        now = self._clock()
        user.told = (shown, now + REMOTE_MS)
        user.last_active = min(now, max(0, now - last_active_ago_ms))
        self._touched.add(user_id)

    def on_profile(self, user_id: str, profile: dict[str, Any]) -> None:
        """Notes that a user calls themselves otherwise, which is news of their presence, too.

        https://spec.matrix.org/v1.19/client-server-api/#events-on-change-of-profile-information
        """
        if (user := self._users.get(user_id)) is not None:
            user.displayname, user.avatar_url = profile.get("displayname"), profile.get("avatar_url")
            self._touched.add(user_id)

    async def declare(self, requester: Requester, state: State, status_msg: str | None) -> None:
        """Sets a user's presence on all of their devices, until one syncs again. Raises Forbidden, InvalidParam.

        https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3presenceuseridstatus
        """
        if not self._enabled:
            raise Forbidden("Presence is off on this server")
        if status_msg is not None and len(status_msg.encode()) > MAX_STATUS_BYTES:
            raise InvalidParam(f"status_msg can have {MAX_STATUS_BYTES} bytes")
        user_id = requester.user_id
        if user_id not in self._users and len(self._users) >= MAX_USERS:
            raise MatrixError(503, "M_LIMIT_EXCEEDED", "The server is overloaded", {"retry_after_ms": 1000})
        await self._user_rooms.load(user_id)
        user = self._users.setdefault(user_id, _User())
        await self._load([user_id])
        now = self._clock()
        user.devices = {device: (state, until) for device, (_, until) in user.devices.items()}
        user.devices[requester.device] = (state, now + SET_BY_HAND_MS)
        user.last_active = now
        before, user.status_msg = user.status_msg, status_msg or None
        shown = user.as_of(now)
        if shown == user.shown:
            return
        position = self._stream.next_position()
        writes = Writes()
        if shown.status_msg != user.shown.status_msg:
            encoded = None if shown.status_msg is None else shown.status_msg.encode()
            writes.statuses.append(StatusRow(user_id, encoded, position))

        def undo() -> None:
            user.status_msg = before

        await self._stream.submit(position, writes, lambda: self._publish({user_id: shown}, position), undo)

    async def get(self, reader: str, user_id: str) -> dict[str, Any]:
        """A user's presence for one who shares a room with them. Raises NotFound, Forbidden.

        https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3presenceuseridstatus
        """
        if not self._enabled:
            raise NotFound("Presence is off on this server")
        user = self._users.get(user_id)
        if user is None or user.told is None:
            await self._profiles.profile(user_id)
        if not await self._share_a_room(reader, user_id):
            raise Forbidden("You are not allowed to see their presence")
        if user is not None and user.is_loaded:
            return self._content(user)
        status_msg = (await self._repository.load_statuses([user_id])).get(user_id)
        return {"presence": "offline", **({} if status_msg is None else {"status_msg": status_msg})}

    async def events(
        self, user_id: str, since: int, new_rooms: Collection[UserRoom], presence_filter: EventFilter
    ) -> list[bytes]:
        """The m.presence events for a sync from `since` (0: from the beginning), after which they are in new rooms."""
        rooms = await self._user_rooms.load(user_id)
        shown = rooms.values() if not since else new_rooms
        wanted = {other for other in self._members(shown) if self._users[other].shown.presence != "offline"}
        if since:
            changed = self._recent.since(since)
            if changed is None:
                changed = {other for other, user in self._users.items() if user.position > since}
            for other in changed - wanted:
                if await self._share_a_room(user_id, other):
                    wanted.add(other)
        limit = min(presence_filter.limit or MAX_TOLD, MAX_TOLD)
        found = [other for other in wanted if presence_filter.allows("m.presence", other) and other in self._users]
        return [
            orjson.dumps({"type": "m.presence", "sender": other, "content": self._event_content(self._users[other])})
            for other in found[:limit]
        ]

    async def publish_forever(self) -> None:
        """Publishes what changes, until cancelled."""
        turn = 0
        while True:
            waiting_s = self._notifier.waiting_users * PUBLISH_INTERVAL_PER_WAITING_S
            await asyncio.sleep(max(PUBLISH_INTERVAL_S, waiting_s))
            turn += 1
            if turn % EXPIRY_TURNS == 0:
                self.expire()
            if self._touched or self._joined:
                with suppress(MatrixError):  # nothing can be told while the database is out of reach
                    await self.publish()

    def expire(self) -> None:
        """Has everyone who is not offline looked at again: time alone may have changed what they are.

        Other servers are told now and then though nothing has: they take for offline whom they do not hear of.
        """
        here = [user_id for user_id, user in self._users.items() if user.shown.presence != "offline"]
        self._touched.update(here)
        again_before = self._clock() - TELL_AGAIN_MS
        for user_id in here:
            if (user := self._users[user_id]).told_others_ts < again_before:
                self._tell_others(user_id, user)

    async def publish(self) -> None:
        """Publishes what has changed since the last time, all of it at one position."""
        async with self._publishing:
            await self._publish_noted()

    async def _publish_noted(self) -> None:
        touched, joined = self._touched | self._joined, self._joined
        self._touched, self._joined = set(), set()
        touched &= self._users.keys()
        try:
            await self._load([user_id for user_id in touched if not self._users[user_id].is_loaded])
            changed = self._changed(touched, joined)
            for user_id in changed:
                await self._user_rooms.load(user_id)
            changed = self._changed(changed, joined)  # as it is by now, with no awaiting until it is submitted
            if changed:
                position = self._stream.next_position()
                await self._stream.submit(position, Writes(), lambda: self._publish(changed, position))
        except BaseException:
            self._touched |= touched
            self._joined |= joined
            raise
        self._forget()

    def _changed(self, user_ids: Iterable[str], joined: Collection[str]) -> dict[str, Shown]:
        now = self._clock()
        current = {user_id: self._users[user_id].as_of(now) for user_id in user_ids}
        return {
            user_id: shown
            for user_id, shown in current.items()
            if shown != self._users[user_id].shown or (user_id in joined and shown.presence != "offline")
        }

    async def _load(self, user_ids: Sequence[str]) -> None:
        """Reads the status messages of users who have just come."""
        missing = [user_id for user_id in user_ids if not self._users[user_id].is_loaded]
        if not missing:
            return
        statuses = await self._repository.load_statuses(missing)
        for user_id in missing:
            user = self._users.get(user_id)
            if user is not None and not user.is_loaded:
                user.status_msg, user.is_loaded = statuses.get(user_id), True
                user.shown = user.shown._replace(status_msg=user.status_msg)

    def _publish(self, changed: dict[str, Shown], position: int) -> None:
        rooms: set[Room] = set()
        for user_id, shown in changed.items():
            user = self._users.get(user_id)
            if user is None:
                continue
            user.shown, user.position = shown, position
            if shown.presence == "offline":
                user.devices.clear()
            self._recent.add(position, user_id)
            rooms |= self._tell_others(user_id, user)
        self.last_position = position
        self._notifier.mark_users(changed)
        for room in rooms:
            self._notifier.mark_members(room.local_joined)
        for observer in self.observers:
            observer(changed)

    def _tell_others(self, user_id: str, user: _User) -> set[Room]:
        """Tells observers what a user of this server is. Returns the user's rooms that are in memory."""
        joined = {
            room
            for user_room in (self._user_rooms.known(user_id) or {}).values()
            if user_room.membership == "join" and (room := self._registry.peek(user_room.room_id)) is not None
        }
        if user.told is None:
            user.told_others_ts = self._clock()
            for tell in self.local_observers:
                tell(user_id, joined, self._content(user))
        return joined

    def content_of(self, user_id: str) -> dict[str, Any] | None:
        """The content of a user's m.presence event; None for one of whom nothing is known."""
        user = self._users.get(user_id)
        return None if user is None else self._content(user)

    def _forget(self) -> None:
        """Drops the first of those who have gone, when there are too many to remember that they have."""
        if len(self._users) < MAX_USERS:
            return
        gone = [user_id for user_id, user in self._users.items() if user.shown.presence == "offline"]
        for user_id in gone[: MAX_USERS // 10]:
            del self._users[user_id]
            self._remote.discard(user_id)

    def _members(self, user_rooms: Iterable[UserRoom]) -> set[str]:
        """Those in rooms (that are in memory) of whom anything is known."""
        found: set[str] = set()
        for user_room in user_rooms:
            if user_room.membership != "join" or (room := self._registry.peek(user_room.room_id)) is None:
                continue
            if len(room.local_joined) < len(self._users):
                found.update(other for other in room.local_joined if other in self._users)
                if room.is_shared:
                    found.update(other for other in self._remote if room.members.get(other) == "join")
            else:
                found.update(other for other in self._users if room.members.get(other) == "join")
        return found

    async def _share_a_room(self, one: str, other: str) -> bool:
        if one == other:
            return True
        fewer, more = await self._user_rooms.load(one), await self._user_rooms.load(other)
        if len(fewer) > len(more):
            fewer, more = more, fewer
        return any(
            room.membership == "join" and (same := more.get(room_id)) is not None and same.membership == "join"
            for room_id, room in fewer.items()
        )

    def _event_content(self, user: _User) -> dict[str, Any]:
        """The content of an m.presence event, https://spec.matrix.org/v1.19/client-server-api/#mpresence.

        It has a user's name and avatar once they have changed.
        """
        names = {"displayname": user.shown.displayname, "avatar_url": user.shown.avatar_url}
        return self._content(user) | {key: value for key, value in names.items() if value is not None}

    def _content(self, user: _User) -> dict[str, Any]:
        """What a user's presence is."""
        shown = user.shown
        content: dict[str, Any] = {"presence": shown.presence, "currently_active": shown.currently_active}
        if user.last_active:
            content["last_active_ago"] = max(0, self._clock() - user.last_active)
        if shown.status_msg is not None:
            content["status_msg"] = shown.status_msg
        return content

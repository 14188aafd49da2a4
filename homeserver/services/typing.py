"""Typing notifications: kept in memory, and carried by the stream with nothing to write.

https://spec.matrix.org/v1.19/client-server-api/#typing-notifications
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from homeserver.clock import Clock
from homeserver.services.changes import Changes
from homeserver.services.errors import MatrixError
from homeserver.services.notifier import Notifier
from homeserver.services.rooms.access import Access
from homeserver.services.rooms.room import Room
from homeserver.services.stream import Stream
from storage.events import StoredEvent
from storage.stream import Writes

MAX_TIMEOUT_MS = 120_000
REMOTE_TIMEOUT_MS = 30_000
"""For how long a user of another server types, unless their server says so again: it does not say for how long."""
EXPIRY_INTERVAL_S = 1.0

TypingObserver = Callable[[Room, str, bool], None]
"""Called when a user of this server types in a room, also when they go on, and when they stop."""


class Typing:
    """Who is typing where, until when. `observers` are told of each room in which that has changed,
    `local_observers` of what users of this server do."""

    def __init__(self, access: Access, stream: Stream, notifier: Notifier, changes: Changes, clock: Clock) -> None:
        self._access = access
        self._stream = stream
        self._notifier = notifier
        self._changes = changes
        self._clock = clock
        self._typing_rooms: set[Room] = set()
        self.observers: list[Callable[[Room], None]] = []
        self.local_observers: list[TypingObserver] = []

    async def set(self, user_id: str, room_id: str, typing: bool, timeout_ms: int) -> None:
        """Says that a member types (for a time, in milliseconds) or has stopped."""
        room = await self._access.access_joined_room(user_id, room_id)
        await self._set(room, user_id, min(max(timeout_ms, 0), MAX_TIMEOUT_MS) if typing else None)
        for tell in self.local_observers:
            tell(room, user_id, typing)

    async def set_remote(self, room: Room, user_id: str, typing: bool) -> None:
        """The same for a user of another server who is a member."""
        await self._set(room, user_id, REMOTE_TIMEOUT_MS if typing else None)

    async def _set(self, room: Room, user_id: str, timeout_ms: int | None) -> None:
        """Lets a member type for a time, or stop (None)."""
        if timeout_ms is not None:
            is_news = user_id not in room.typing
            room.typing[user_id] = self._clock() + timeout_ms
            self._typing_rooms.add(room)
        else:
            is_news = room.typing.pop(user_id, None) is not None
        if is_news:
            await self._announce(room)

    def on_event(self, room: Room, event: StoredEvent, _before: str | None) -> None:
        """Ends the typing of those who leave (a `PublishObserver`)."""
        if not room.typing or event.pdu.type != "m.room.member" or event.pdu.state_key not in room.typing:
            return
        if event.pdu.content.get("membership") != "join":
            del room.typing[event.pdu.state_key]
            room.typing_position = event.position

    async def _announce(self, room: Room) -> None:
        position = self._stream.next_position()
        room.pending += 1
        await self._stream.submit(position, Writes(), lambda: self._publish(room, position), lambda: self._undo(room))

    def _undo(self, room: Room) -> None:
        room.pending -= 1

    def _publish(self, room: Room, position: int) -> None:
        room.pending -= 1
        room.typing_position = room.changed_position = position
        self._changes.add(position, room.room_id)
        self._notifier.mark_members(room.local_joined)
        for observer in self.observers:
            observer(room)

    async def expire_forever(self) -> None:
        """Ends what has not been renewed, until cancelled."""
        while True:
            await asyncio.sleep(EXPIRY_INTERVAL_S)
            await self.expire()

    async def expire(self) -> None:
        """Ends what has not been renewed."""
        now = self._clock()
        for room in list(self._typing_rooms):
            expired = [user_id for user_id, until in room.typing.items() if until <= now]
            for user_id in expired:
                del room.typing[user_id]
                if user_id.endswith(room.domain):
                    for tell in self.local_observers:
                        tell(room, user_id, False)
            if not room.typing:
                self._typing_rooms.discard(room)
            if expired:
                with suppress(MatrixError):  # nothing can be told while the database is out of reach
                    await self._announce(room)

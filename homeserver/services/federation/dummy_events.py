"""Brings a room's branches together where nobody here speaks.

Each event of another server that does not stand on all others leaves one more end, and each of them makes the next
resolution dearer. Any event of a local user takes them together; in a room in which they only read, one is made that
says nothing. https://spec.matrix.org/v1.19/server-server-api/#pdus
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from functools import partial

from homeserver.clock import Clock
from homeserver.logs import get_logger
from homeserver.services.errors import MatrixError
from homeserver.services.rooms.access import Access
from homeserver.services.rooms.authoring import Draft
from homeserver.services.rooms.room import Room
from homeserver.services.rooms.sending import Sending
from matrix.pdu_format import MAX_PREV_EVENTS
from storage.database import CONNECTION_ERRORS
from storage.events import StoredEvent

log = get_logger(__name__)

DUMMY_EVENT = "org.matrix.dummy_event"
MAX_EXTREMITIES = 10
"""With more ends than this a room gets an event that takes them together."""
DELAY_MS = 30_000
"""How long is waited for somebody to speak."""
MAX_PATIENT_EXTREMITIES = 2 * MAX_PREV_EVENTS
"""With more ends than this a room does not wait: each further one costs as much as all of them."""
MAX_EVENTS_AT_ONCE = 100
MAX_WAITING_ROOMS = 1_000
MAX_SENDERS_TRIED = 5


class DummyEvents:
    """Notes rooms with too many ends, and makes events there later."""

    def __init__(self, access: Access, sending: Sending, clock: Clock) -> None:
        self._access = access
        self._sending = sending
        self._clock = clock
        self._due: dict[str, int] = {}
        self._powerless: set[str] = set()
        self._changed = asyncio.Event()

    def on_event(self, room: Room, _event: StoredEvent, _before: str | None) -> None:
        """Notes the room of a published event, if need be (a `PublishObserver`)."""
        count = len(room.tip.extremities)
        if count <= MAX_EXTREMITIES or not room.local_joined:
            return
        now_ms = self._clock()
        is_urgent = count > MAX_PATIENT_EXTREMITIES and room.room_id not in self._powerless
        due = now_ms if is_urgent else now_ms + DELAY_MS
        known = self._due.get(room.room_id)
        # If too many wait, the room's next event has it noted.
        if due < known if known is not None else len(self._due) < MAX_WAITING_ROOMS:
            self._due[room.room_id] = due
            self._changed.set()

    def is_due(self, room_id: str, now_ms: int) -> bool:
        """Whether a room's branches are to be brought together by now."""
        return self._due.get(room_id, now_ms + 1) <= now_ms

    async def send_due(self, now_ms: int) -> None:
        """Makes the events for which there was waited long enough by now (in ms), one after another."""
        for room_id in [room_id for room_id, due in self._due.items() if due <= now_ms]:
            try:
                await self._send(room_id)
            except (MatrixError, *CONNECTION_ERRORS) as error:
                log.info("a room's branches stay apart", room_id=room_id, reason=str(error))
            finally:
                self._due.pop(room_id, None)

    async def run_forever(self) -> None:
        """Makes events when they are due, until cancelled."""
        while True:
            self._changed.clear()
            wait_s = max(min(self._due.values()) - self._clock(), 0) / 1000 if self._due else None
            try:
                async with asyncio.timeout(wait_s):
                    await self._changed.wait()
            except TimeoutError:
                await self.send_due(self._clock())

    async def _send(self, room_id: str) -> None:
        for _ in range(MAX_EVENTS_AT_ONCE):
            room = await self._access.access_room(room_id)
            if len(room.tip.extremities) <= MAX_EXTREMITIES:
                return
            if not await self._send_one(room):
                log.info("nobody here may bring a room's branches together", room_id=room_id)
                if len(self._powerless) >= MAX_WAITING_ROOMS:
                    self._powerless.clear()
                self._powerless.add(room_id)  # the next event is no reason to try again at once
                return
            self._powerless.discard(room_id)

    async def _send_one(self, room: Room) -> bool:
        """Makes an event, which takes as many ends together as it can name; whether somebody here may."""
        for sender in _senders(room):
            try:
                await self._sending.author(room, partial(_drafts, sender))
            except MatrixError as error:
                if error.errcode != "M_FORBIDDEN":
                    raise
            else:
                return True
        return False


def _drafts(sender: str, room: Room) -> Sequence[Draft]:
    return (Draft(DUMMY_EVENT, sender, {}),) if len(room.tip.extremities) > MAX_EXTREMITIES else ()


def _senders(room: Room) -> Iterator[str]:
    """Some of those here who have the power for it."""
    levels = room.power_levels
    needed, tried = levels.event(DUMMY_EVENT, False), 0
    for user_id in sorted(room.local_joined):
        if levels.user(user_id) >= needed and tried < MAX_SENDERS_TRIED:
            tried += 1
            yield user_id

"""What one destination has yet to be sent. Nothing here waits for anything: `Sender` reads and sends.

Of events only positions are held, and no more than MAX_PENDING_EVENTS: a destination that has fallen further behind
reads on from storage, from the position up to which it was sent everything (`acknowledged`), oldest first. One that
is FAR_BEHIND_EVENTS or more behind is sent the newest event of each room instead, the newest first: what lies between
it fetches itself, from whom it likes. https://spec.matrix.org/v1.19/server-server-api/#transactions
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Sequence
from itertools import islice
from typing import NamedTuple

from homeserver.services.federation.sending.edus import Edu

MAX_PDUS = 50
MAX_EDUS = 100
MAX_PENDING_EVENTS = 200
MAX_PENDING_EDUS = 200
FAR_BEHIND_EVENTS = 1_000

EduKey = tuple[str, ...]
"""What an EDU is about: a newer one with the same key takes its place."""


class Batch(NamedTuple):
    """The events of a transaction, and up to which position the destination has everything with it."""

    positions: tuple[int, ...]
    up_to: int


class DestinationQueue:
    """`acknowledged` is the position up to which the destination has everything, `newest` that of the newest event.

    `is_behind`: it has to read on from storage, as memory does not hold all that it lacks. `edus_sent` is the position
    of the newest durable EDU that it has got since the start.
    """

    def __init__(self, destination: str, acknowledged: int) -> None:
        self.destination = destination
        self.acknowledged = acknowledged
        self.newest = acknowledged
        self.is_behind = False
        self.events: deque[int] = deque()
        self.edus: OrderedDict[EduKey, Edu] = OrderedDict()
        self.has_durable_edus = False
        self.edus_sent = 0
        self.waits_since_ms = 0
        self.is_resting = False
        self.recovered = asyncio.Event()
        self._newest_of_rooms: deque[int] = deque()
        self._leap_to = 0

    def fall_behind(self, newest: int) -> None:
        """Has everything up to a position read from storage."""
        self.newest = max(self.newest, newest)
        self.is_behind = True
        self.events.clear()

    def add_event(self, position: int) -> None:
        """Notes an event, newer than all before. What was read from storage already is not sent again."""
        if position <= self.acknowledged:
            return
        self.newest = position
        if not self.is_behind:
            self.events.append(position)
            if len(self.events) > MAX_PENDING_EVENTS:
                self.fall_behind(position)

    def add_edu(self, key: EduKey, edu: Edu) -> None:
        """Notes an EDU, in the place of an older one about the same; the oldest are let go of when there are many."""
        self.edus.pop(key, None)
        self.edus[key] = edu
        if len(self.edus) > MAX_PENDING_EDUS:
            self.edus.popitem(last=False)

    def take_edus(self, limit: int) -> list[Edu]:
        """The oldest EDUs, which are not held any more then."""
        return [self.edus.popitem(last=False)[1] for _ in range(min(limit, len(self.edus)))]

    def from_memory(self) -> Batch:
        """The oldest events that memory holds; none while storage has to be read."""
        if self.is_behind or not self.events:
            return Batch((), self.acknowledged)
        positions = tuple(islice(self.events, MAX_PDUS))
        return Batch(positions, positions[-1])

    @property
    def is_leaping(self) -> bool:
        """Whether the newest event of each room is being sent."""
        return bool(self._newest_of_rooms)

    def leap(self, newest_of_rooms: Sequence[int], up_to: int) -> None:
        """Has these events sent in the stead of all up to a position."""
        self._newest_of_rooms = deque(newest_of_rooms)
        self._leap_to = up_to

    def from_leap(self) -> Batch:
        """The next of the rooms' newest events. Only with the last of them the destination has everything."""
        positions = tuple(islice(self._newest_of_rooms, MAX_PDUS))
        is_last = len(positions) == len(self._newest_of_rooms)
        return Batch(positions, self._leap_to if is_last else self.acknowledged)

    def from_storage(self, found: Sequence[int], newest: int) -> Batch:
        """The oldest events after `acknowledged` as storage has them, MAX_PDUS or more unless these are all.

        `newest` is what the queue's was before storage was read: everything up to there is among them.
        """
        positions = tuple(found[:MAX_PDUS])
        if len(found) >= MAX_PDUS:
            return Batch(positions, positions[-1])
        return Batch(positions, max(newest, self.acknowledged, *positions))

    def acknowledge(self, batch: Batch) -> None:
        """Takes in that the destination has got a batch, or that it will never take it."""
        if self._newest_of_rooms:
            for _ in batch.positions:
                self._newest_of_rooms.popleft()
        self.acknowledged = max(self.acknowledged, batch.up_to)
        self.newest = max(self.newest, self.acknowledged)
        while self.events and self.events[0] <= self.acknowledged:
            self.events.popleft()
        if self.newest <= self.acknowledged:
            self.is_behind = False

    @property
    def has_work(self) -> bool:
        """Whether there is anything to send."""
        return bool(self.events or self.edus or self.is_behind or self.has_durable_edus)

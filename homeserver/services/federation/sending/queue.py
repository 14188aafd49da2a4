"""What one destination has yet to be sent.

Of events only positions are held, and no more than MAX_PENDING_EVENTS: a destination that has fallen further behind
reads on from storage, from the position up to which it was sent everything (`acknowledged`).
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from typing import Any

MAX_PENDING_EVENTS = 1_000
MAX_PENDING_EDUS = 1_000

EduKey = tuple[str, ...]
"""What an EDU is about: a newer one with the same key takes its place."""


class DestinationQueue:
    """`acknowledged` is the position up to which the destination has everything, `newest` that of the newest event.

    `is_behind`: it has to read on from storage, as memory does not hold all that it lacks.
    """

    def __init__(self, destination: str, acknowledged: int, *, is_behind: bool) -> None:
        self.destination = destination
        self.acknowledged = acknowledged
        self.persisted = acknowledged
        self.newest = acknowledged
        self.is_behind = is_behind
        self.events: deque[int] = deque()
        self.edus: OrderedDict[EduKey, dict[str, Any]] = OrderedDict()
        self.has_durable_edus = is_behind
        self.wake = asyncio.Event()

    def add_event(self, position: int) -> None:
        """Notes an event, newer than all before."""
        self.newest = position
        if not self.is_behind:
            self.events.append(position)
            if len(self.events) > MAX_PENDING_EVENTS:
                self.is_behind = True
                self.events.clear()
        self.wake.set()

    def add_edu(self, key: EduKey, edu: dict[str, Any]) -> None:
        """Notes an EDU, in the place of an older one about the same; the oldest are let go of when there are many."""
        self.edus.pop(key, None)
        self.edus[key] = edu
        if len(self.edus) > MAX_PENDING_EDUS:
            self.edus.popitem(last=False)
        self.wake.set()

    def take_edus(self, limit: int) -> list[dict[str, Any]]:
        """The oldest EDUs, which are not held any more then."""
        return [self.edus.popitem(last=False)[1] for _ in range(min(limit, len(self.edus)))]

    @property
    def has_work(self) -> bool:
        """Whether there is anything to send."""
        return bool(self.events or self.edus or self.is_behind or self.has_durable_edus)

"""Who is about to store which events of other servers: an event is stored once, whichever ways it comes at once.

Whoever finds out that an event is not known and then stores it claims it from before the one until after the other: a
second row for an event would fail the batch that it is in, and with it what others have sent.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager


class Claim:
    """Some events that somebody is about to store."""

    def __init__(self, held: dict[str, Claim], event_ids: Collection[str]) -> None:
        self._held = held
        self._event_ids = event_ids
        self._released: asyncio.Event | None = None  # nobody waits for most
        for event_id in event_ids:
            assert event_id not in held, f"{event_id} is claimed already"
            held[event_id] = self

    def release(self) -> None:
        """They are stored, or will not be."""
        for event_id in self._event_ids:
            del self._held[event_id]
        if self._released is not None:
            self._released.set()

    async def wait(self) -> None:
        """Returns once they are."""
        if self._released is None:
            self._released = asyncio.Event()
        await self._released.wait()


class Claims:
    """All claims, by the IDs of the events."""

    def __init__(self) -> None:
        self._held: dict[str, Claim] = {}

    def is_free(self, event_id: str) -> bool:
        """Whether nobody claims an event."""
        return event_id not in self._held

    def take_free(self, event_id: str) -> Claim:
        """Claims an event that is free."""
        return Claim(self._held, (event_id,))

    async def take(self, event_ids: Collection[str]) -> Claim:
        """Claims events, all of them in the moment in which nobody else claims any: who waits holds up nobody."""
        while other := next((self._held[event_id] for event_id in event_ids if event_id in self._held), None):
            await other.wait()
        return Claim(self._held, event_ids)

    @asynccontextmanager
    async def holding(self, event_ids: Collection[str]) -> AsyncIterator[None]:
        """Claims events inside the `async with`."""
        claim = await self.take(event_ids)
        try:
            yield
        finally:
            claim.release()

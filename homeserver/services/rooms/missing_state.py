"""What has to be in memory before an event can be made, and was not."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from homeserver.services.rooms.event_cache import EventCache
from homeserver.services.rooms.room import NotLoaded


class MissingState:
    """Brings it there."""

    def __init__(self, events: EventCache, load_rules: Callable[[str], Awaitable[object]]) -> None:
        self._events = events
        self._load_rules = load_rules

    async def load(self, missing: NotLoaded) -> None:
        """Reads what is missing, or waits for what the room is busy with; then it is worth another try."""
        if missing.busy is not None:
            await asyncio.wait((missing.busy,))
        await self._events.load(missing.positions)
        for user_id in missing.users:
            await self._load_rules(user_id)

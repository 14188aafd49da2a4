"""What has to be in memory before an event can be made, and was not."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from homeserver.services.errors import MatrixError
from homeserver.services.rooms.event_cache import EventCache
from homeserver.services.rooms.room import NotLoaded

MAX_WAIT_S = 20.0
"""For what needs the members of a room to be known, while they are not: little does."""


def members_unknown() -> MatrixError:
    """What is answered where it has to be known who is in a room, and is not yet."""
    return MatrixError(503, "M_LIMIT_EXCEEDED", "It is not known yet who is in the room", {"retry_after_ms": 5000})


class MissingState:
    """Brings it there."""

    def __init__(self, events: EventCache, load_rules: Callable[[str], Awaitable[object]]) -> None:
        self._events = events
        self._load_rules = load_rules

    async def load(self, missing: NotLoaded) -> None:
        """Reads what is missing, or waits for what the room is busy with; then it is worth another try.

        Raises M_LIMIT_EXCEEDED where the room remains busy: its members are yet to be told (docs/adr/0016).
        """
        if missing.busy is not None:
            done, _ = await asyncio.wait((missing.busy,), timeout=MAX_WAIT_S)
            if not done:
                raise members_unknown()
        await self._events.load(missing.positions)
        for user_id in missing.users:
            await self._load_rules(user_id)

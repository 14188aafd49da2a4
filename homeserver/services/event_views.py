"""Events as the endpoints that read rooms show them, with what depends on the reader."""

from __future__ import annotations

from collections.abc import Sequence

from homeserver.clock import Clock
from homeserver.services.accounts.sessions import Requester
from homeserver.services.aggregations import Aggregations, View
from homeserver.services.client_events import ClientEvents, serialise
from homeserver.services.rooms.access import Reader
from homeserver.services.rooms.event_cache import EventCache
from homeserver.services.rooms.membership_history import load_membership_history
from storage.events import StoredEvent


class EventViews:
    """Serialises events for one reader."""

    def __init__(
        self, client_events: ClientEvents, aggregations: Aggregations, events: EventCache, clock: Clock
    ) -> None:
        self._client_events = client_events
        self._aggregations = aggregations
        self._events = events
        self._clock = clock

    async def room_events(self, requester: Requester, reader: Reader, events: Sequence[StoredEvent]) -> list[bytes]:
        """Each event as JSON, with its room ID, the reader's membership at it, and what relates to it."""
        if not events:
            return []
        await self._client_events.prepare(events)
        oldest = min(event.position for event in events)
        history = await load_membership_history(self._events, reader.room, reader.user_id, oldest)
        now_ms = self._clock()
        bundled = await self._aggregations.bundled(reader, events, View(now_ms, requester.device, with_room_id=True))
        return [
            serialise(
                event,
                now_ms=now_ms,
                device=requester.device,
                membership=history.at(event.position),
                with_room_id=True,
                relations=bundled.get(event.position),
            )
            for event in events
        ]

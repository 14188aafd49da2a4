"""Events as the endpoints that read rooms show them, with what depends on the reader."""

from __future__ import annotations

from collections.abc import Sequence

from homeserver.clock import Clock
from homeserver.services.accounts.sessions import Requester
from homeserver.services.aggregations import Aggregations, View
from homeserver.services.client_events import ClientEvents, serialise
from homeserver.services.rooms.access import Reader
from storage.events import StoredEvent


class EventViews:
    """Serialises events for one reader."""

    def __init__(self, client_events: ClientEvents, aggregations: Aggregations, clock: Clock) -> None:
        self._client_events = client_events
        self._aggregations = aggregations
        self._clock = clock

    async def room_events(self, requester: Requester, reader: Reader, events: Sequence[StoredEvent]) -> list[bytes]:
        """Each event as JSON, with its room ID and what relates to it."""
        await self._client_events.prepare(events)
        now_ms = self._clock()
        bundled = await self._aggregations.bundled(reader, events, View(now_ms, requester.device, with_room_id=True))
        return [
            serialise(
                event,
                now_ms=now_ms,
                device=requester.device,
                membership=None,
                with_room_id=True,
                relations=bundled.get(event.position),
            )
            for event in events
        ]

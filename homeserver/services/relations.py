"""What relates to an event, and the threads of a room, page by page.

https://spec.matrix.org/v1.19/client-server-api/#relationships-api
"""

from __future__ import annotations

from typing import NamedTuple

from homeserver.services.aggregations import Aggregations
from homeserver.services.rooms.access import Access, Reader
from homeserver.services.rooms.erasure import as_redacted
from homeserver.services.rooms.event_cache import EventCache
from storage.events import EventKind, StoredEvent
from storage.relations import RelationRepository

MAX_DEPTH = 3
"""How many steps from an event its indirect relations are followed."""
CHUNK_ROWS = 100
MAX_SCANNED_ROWS = 2000


class RelationsPage(NamedTuple):
    """Events in the direction of paging. `end` is where the next page starts, None when there is no more."""

    events: list[StoredEvent]
    end: int | None


class Relations:
    """Reads relations for readers."""

    def __init__(
        self, relations: RelationRepository, events: EventCache, access: Access, aggregations: Aggregations
    ) -> None:
        self._relations = relations
        self._events = events
        self._access = access
        self._aggregations = aggregations

    async def page(
        self,
        reader: Reader,
        parent: str,
        *,
        rel_type: str | None,
        event_type: str | None,
        start: int,
        stop: int,
        limit: int,
        backwards: bool,
        depth: int,
    ) -> RelationsPage:
        """Up to `limit` events that relate to one, from the position `start` on towards `stop`.

        At most MAX_SCANNED_ROWS are looked at: a page may be empty and still not be the last.
        """
        found: list[StoredEvent] = []
        scanned = 0
        at = start
        wanted = min(limit + 1, CHUNK_ROWS)
        while scanned < MAX_SCANNED_ROWS:
            after, up_to = (stop, at) if backwards else (at, stop)
            positions = await self._relations.load_page(
                reader.room.room,
                parent,
                rel_type,
                event_type,
                after=after,
                up_to=up_to,
                limit=wanted,
                backwards=backwards,
                depth=depth,
            )
            scanned += len(positions)
            loaded = await self._events.load(positions)
            candidates = [loaded[position] for position in positions]
            visible = {event.position: event for event in await self._access.visible_events(reader, candidates)}
            for event in candidates:
                if event.position in visible and event.kind == EventKind.TIMELINE:
                    if len(found) == limit:
                        return RelationsPage(found, at)
                    found.append(visible[event.position])
                at = event.position - 1 if backwards else event.position
            if len(positions) < wanted:
                return RelationsPage(found, None)
        return RelationsPage(found, at)

    async def threads(self, reader: Reader, *, start: int, up_to: int, limit: int, participated: bool) -> RelationsPage:
        """Up to `limit` roots of threads, by their newest events, from the position `start` back."""
        found: list[StoredEvent] = []
        scanned = 0
        at = start
        wanted = min(limit + 1, CHUNK_ROWS)
        while scanned < MAX_SCANNED_ROWS:
            threads = await self._relations.load_threads(
                reader.room.room,
                start=at,
                up_to=up_to,
                ignored=reader.ignored,
                limit=wanted,
                participant=reader.user_id if participated else None,
            )
            scanned += len(threads)
            roots = await self._roots(reader, [parent for parent, _ in threads])
            for parent, position in threads:
                if (root := roots.get(parent)) is not None:
                    if len(found) == limit:
                        return RelationsPage(found, at)
                    found.append(root)
                at = position - 1
            if len(threads) < wanted:
                return RelationsPage(found, None)
        return RelationsPage(found, at)

    async def _roots(self, reader: Reader, event_ids: list[str]) -> dict[str, StoredEvent]:
        """Those of these events that are roots of threads in the room as the reader sees it."""
        loaded = await self._events.load_ids(event_ids)
        candidates = [
            event for event in loaded.values() if event.room == reader.room.room and event.kind == EventKind.TIMELINE
        ]
        candidates.sort(key=lambda event: event.position)
        # Roots by ignored users are shown redacted rather than left out, as clients would that ignore by themselves.
        visible = await self._access.visible_events(reader._replace(ignored=frozenset()), candidates)
        bundles = await self._aggregations.bundles(reader, visible)
        return {
            event.event_id: as_redacted(event) if event.pdu.sender in reader.ignored else event
            for event in visible
            if (bundle := bundles.get(event.position)) is not None and bundle.thread is not None
        }

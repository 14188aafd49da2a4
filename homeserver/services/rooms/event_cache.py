"""Events by position and by ID, as many as the configuration allows."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from homeserver.metrics import Metrics
from homeserver.services.rooms.claims import Claims
from storage.events import EventRepository, StoredEvent


class EventCache:
    """A bounded cache over the event repository. Events do not change, so nothing needs to be invalidated; what a
    redaction does to an event is done to the very object (`replace`), and what is known of an event's children is
    brought up to date when there is another by whoever publishes that, who counts `relations_published` up.

    `claims` says of which events of other servers somebody is just finding out if they are known, to store them."""

    def __init__(self, repository: EventRepository, metrics: Metrics, *, max_events: int) -> None:
        self._repository = repository
        self._max_events = max_events
        self._by_position: OrderedDict[int, StoredEvent] = OrderedDict()
        self._by_id: dict[str, StoredEvent] = {}
        self.relations_published = 0
        self.claims = Claims()
        self._figures = metrics.cache("events", self.__len__)

    def __len__(self) -> int:
        return len(self._by_position)

    def add(self, event: StoredEvent) -> StoredEvent:
        """Keeps a published event; returns the object to use, which is the one that was there already if any."""
        known = self._by_position.setdefault(event.position, event)
        if known is not event:
            return known
        self._by_id[event.event_id] = event
        if len(self._by_position) > self._max_events:
            _, old = self._by_position.popitem(last=False)
            if self._by_id.get(old.event_id) is old:
                del self._by_id[old.event_id]
        return event

    def move(self, position: int, event: StoredEvent) -> None:
        """Lets the position that an event had lead to what it has become."""
        self._by_position[position] = event
        self._by_id[event.event_id] = event

    def get(self, position: int) -> StoredEvent | None:
        """The event at a position, if it is here."""
        event = self._by_position.get(position)
        if event is not None:
            self._by_position.move_to_end(position)
        return event

    def known(self, event_id: str) -> StoredEvent | None:
        """The event with this ID, if it is here."""
        return self._by_id.get(event_id)

    def _add_read(self, event: StoredEvent, relations_published: int) -> StoredEvent:
        """Adds an event from the database. What was related to it since the query began, the query did not see."""
        if relations_published != self.relations_published:
            event.children = None
        return self.add(event)

    def showing(self, position: int) -> list[StoredEvent]:
        """The events here whose `unsigned` shows the content of the event at a position. Looks at all there are."""
        return [e for e in self._by_position.values() if e.replaces == position or e.redacted_by == position]

    async def load(self, positions: Iterable[int]) -> dict[int, StoredEvent]:
        """The events at these positions, from here or from the database."""
        found: dict[int, StoredEvent] = {}
        missing = []
        for position in positions:
            event = self.get(position)
            if event is None:
                missing.append(position)
            else:
                found[position] = event
        self._figures.hits += len(found)
        self._figures.misses += len(missing)
        if missing:
            published = self.relations_published
            for event in await self._repository.load_by_position(missing):
                found[event.position] = self._add_read(event, published)
            if gone := [position for position in missing if position not in found]:
                found.update(await self._load_moved(gone))
        return found

    async def _load_moved(self, positions: list[int]) -> dict[int, StoredEvent]:
        moved = await self._repository.load_moved(positions)
        if not moved:
            return {}
        loaded = await self.load(set(moved.values()))
        found = {position: loaded[moved_to] for position, moved_to in moved.items() if moved_to in loaded}
        for position, event in found.items():
            self.move(position, event)
        return found

    async def load_event_ids(self, positions: Iterable[int]) -> dict[int, str]:
        """Position -> event ID, without the events."""
        found: dict[int, str] = {}
        missing = []
        for position in positions:
            event = self._by_position.get(position)
            if event is None:
                missing.append(position)
            else:
                found[position] = event.event_id
        if missing:
            found.update(await self._repository.load_event_ids(missing))
        return found

    async def load_id(self, event_id: str) -> StoredEvent | None:
        """The event with this ID, whatever its kind."""
        return (await self.load_ids([event_id])).get(event_id)

    async def load_ids(self, event_ids: Iterable[str]) -> dict[str, StoredEvent]:
        """The events with these IDs."""
        found: dict[str, StoredEvent] = {}
        missing = []
        for event_id in event_ids:
            event = self._by_id.get(event_id)
            if event is None:
                if "\0" not in event_id:  # which PostgreSQL would not even look for
                    missing.append(event_id)
            else:
                found[event_id] = event
        self._figures.hits += len(found)
        self._figures.misses += len(missing)
        if missing:
            published = self.relations_published
            for event in await self._repository.load_by_id(missing):
                found[event.event_id] = self._add_read(event, published)
        return found

    async def load_timeline(
        self, room: int, *, after: int, up_to: int, limit: int, backwards: bool
    ) -> list[StoredEvent]:
        """A slice of a room's timeline from the database, as objects of this cache."""
        published = self.relations_published
        events = await self._repository.load_timeline(room, after=after, up_to=up_to, limit=limit, backwards=backwards)
        return [self._add_read(event, published) for event in events]

    async def load_by_time(
        self, room: int, *, ts: int, position: int, limit: int, backwards: bool
    ) -> list[StoredEvent]:
        """Timeline events by their time, from `ts` (and there from a position, without it) in a direction."""
        published = self.relations_published
        events = await self._repository.load_by_time(room, ts=ts, position=position, limit=limit, backwards=backwards)
        return [self._add_read(event, published) for event in events]

"""Slices of a room's timeline: the newest events from memory, older ones from the database."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from homeserver.services.rooms.access import Access, Reader, as_shown
from homeserver.services.rooms.event_cache import EventCache
from homeserver.services.rooms.room import TIMELINE_EVENTS, Room
from matrix.filters import RoomEventFilter
from storage.events import StoredEvent

MAX_SCANNED_EVENTS = 2000
CHUNK_EVENTS = 200
MAX_FILLS = 3
MAX_POSITION = 2**62


class Slice(NamedTuple):
    """Events in the order of their positions. `limited`: there are older ones in the range that are not here.

    `start` is the position before the first event: where paging back begins.
    """

    events: Sequence[StoredEvent]
    limited: bool
    start: int


class Page(NamedTuple):
    """Events in the direction of paging. `end` is where the next page starts, None when there is no more."""

    events: list[StoredEvent]
    end: int | None


class Timelines:
    """Reads timelines for readers: visible events only, filtered.

    `fill_back` fetches what is missing before the beginning of a room's timeline; whether there is more now.
    """

    def __init__(self, events: EventCache, access: Access) -> None:
        self._events = events
        self._access = access
        self.fill_back: Callable[[Room], Awaitable[bool]] | None = None
        self._filling: dict[Room, asyncio.Task[None]] = {}

    async def fill(self, room: Room) -> None:
        """Brings a room's newest events into memory, where they are kept up to date from then on."""
        task = self._filling.get(room)
        if task is None:
            task = self._filling[room] = asyncio.create_task(self._fill(room))
            task.add_done_callback(lambda _: self._filling.pop(room, None))
        await asyncio.shield(task)

    async def _fill(self, room: Room) -> None:
        after = room.timeline_after
        events = await self._events.load_timeline(
            room.room, after=0, up_to=after, limit=TIMELINE_EVENTS, backwards=True
        )
        if room.timeline_after != after:
            return  # so much came in meanwhile that older events were dropped
        room.timeline[:0] = reversed(events)
        room.timeline_after = events[-1].position - 1 if len(events) == TIMELINE_EVENTS else 0

    async def newest(
        self, reader: Reader, *, after: int, up_to: int, limit: int, event_filter: RoomEventFilter
    ) -> Slice:
        """The newest `limit` events in after < p <= up_to that the reader may see and the filter lets through."""
        room = reader.room
        if room.timeline_after > after and len(room.timeline) < min(limit + 1, TIMELINE_EVENTS):
            await self.fill(room)
        if event_filter.is_trivial and self._access.sees_everything(reader):
            found = _from_memory(room, after, up_to, limit)
            if found is not None:
                events = as_shown(reader, found.events)
                if events is found.events:
                    return found
                if len(events) == len(found.events) or not found.limited:
                    return Slice(events, found.limited, found.start)
        page = await self.page(reader, start=up_to, stop=after, limit=limit, backwards=True, event_filter=event_filter)
        events = page.events[::-1]
        start = events[0].position - 1 if events else after
        return Slice(events, page.end is not None, start)

    async def page(
        self,
        reader: Reader,
        *,
        start: int,
        stop: int,
        limit: int,
        backwards: bool,
        event_filter: RoomEventFilter,
        may_fill: bool = False,
    ) -> Page:
        """Up to `limit` events from the token position `start` on, towards `stop`.

        At most MAX_SCANNED_EVENTS are looked at: a page may be empty and still not be the last. With `may_fill`, what
        other servers have of the room's past is fetched when it is come to.
        """
        if not event_filter.allows_room(reader.room.room_id):  # not all events name their room
            return Page([], None)
        found: list[StoredEvent] = []
        scanned = fills = 0
        at = start
        while scanned < MAX_SCANNED_EVENTS:
            wanted = max(CHUNK_EVENTS, limit) if not event_filter.is_trivial else limit - len(found) + 1
            after, up_to = (stop, at) if backwards else (at, stop)
            chunk = await self._events.load_timeline(
                reader.room.room, after=after, up_to=up_to, limit=wanted, backwards=backwards
            )
            scanned += len(chunk)
            visible = {event.position: event for event in await self._access.visible_events(reader, chunk)}
            for event in chunk:
                shown = visible.get(event.position)
                if shown is not None and event_filter.matches(shown.pdu.json):
                    if len(found) == limit:
                        return Page(found, at)
                    found.append(shown)
                at = event.position - 1 if backwards else event.position
            if len(chunk) < wanted:
                if may_fill and backwards and fills < MAX_FILLS and await self._fill_back(reader.room):
                    fills += 1
                    continue
                if may_fill and backwards and reader.room.partial is not None:
                    # There is more, to which belongs a state that is not known yet. A token that is the same as the
                    # one before would say that there is not.
                    return Page(found, at if at < start else max(start - 1, 0))
                return Page(found, None)
        return Page(found, at)

    async def _fill_back(self, room: Room) -> bool:
        return self.fill_back is not None and await self.fill_back(room)

    async def closest(self, reader: Reader, *, ts: int, backwards: bool) -> StoredEvent | None:
        """The visible event nearest to a moment (in milliseconds), at or before it, or at or after it.

        None if there is none among the first MAX_SCANNED_EVENTS.
        """
        position = MAX_POSITION if backwards else -MAX_POSITION
        for _ in range(MAX_SCANNED_EVENTS // CHUNK_EVENTS):
            chunk = await self._events.load_by_time(
                reader.room.room, ts=ts, position=position, limit=CHUNK_EVENTS, backwards=backwards
            )
            if visible := await self._access.visible_events(reader, chunk):
                return visible[0]
            if len(chunk) < CHUNK_EVENTS:
                return None
            ts, position = chunk[-1].pdu.origin_server_ts, chunk[-1].position
        return None


def _from_memory(room: Room, after: int, up_to: int, limit: int) -> Slice | None:
    """The slice, if memory has all of it."""
    events = room.timeline
    end = len(events)
    while end and events[end - 1].position > up_to:
        end -= 1
    begin = end
    while begin and events[begin - 1].position > after and end - begin < limit:
        begin -= 1
    if begin:
        limited = events[begin - 1].position > after
        start = events[begin - 1].position if limited else after
        return Slice(events[begin:end], limited, events[begin].position - 1 if begin < end else start)
    if room.timeline_after <= after or room.timeline_after == 0:
        return Slice(events[begin:end], False, events[begin].position - 1 if begin < end else after)
    return None

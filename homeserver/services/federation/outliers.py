"""Events that are known for what they say of a room's state, and whose place in its timeline is not (yet).

https://spec.matrix.org/v1.19/server-server-api/#checks-performed-on-receipt-of-a-pdu
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence

from homeserver.logs import get_logger
from homeserver.services.federation.verification import Verified
from homeserver.services.rooms.event_cache import EventCache
from homeserver.services.stream import Stream
from matrix.event_auth import Rejection, check_auth_event_selection, check_event_auth
from matrix.pdu import Pdu
from storage.events import EventKind, StoredEvent
from storage.rooms import RoomRow
from storage.stream import Writes

log = get_logger(__name__)

CHUNK_EVENTS = 500
"""How many are written at once: others want to write in between."""


class Outliers:
    """Judges events by their auth events, and keeps them."""

    def __init__(self, stream: Stream, events: EventCache) -> None:
        self._stream = stream
        self._events = events

    async def persist(
        self, room: int, verified: Iterable[Verified], room_row: RoomRow | None = None
    ) -> dict[str, StoredEvent]:
        """Keeps those events that are not known yet; returns all that are known then, by ID.

        Events whose auth events cannot be had are left out. `room_row` is written first, for a room that is new.
        """
        pdus = {one.pdu.event_id: one.pdu for one in verified}
        wanted = pdus.keys() | {event_id for pdu in pdus.values() for event_id in pdu.auth_events}
        wanted |= {create_id for pdu in pdus.values() if (create_id := create_event_id(pdu)) is not None}
        known = await self._events.load_ids(wanted)
        new: list[StoredEvent] = []
        ordered = in_auth_order([pdu for event_id, pdu in pdus.items() if event_id not in known])
        for number, pdu in enumerate(ordered, 1):
            if number % CHUNK_EVENTS == 0:
                await asyncio.sleep(0)  # a large room has a hundred thousand of them, and others wait meanwhile
            auth_events = [known[event_id] for event_id in pdu.auth_events if event_id in known]
            if len(auth_events) < len(pdu.auth_events):
                log.info("an event was dropped, as its auth events are missing", event_id=pdu.event_id)
                continue
            rejection = check_by_auth_events(pdu, auth_events, known)
            kind = EventKind.OUTLIER if rejection is None else EventKind.REJECTED
            event = StoredEvent(position=0, room=room, pdu=pdu, snapshot=0, kind=kind)
            known[pdu.event_id] = event
            new.append(event)
        await self._write(new, room_row)
        return known

    async def _write(self, events: Sequence[StoredEvent], room_row: RoomRow | None) -> None:
        done = []
        for start in range(0, max(len(events), 1), CHUNK_EVENTS):
            writes = Writes()
            if room_row is not None and not start:
                writes.rooms.append(room_row)
            position = self._stream.next_position()
            for event in events[start : start + CHUNK_EVENTS]:
                event.position = position
                writes.events.append(event)
                position = self._stream.next_position()
            done.append(self._stream.submit(position, writes, self._publisher(writes.events)))
            await asyncio.sleep(0)
        await asyncio.gather(*done)

    def _publisher(self, events: Sequence[StoredEvent]) -> Callable[[], None]:
        def publish() -> None:
            for event in events:
                self._events.add(event)

        return publish


def check_by_auth_events(
    pdu: Pdu, auth_events: Sequence[StoredEvent], known: Mapping[str, StoredEvent]
) -> Rejection | None:
    """Check 4: "Passes authorisation rules based on the event's auth events, otherwise it is rejected."

    `known` may have the m.room.create that a room's ID names.
    """
    rejected = [event.event_id for event in auth_events if event.kind == EventKind.REJECTED]
    selection = check_auth_event_selection(pdu, [event.pdu for event in auth_events], rejected)
    if selection is not None:
        return selection
    state = {event.pdu.state_key_pair: event.pdu for event in auth_events}
    create_id = create_event_id(pdu)
    if create_id is not None and (create := known.get(create_id)) is not None and create.kind != EventKind.REJECTED:
        state["m.room.create", ""] = create.pdu
    return check_event_auth(pdu, state, verified_servers=None)


def create_event_id(pdu: Pdu) -> str | None:
    """The ID of the m.room.create that the event's room ID names, where the room version has that."""
    return "$" + pdu.room_id[1:] if pdu.room_version.room_id_is_create_event_hash else None


def in_auth_order(pdus: Sequence[Pdu]) -> list[Pdu]:
    """Events with each after its auth events, as far as they are among them. Those in a circle are left out."""
    by_id = {pdu.event_id: pdu for pdu in pdus}
    waiting = {pdu.event_id: sum(auth_id in by_id for auth_id in set(pdu.auth_events)) for pdu in by_id.values()}
    dependants: dict[str, list[str]] = {}
    for pdu in by_id.values():
        for auth_id in set(pdu.auth_events):
            if auth_id in by_id:
                dependants.setdefault(auth_id, []).append(pdu.event_id)
    # The m.room.create comes first, also where no event names it.
    ready = sorted(
        (event_id for event_id, count in waiting.items() if not count), key=lambda i: by_id[i].type != "m.room.create"
    )
    ordered = []
    for event_id in ready:  # grows meanwhile
        ordered.append(by_id[event_id])
        for dependant in dependants.get(event_id, ()):
            waiting[dependant] -= 1
            if not waiting[dependant]:
                ready.append(dependant)
    return ordered

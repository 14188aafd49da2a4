"""Events that are known for what they say of a room's state, and whose place in its timeline is not (yet).

https://spec.matrix.org/v1.19/server-server-api/#checks-performed-on-receipt-of-a-pdu
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import NamedTuple, TypeVar

import orjson

from homeserver.logs import get_logger
from homeserver.services.federation.verification import Verified
from homeserver.services.rooms.event_cache import EventCache
from homeserver.services.rooms.room import CREATE, MEMBER, Room, StateKey
from homeserver.services.stream import Stream
from matrix.event_auth import Rejection, check_auth_event_selection, check_event_auth
from matrix.pdu import Pdu, load_pdu
from matrix.room_versions import EventIdFormat, RoomVersion
from storage.events import EventKind, StoredEvent
from storage.rooms import RoomRow, StateKeyRow
from storage.snapshots import EMPTY, NewSnapshot
from storage.stream import Writes

log = get_logger(__name__)

Item = TypeVar("Item")

CHUNK_EVENTS = 200
"""How many are judged and written at once: others want their turn in between."""
MAX_WRITES = 4
"""How many such chunks may be on their way to the database."""


class Packed(NamedTuple):
    """An event that was found to be in order, as the text that is stored."""

    auth_events: tuple[str, ...]
    text: bytes
    is_create: bool

    @classmethod
    def of(cls, pdu: Pdu) -> Packed:
        """A verified event."""
        return cls(pdu.auth_events, orjson.dumps(pdu.json), pdu.type == CREATE[0])


class Placed(NamedTuple):
    """Where an event is, and what it says of the state: its key, and the membership of a member event.

    `key` is None for what cannot be part of the room's state, also where it was rejected.
    """

    position: int
    key: StateKey | None
    membership: str | None

    @classmethod
    def of(cls, event: StoredEvent, room: int) -> Placed:
        """A stored event, be it that of another room: in versions 1 and 2 servers choose the IDs."""
        pdu = event.pdu
        if pdu.state_key is None or event.kind == EventKind.REJECTED or event.room != room:
            return cls(event.position, None, None)
        membership = pdu.content["membership"] if pdu.type == MEMBER else None
        return cls(event.position, pdu.state_key_pair, membership)


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
        async with self._events.claims.holding(pdus.keys()):
            return await self._persist(room, pdus, room_row)

    async def _persist(self, room: int, pdus: Mapping[str, Pdu], room_row: RoomRow | None) -> dict[str, StoredEvent]:
        wanted = pdus.keys() | {event_id for pdu in pdus.values() for event_id in pdu.auth_events}
        wanted |= {create_id for pdu in pdus.values() if (create_id := create_event_id(pdu)) is not None}
        known = await self._events.load_ids(wanted)
        new: list[StoredEvent] = []
        ordered = in_auth_order([pdu for event_id, pdu in pdus.items() if event_id not in known])
        for number, pdu in enumerate(ordered, 1):
            if number % CHUNK_EVENTS == 0:
                await asyncio.sleep(0)  # a large room has a hundred thousand of them, and others wait meanwhile
            if (event := self._judge(room, pdu, known)) is not None:
                known[pdu.event_id] = event
                new.append(event)
        await self._write(new, room_row)
        return known

    async def persist_packed(
        self, room: int, version: RoomVersion, packed: Mapping[str, Packed], room_row: RoomRow | None = None
    ) -> dict[str, Placed]:
        """The same for so many events that they are held as text; returns where each of those that are known is.

        One is unpacked when it is judged, and kept for as long as others are to be judged by it.
        """
        async with self._events.claims.holding(packed.keys()):
            return await self._persist_packed(room, version, packed, room_row)

    async def _persist_packed(
        self, room: int, version: RoomVersion, packed: Mapping[str, Packed], room_row: RoomRow | None
    ) -> dict[str, Placed]:
        placed = await self.placed(room, packed)
        ordered, uses = await asyncio.to_thread(_in_order, packed, placed)
        known = await self._events.load_ids([id for id in uses if id in placed or id not in packed])
        first = {event_id for event_id in ordered if packed[event_id].is_create}
        create_ids = first | {event_id for event_id, one in placed.items() if one.key == CREATE}
        known.update(await self._events.load_ids(create_ids - first))
        under_way: deque[asyncio.Future[None]] = deque()
        for ids in _chunks(ordered) or [[]]:
            events = []
            for event_id in ids:
                pdu = load_pdu(orjson.loads(packed[event_id].text), version, event_id)
                event = self._judge(room, pdu, known)
                for auth_id in set(pdu.auth_events):
                    uses[auth_id] -= 1
                    if not uses[auth_id] and auth_id not in create_ids:
                        known.pop(auth_id, None)
                if event is not None:
                    events.append(event)
                    if uses[event_id] or event_id in create_ids:
                        known[event_id] = event
            under_way.append(self._write_some(events, room_row))
            placed.update({event.event_id: Placed.of(event, room) for event in events})
            room_row = None
            await (under_way.popleft() if len(under_way) > MAX_WRITES else asyncio.sleep(0))
        await asyncio.gather(*under_way)
        return placed

    async def placed(self, room: int, event_ids: Iterable[str]) -> dict[str, Placed]:
        """Where those events are that are known, however many: they are not all in memory at once."""
        placed: dict[str, Placed] = {}
        for ids in _chunks(list(event_ids)):
            placed.update({id: Placed.of(event, room) for id, event in (await self._events.load_ids(ids)).items()})
        return placed

    async def persist_ground(self, room: Room, state: Mapping[StateKey, int]) -> int:
        """Writes a state of events that are kept already, key -> position, as a snapshot that stands on nothing."""
        writes = Writes()
        position = self._stream.next_position()
        numbers: dict[int, int] = {}
        for key, at in state.items():
            number = room.keys.get(key)
            if number is None:
                number = room.keys[key] = len(room.keys) + 1
                writes.state_keys.append(StateKeyRow(room.room, number, *key))
            numbers[number] = at
        writes.snapshots.append(NewSnapshot(position, EMPTY, numbers, is_ground=True))
        await self._stream.submit(position, writes, lambda: None, lambda: setattr(room, "stale", True))
        return position

    def _judge(self, room: int, pdu: Pdu, known: Mapping[str, StoredEvent]) -> StoredEvent | None:
        """The event as it is to be kept; None where its auth events are missing."""
        auth_events = [known[event_id] for event_id in pdu.auth_events if event_id in known]
        if len(auth_events) < len(pdu.auth_events):
            log.info("an event was dropped, as its auth events are missing", event_id=pdu.event_id)
            return None
        rejection = check_by_auth_events(pdu, auth_events, known)
        kind = EventKind.OUTLIER if rejection is None else EventKind.REJECTED
        return StoredEvent(position=0, room=room, pdu=pdu, snapshot=0, kind=kind)

    async def _write(self, events: Sequence[StoredEvent], room_row: RoomRow | None) -> None:
        done = []
        for some in _chunks(events) or [[]]:
            done.append(self._write_some(some, room_row))
            room_row = None
            await asyncio.sleep(0)
        await asyncio.gather(*done)

    def _write_some(self, events: Sequence[StoredEvent], room_row: RoomRow | None) -> asyncio.Future[None]:
        writes = Writes()
        if room_row is not None:
            writes.rooms.append(room_row)
        position = self._stream.next_position()
        for event in events:
            event.position = position
            writes.events.append(event)
            position = self._stream.next_position()
        return self._stream.submit(position, writes, self._publisher(writes.events))

    def _publisher(self, events: Sequence[StoredEvent]) -> Callable[[], None]:
        def publish() -> None:
            for event in events:
                self._events.add(event)

        return publish


def _chunks(items: Sequence[Item]) -> list[Sequence[Item]]:
    return [items[start : start + CHUNK_EVENTS] for start in range(0, len(items), CHUNK_EVENTS)]


def _in_order(packed: Mapping[str, Packed], placed: Mapping[str, Placed]) -> tuple[list[str], Counter[str]]:
    """Those of the events that are not placed yet, in the order of their auth events, and how often these are named."""
    new = {event_id: one.auth_events for event_id, one in packed.items() if event_id not in placed}
    first = {event_id for event_id in new if packed[event_id].is_create}
    return auth_order(new, first), Counter(auth_id for auth_ids in new.values() for auth_id in set(auth_ids))


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


def is_same(known: Pdu, pdu: Pdu) -> bool:
    """Whether an event is the one that is known by its ID: in room versions 1 and 2 another one may have it too.

    https://spec.matrix.org/v1.19/rooms/v3/#event-ids
    """
    return pdu.room_version.event_id_format is not EventIdFormat.OPAQUE or known.reference == pdu.reference


def create_event_id(pdu: Pdu) -> str | None:
    """The ID of the m.room.create that the event's room ID names, where the room version has that."""
    return "$" + pdu.room_id[1:] if pdu.room_version.room_id_is_create_event_hash else None


def in_auth_order(pdus: Sequence[Pdu]) -> list[Pdu]:
    """Events with each after its auth events, as far as they are among them. Those in a circle are left out."""
    by_id = {pdu.event_id: pdu for pdu in pdus}
    # The m.room.create comes first, also where no event names it.
    first = {pdu.event_id for pdu in by_id.values() if pdu.type == "m.room.create"}
    return [by_id[event_id] for event_id in auth_order({one: pdu.auth_events for one, pdu in by_id.items()}, first)]


def auth_order(auth_events: Mapping[str, Sequence[str]], first: Collection[str]) -> list[str]:
    """The same by the IDs of events, of which some go before all others that can be first."""
    waiting = {one: sum(auth_id in auth_events for auth_id in set(auths)) for one, auths in auth_events.items()}
    dependants: dict[str, list[str]] = {}
    for event_id, auths in auth_events.items():
        for auth_id in set(auths):
            if auth_id in auth_events:
                dependants.setdefault(auth_id, []).append(event_id)
    ready = sorted((event_id for event_id, count in waiting.items() if not count), key=lambda i: i not in first)
    for event_id in ready:  # grows meanwhile
        for dependant in dependants.get(event_id, ()):
            waiting[dependant] -= 1
            if not waiting[dependant]:
                ready.append(dependant)
    return ready

"""History from before this server was in a room, fetched when somebody reads back that far.

1. The oldest events of the timeline tell what is missing before them.
2. A server in the room gives some of it, and the state before the oldest of these. All is checked as ever.
3. They get positions before all others, and each the state after it. They notify nobody.

https://spec.matrix.org/v1.19/server-server-api/#backfilling-and-retrieving-missing-events
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple
from urllib.parse import quote
from weakref import WeakValueDictionary

from homeserver.logs import get_logger
from homeserver.services.federation.missing_events import MissingEvents, list_of
from homeserver.services.federation.outliers import check_by_auth_events, create_event_id, is_same
from homeserver.services.federation.redactions import NO_REDACTION, Redacting, Redactions
from homeserver.services.federation.verification import Verification, Verified
from homeserver.services.remote import RemoteFailure, Transport
from homeserver.services.rooms.acceptance import redact_stored
from homeserver.services.rooms.branches import State
from homeserver.services.rooms.event_cache import EventCache
from homeserver.services.rooms.room import CREATE, POWER_LEVELS, Room, StateKey
from homeserver.services.stream import Stream
from matrix.pdu import Pdu
from matrix.power_levels import PowerLevels
from matrix.relations import kept_relation
from storage.events import EventKind, EventMove, EventRepository, StoredEvent
from storage.relations import RelationRow
from storage.rooms import StateKeyRow
from storage.snapshots import NewSnapshot
from storage.stream import Writes

log = get_logger(__name__)

CHUNK_EVENTS = 100
OLDEST_EVENTS = 50
"""How many of the oldest events are looked at for what is missing before them."""
MAX_SERVERS_TRIED = 3
MAX_STATES_FETCHED = 3
MAX_CHAINS_FETCHED = 5


class _Place(NamedTuple):
    """Where an event of a chunk stands: the state after it, as a snapshot with changes that are yet to be written."""

    snapshot: int
    changes: Mapping[StateKey, int]
    state: dict[StateKey, int]


class Backfill:
    """Fills timelines backwards."""

    def __init__(
        self,
        stream: Stream,
        events: EventCache,
        rows: EventRepository,
        transport: Transport,
        verification: Verification,
        missing_events: MissingEvents,
        redactions: Redactions,
    ) -> None:
        self._stream = stream
        self._events = events
        self._rows = rows
        self._transport = transport
        self._verification = verification
        self._missing_events = missing_events
        self._redactions = redactions
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._next = -1

    async def open(self) -> None:
        """Finds out which positions are taken."""
        self._next = min(await self._rows.load_first_position(), 0) - 1

    async def fill(self, room: Room) -> bool:
        """Fetches events from before the oldest that a room has here. Whether there are more now.

        Not while its members are not known: the whole state would have to be fetched for it, as it is already.
        """
        if not room.is_shared or room.partial is not None:
            return False
        lock = self._locks.get(room.room_id)
        if lock is None:
            lock = self._locks[room.room_id] = asyncio.Lock()
        first = await self._rows.load_first(room.room)
        async with lock:
            now_first = await self._rows.load_first(room.room)
            if first is not None and now_first is not None and now_first.position < first.position:
                return True  # somebody else has just done it
            missing = await self._missing(room)
            if not missing:
                return False
            servers = [name for name, _ in room.servers.most_common() if not room.domain.endswith(":" + name)]
            for server in servers[:MAX_SERVERS_TRIED]:
                try:
                    if await self._fill_from(server, room, missing):
                        return True
                except RemoteFailure as failure:
                    log.info("a server gave no history", room_id=room.room_id, reason=str(failure))
        return False

    async def _missing(self, room: Room) -> list[str]:
        """The events that are known to be before the oldest ones, and are not here."""
        oldest = await self._events.load_timeline(
            room.room, after=-(2**62), up_to=2**62, limit=OLDEST_EVENTS, backwards=False
        )
        named = list(dict.fromkeys(event_id for event in oldest for event_id in event.pdu.prev_events))
        known = await self._events.load_ids(named)
        return [event_id for event_id in named if not ((event := known.get(event_id)) and event.snapshot)]

    async def _fill_from(self, server: str, room: Room, missing: Sequence[str]) -> bool:
        path = f"/_matrix/federation/v1/backfill/{quote(room.room_id, safe='')}"
        query = [*(("v", event_id) for event_id in missing[:20]), ("limit", str(CHUNK_EVENTS))]
        answer = await self._transport.request(server, "GET", path, query=query)
        checked = await self._verification.verify(list_of(server, answer, "pdus", 2 * CHUNK_EVENTS), room.version)
        pdus = [one.pdu for one in checked if isinstance(one, Verified) and one.pdu.room_id == room.room_id]
        pdus = _before(missing, pdus)
        known = await self._events.load_ids({pdu.event_id for pdu in pdus})
        new = [pdu for pdu in pdus if _is_new(pdu, known.get(pdu.event_id))]
        ordered = in_order(new)
        if not ordered:
            return False
        await self._fetch_auth_events(server, room, ordered)
        before = await self._states_before(server, room, ordered)
        event_ids = [pdu.event_id for pdu in ordered]
        async with self._events.claims.holding(event_ids):
            known = await self._events.load_ids(event_ids)  # what was fetched around them may have brought some
            still_new = [pdu for pdu in ordered if _is_new(pdu, known.get(pdu.event_id))]
            return await self._persist(room, still_new, before, known)

    async def _fetch_auth_events(self, server: str, room: Room, pdus: Sequence[Pdu]) -> None:
        """Sees to it that the auth events of a chunk are known, as far as they are not in it."""
        own = {pdu.event_id for pdu in pdus}
        wanted = {event_id for pdu in pdus for event_id in pdu.auth_events} - own
        asked: set[str] = set()
        while len(asked) < MAX_CHAINS_FETCHED:
            missing = wanted - (await self._events.load_ids(wanted)).keys()
            lacking = (pdu.event_id for pdu in reversed(pdus) if not missing.isdisjoint(pdu.auth_events))
            event_id = next((event_id for event_id in lacking if event_id not in asked), None)
            if event_id is None:
                return
            asked.add(event_id)
            await self._missing_events.fetch_auth_chain(server, room, event_id)

    async def _states_before(self, server: str, room: Room, pdus: Sequence[Pdu]) -> dict[str, State]:
        """The states before those events whose predecessors are neither in the chunk nor known, by another's word."""
        own = {pdu.event_id for pdu in pdus}
        states: dict[str, State] = {}
        for pdu in pdus:
            if own.isdisjoint(pdu.prev_events) and len(states) < MAX_STATES_FETCHED:
                if pdu.type == "m.room.create":
                    states[pdu.event_id] = await self._missing_events.as_state(room, {})
                else:
                    states[pdu.event_id] = await self._missing_events.fetch_state_before(server, room, pdu.event_id)
        return states

    async def _persist(
        self, room: Room, pdus: Sequence[Pdu], before: Mapping[str, State], known: Mapping[str, StoredEvent]
    ) -> bool:
        bases = {event_id: await self._missing_events.whole(room, state) for event_id, state in before.items()}
        wanted = {event_id for pdu in pdus for event_id in (*pdu.auth_events, create_event_id(pdu) or "")}
        auth_events = await self._events.load_ids(wanted - {""})
        targets = await self._events.load_ids({pdu.redacts for pdu in pdus if pdu.redacts is not None})
        redacted_by = await self._redacted_by(room, pdus, known)
        writes = Writes()
        position = self._next - len(pdus)
        self._next = position
        places: dict[str, _Place] = {}
        made: dict[str, StoredEvent] = {}
        for pdu in pdus:
            position += 1
            place = _stands_on(pdu, places, before, bases)
            if place is None or not set(pdu.auth_events) <= auth_events.keys() | made.keys():
                continue  # another server may give what it takes to judge it
            event = StoredEvent(position=position, room=room.room, pdu=pdu, snapshot=place.snapshot)
            redacting = NO_REDACTION
            if not _is_allowed(pdu, auth_events | made):
                event.kind = EventKind.REJECTED
            elif pdu.type == "m.room.redaction" or pdu.event_id in redacted_by:
                redacting = _redacting(pdu, targets | made, auth_events | made, redacted_by)
                event.pdu = redacting.taken_in(pdu)
                if redacting.is_void:
                    event.kind = EventKind.SOFT_FAILED
            places[pdu.event_id] = self._place(room, event, place, writes)
            made[pdu.event_id] = event
            self._note(room, event, redacting, known, writes)
            if redacting.target is not None and redacting.target.event_id in made:
                redact_stored(redacting.target, event, writes)
        if not made:
            return False
        await self._stream.submit(self._stream.next_position(), writes, lambda: self._publish(room, writes, known))
        return True

    async def _redacted_by(
        self, room: Room, pdus: Sequence[Pdu], known: Mapping[str, StoredEvent]
    ) -> dict[str, StoredEvent]:
        """What redacted events of a chunk before they came: of those that were known, or were awaited."""
        found = await self._redactions.before(room, pdus)
        positions = {event_id: event.redacted_by for event_id, event in known.items() if event.redacted_by is not None}
        loaded = await self._events.load(positions.values()) if positions else {}
        return found | {event_id: loaded[at] for event_id, at in positions.items() if at in loaded}

    def _place(self, room: Room, event: StoredEvent, before: _Place, writes: Writes) -> _Place:
        """Gives an event the state after it, written with what could not be written before."""
        changes = dict(before.changes)
        state = before.state
        pdu = event.pdu
        if pdu.state_key is not None and event.kind != EventKind.REJECTED:
            key = pdu.state_key_pair
            event.replaces = state.get(key)
            changes[key] = event.position
            state = {**state, key: event.position}
        if not changes:
            return before
        numbers: dict[int, int] = {}
        for key, at in changes.items():
            number = room.keys.get(key)
            if number is None:
                number = room.keys[key] = len(room.keys) + 1
                writes.state_keys.append(StateKeyRow(room.room, number, *key))
            numbers[number] = at
        writes.snapshots.append(NewSnapshot(event.position, before.snapshot, numbers))
        event.snapshot = event.position
        return _Place(event.position, {}, state)

    def _note(
        self,
        room: Room,
        event: StoredEvent,
        redacting: Redacting,
        known: Mapping[str, StoredEvent],
        writes: Writes,
    ) -> None:
        """Lists what is to be written of an event, beside its state."""
        pdu = event.pdu
        if (outlier := known.get(pdu.event_id)) is not None:
            writes.moves.append(EventMove(outlier.position, event.position))
        writes.events.append(event)
        self._redactions.note(event, redacting, writes)
        if event.kind != EventKind.TIMELINE:
            return
        relation = kept_relation(pdu.type, pdu.state_key, pdu.content)
        if relation is not None:
            row = RelationRow(event.position, room.room, relation.event_id, relation.rel_type, pdu.type, pdu.sender)
            writes.relations.append(row)

    def _publish(self, room: Room, writes: Writes, known: Mapping[str, StoredEvent]) -> None:
        self._events.relations_published += 1
        redacted = {redaction.position for redaction in writes.redactions}
        for event in writes.events:
            event.children = None
            outlier = known.get(event.event_id)
            if outlier is not None:
                if event.pdu.state_key is not None and room.pinned.get(event.pdu.state_key_pair) is outlier:
                    room.pinned[event.pdu.state_key_pair] = event
                self._events.move(outlier.position, event)
            if event.position not in redacted:  # of a redacted one the database has the form to show
                self._events.add(event)


def _is_allowed(pdu: Pdu, known: Mapping[str, StoredEvent]) -> bool:
    return check_by_auth_events(pdu, [known[event_id] for event_id in pdu.auth_events], known) is None


def _redacting(
    pdu: Pdu,
    targets: Mapping[str, StoredEvent],
    auth_events: Mapping[str, StoredEvent],
    redacted_by: Mapping[str, StoredEvent],
) -> Redacting:
    """What redactions there are around an event of a chunk, by the power levels that it names."""
    by = redacted_by.get(pdu.event_id)
    if pdu.type != "m.room.redaction":
        return Redacting(by=by)
    named = [auth_events[event_id].pdu for event_id in (*pdu.auth_events, create_event_id(pdu)) if event_id]
    state = {(auth.type, auth.state_key): auth for auth in named}
    levels = PowerLevels.of(pdu.room_version, state[CREATE], state.get(POWER_LEVELS))
    return Redacting.of(pdu, targets.get(pdu.redacts or ""), levels, by)


def _before(event_ids: Iterable[str], pdus: Iterable[Pdu]) -> list[Pdu]:
    """Those of the events that these are, or that are before them: history is nothing that anybody could add to."""
    by_id = {pdu.event_id: pdu for pdu in pdus}
    found: dict[str, Pdu] = {}
    pending = list(event_ids)
    while pending:
        event_id = pending.pop()
        if event_id in by_id and event_id not in found:
            found[event_id] = by_id[event_id]
            pending.extend(by_id[event_id].prev_events)
    return list(found.values())


def _is_new(pdu: Pdu, known: StoredEvent | None) -> bool:
    """Whether the place of an event in history is not known yet."""
    return known is None or (not known.snapshot and is_same(known.pdu, pdu))


def _stands_on(
    pdu: Pdu, places: Mapping[str, _Place], before: Mapping[str, State], bases: Mapping[str, dict[StateKey, int]]
) -> _Place | None:
    """The state before an event of a chunk; None for one that nothing is known about.

    Where branches of the past come together, it is that of the newest: what it is for is who may see the event.
    """
    for event_id in reversed(pdu.prev_events):
        if event_id in places:
            return places[event_id]
    state = before.get(pdu.event_id)
    return None if state is None else _Place(state.snapshot, state.changes, bases[pdu.event_id])


def in_order(pdus: Iterable[Pdu]) -> list[Pdu]:
    """Events with each after its predecessors, as far as they are among them; else by depth. Circles are left out."""
    by_id = {pdu.event_id: pdu for pdu in sorted(pdus, key=lambda pdu: (pdu.depth, pdu.origin_server_ts, pdu.event_id))}
    ordered: dict[str, Pdu] = {}
    waiting = list(by_id.values())
    while waiting:
        later = []
        for pdu in waiting:
            if all(event_id in ordered or event_id not in by_id for event_id in pdu.prev_events):
                ordered[pdu.event_id] = pdu
            else:
                later.append(pdu)
        if len(later) == len(waiting):
            break
        waiting = later
    return list(ordered.values())

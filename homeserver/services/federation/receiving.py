"""An event of another server comes into a room.

https://spec.matrix.org/v1.19/server-server-api/#checks-performed-on-receipt-of-a-pdu

1. to 3. Its format, signatures and hash are checked (`verification`).
   Events before it that are missing are fetched, and so are auth events (`missing_events`).
4. It is judged by its auth events, 5. by the state before it: otherwise it is rejected.
6. It is judged by the current state: otherwise it is soft-failed. So is a redaction that has no effect (`redactions`).
7. It is soft-failed, too, if the room's policy server does not recommend it (`policy_servers`).
   It takes its place: the room's extremities and its current state change, which may mean resolving.

An event that stands on the tip, and whose auth events are those of the tip, passes or fails 4 to 6 in one check, and
nothing is read from the database for it. All others wait until what is under way in the room is committed, and keep
the room's own users from sending until they have their place: that takes milliseconds.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

from homeserver.logs import get_logger
from homeserver.services.federation.outliers import check_by_auth_events, create_event_id, is_same
from homeserver.services.federation.redactions import NO_REDACTION, Redacting, Redactions
from homeserver.services.rooms.acceptance import Acceptance, Accepted, Origin, Placement
from homeserver.services.rooms.branches import PENDING, Branches, State
from homeserver.services.rooms.claims import Claim
from homeserver.services.rooms.event_cache import EventCache
from homeserver.services.rooms.missing_state import MissingState
from homeserver.services.rooms.room import CREATE, Extremity, NotLoaded, Room, StateKey
from homeserver.services.stream import Stream
from matrix.event_auth import Rejection, auth_event_keys, check_event_auth
from matrix.pdu import Pdu
from storage.events import EventKind, EventMove, StoredEvent
from storage.federation import DestinationRow
from storage.partial_rooms import PartialRoomRow
from storage.rooms import EnteredRow
from storage.snapshots import GONE
from storage.stream import Writes

log = get_logger(__name__)

MAX_LOADS = 8
MAX_ANCESTORS = 100
"""How many events are looked at, back from an event or from the extremities, for what extremities stand on."""

RECEIVED = Origin(is_outgoing=False)
"""Whom an event comes from that another server has sent to all others."""

NOT_RECOMMENDED = Rejection("the room's policy server does not recommend it")
REDACTS_NOTHING = Rejection("it redacts what is not known, or not its sender's to redact")

Done = asyncio.Future[None]


class Dropped(Exception):
    """The event is not taken in at all. The message goes to the server that sent it."""


class _Claimed:
    """What has become of an event that was claimed: `done` once it is on its way to the database."""

    done: Done | None = None


class Receiving:
    """Takes verified events into rooms, whatever branch they stand on. The caller sees to their order in each room."""

    def __init__(
        self,
        stream: Stream,
        events: EventCache,
        acceptance: Acceptance,
        branches: Branches,
        missing: MissingState,
        redactions: Redactions,
    ) -> None:
        self._stream = stream
        self._events = events
        self._acceptance = acceptance
        self._branches = branches
        self._missing = missing
        self._redactions = redactions

    async def take_in(
        self, room: Room, pdu: Pdu, *, origin: Origin = RECEIVED, is_recommended: bool = True
    ) -> Done | None:
        """Gives an event its place in a room; what it stands on must be known, and what is known of it be in memory.

        Returns a future that is done when that is durable; None if it was known already. What the room's policy server
        does not recommend is soft-failed, if it is allowed at all. Raises Dropped, Overloaded.
        """
        if is_recommended and (done := await self.on_tip(room, pdu, origin=origin)) is not None:
            return done
        async with self._claimed(room, pdu) as claimed:
            claimed.done = await self._on_branch(room, pdu, origin, None, is_recommended=is_recommended)
        return claimed.done

    async def take_in_after_gap(
        self, room: Room, pdu: Pdu, state_before: State, *, is_recommended: bool = True
    ) -> Done | None:
        """The same for an event whose predecessors are not known, but the state before it is. Raises Dropped."""
        async with self._claimed(room, pdu) as claimed:
            claimed.done = await self._on_branch(room, pdu, RECEIVED, state_before, is_recommended=is_recommended)
        return claimed.done

    async def take_over(
        self, room: Room, pdu: Pdu, state_before: State, partial: PartialRoomRow | None = None
    ) -> Done | None:
        """The same for a join that begins this server's part in a room: its state is the room's. Raises Dropped.

        With `partial`, of which a row is written then, the state lacks members.
        """
        async with self._claimed(room, pdu) as claimed:
            room.tip.extremities = []
            room.entered_depth = pdu.depth
            first = Writes()
            first.entered.append(EnteredRow(room.room, pdu.depth))
            if room.partial is not None:
                first.abandoned.append(room.abandon(state_before.snapshot))
            if partial is not None:
                room.lack_members(partial.ground, partial.servers)
                first.partial_rooms.append(partial)
                first.destinations += [DestinationRow(server, partial.ground) for server in partial.servers]
            try:
                claimed.done = await self._on_branch(room, pdu, RECEIVED, state_before, first=first)
            finally:
                # Unless the event has become the tip, the room in memory is not what it was any more.
                room.stale |= claimed.done is None or not room.tip.extremities
        return claimed.done

    async def on_tip(self, room: Room, pdu: Pdu, *, origin: Origin = RECEIVED) -> Done | None:
        """Takes in an event that stands on the tip and is allowed there; None for any other.

        What is known of an event with this ID must be in memory.
        """
        for _ in range(MAX_LOADS):
            if room.resolving is not None or room.stale:
                return None
            extremities = {extremity.reference.event_id for extremity in room.tip.extremities}
            if extremities != set(pdu.prev_events):
                return None
            try:
                state = self._tip_state(room, pdu)
                auth_ids = [auth.event_id for key, auth in state.items() if key != CREATE or _names_create(pdu)]
                if sorted(auth_ids) != sorted(pdu.auth_events):
                    return None
                if check_event_auth(pdu, state, power_levels=room.power_levels, verified_servers=None) is not None:
                    return None
                redacting = NO_REDACTION
                if self._redactions.concern(pdu):
                    redacting = await self._redactions.around(room, pdu, room.power_levels)
                if redacting.is_void:
                    return None
                if {extremity.reference.event_id for extremity in room.tip.extremities} != extremities:
                    continue
                if self._events.known(pdu.event_id) is not None or not self._events.claims.is_free(pdu.event_id):
                    return None
                writes = Writes()
                accepted = self._acceptance.accept(
                    room, redacting.taken_in(pdu), replace(origin, target=redacting.target), writes
                )
                self._redactions.note(accepted.event, redacting, writes)
                done = self._submit(room, accepted, writes)
                _release_when_done(self._events.claims.take_free(pdu.event_id), done)
                return done
            except NotLoaded as missing:
                await self._missing.load(missing)
        return None

    def _tip_state(self, room: Room, pdu: Pdu) -> dict[StateKey, Pdu]:
        """What the rules look at, as it is at the tip. Raises NotLoaded."""
        keys = auth_event_keys(room.version, pdu.type, pdu.sender, pdu.state_key, pdu.content)
        found: dict[StateKey, Pdu] = {}
        missing = []
        for key in {*keys, CREATE}:
            event = room.tip_event(key)
            if event is None and (position := room.tip_position(key)) is not None:
                event = self._events.get(position)
                if event is None:
                    missing.append(position)
            if event is not None:
                found[key] = event.pdu
        if missing:
            raise NotLoaded(missing)
        return found

    async def settle(self, room: Room) -> None:
        """Waits until what is under way in a room is committed and published."""
        while room.pending:
            await self._stream.submit(self._stream.next_position(), Writes(), lambda: None)

    @asynccontextmanager
    async def _resolving(self, room: Room) -> AsyncIterator[None]:
        """Holds the room's tip while an event gets its place; what is under way is committed before."""
        assert room.resolving is None, "events of one room are received one after another"
        loop = asyncio.get_running_loop()
        resolving = room.resolving = loop.create_future()
        try:
            await self.settle(room)
            if room.stale:
                raise Dropped("The room is being loaded anew")
            yield
        finally:
            room.resolving = None
            resolving.set_result(None)

    @asynccontextmanager
    async def _claimed(self, room: Room, pdu: Pdu) -> AsyncIterator[_Claimed]:
        """The same while nobody else stores the event, until it is durable."""
        claim = await self._events.claims.take((pdu.event_id,))
        claimed = _Claimed()
        try:
            async with self._resolving(room):
                yield claimed
        finally:
            if claimed.done is None:
                claim.release()
            else:
                _release_when_done(claim, claimed.done)

    async def _on_branch(
        self,
        room: Room,
        pdu: Pdu,
        origin: Origin,
        state_before: State | None,
        *,
        first: Writes | None = None,
        is_recommended: bool = True,
    ) -> Done | None:
        """`first` is what is to be written with the event that begins this server's part in the room."""
        known = (await self._events.load_ids([pdu.event_id])).get(pdu.event_id)
        if known is not None and not is_same(known.pdu, pdu):
            raise Dropped("There is another event with this ID")
        if known is not None and (known.kind in (EventKind.TIMELINE, EventKind.SOFT_FAILED) or known.snapshot):
            return None
        if state_before is None:
            state_before = await self._state_before(room, pdu)
        rejection = await self._judge(room, pdu, state_before)
        writes = Writes()
        if rejection is not None:
            log.info("an event is rejected", event_id=pdu.event_id, room_id=room.room_id, reason=rejection.reason)
            return await self._set_aside(room, pdu, EventKind.REJECTED, state_before, known, writes)
        rejection = NOT_RECOMMENDED if not is_recommended else None
        if rejection is None and first is None:
            rejection = await self._judge_by_tip(room, pdu)
        redacting = NO_REDACTION
        if rejection is None and self._redactions.concern(pdu, known):
            levels = await self._redactions.load_levels(room, state_before)
            redacting = await self._redactions.around(room, pdu, levels, known)
            rejection = REDACTS_NOTHING if redacting.is_void else None
        if rejection is not None:
            log.info("an event is soft-failed", event_id=pdu.event_id, room_id=room.room_id, reason=rejection.reason)
            return await self._set_aside(room, pdu, EventKind.SOFT_FAILED, state_before, known, writes, redacting)
        elif first is not None:
            writes = first
        placement = await self._placement(room, pdu, state_before)
        origin = replace(origin, target=redacting.target)
        for _ in range(MAX_LOADS):
            try:
                accepted = self._acceptance.accept(room, redacting.taken_in(pdu), origin, writes, placement)
                break
            except NotLoaded as missing:
                await self._missing.load(missing)
        else:
            raise Dropped("The server is overloaded")
        if known is not None:
            writes.moves.append(EventMove(known.position, accepted.event.position))
        self._redactions.note(accepted.event, redacting, writes)
        return self._submit(room, accepted, writes, known)

    def _submit(self, room: Room, accepted: Accepted, writes: Writes, known: StoredEvent | None = None) -> Done:
        self._acceptance.summarise(room, [accepted], writes)
        room.pending += 1

        def publish() -> None:
            self._acceptance.publish(room, [accepted], writes)
            if known is not None:
                self._events.move(known.position, accepted.event)

        return self._stream.submit(accepted.event.position, writes, publish, lambda: self._acceptance.undo(room))

    async def _set_aside(
        self,
        room: Room,
        pdu: Pdu,
        kind: EventKind,
        state: State,
        known: StoredEvent | None,
        writes: Writes,
        redacting: Redacting = NO_REDACTION,
    ) -> Done:
        replaces = await self._replaces(room, pdu, state) if kind is EventKind.SOFT_FAILED else None
        event = self._acceptance.set_aside(room, pdu, kind, state.snapshot, state.changes, replaces, writes)
        self._redactions.note(event, redacting, writes)
        if known is not None:
            writes.moves.append(EventMove(known.position, event.position))
        room.pending += 1

        def publish() -> None:
            room.pending -= 1
            self._events.add(event)
            if known is not None:
                self._events.move(known.position, event)

        return self._stream.submit(event.position, writes, publish, lambda: self._acceptance.undo(room))

    async def _state_before(self, room: Room, pdu: Pdu) -> State:
        """The state before an event: that in which the states after its predecessors come together. Raises Dropped."""
        previous = await self._events.load_ids(pdu.prev_events)
        if not previous or len(previous) < len(set(pdu.prev_events)):
            raise Dropped("The events before this one cannot be had")
        if not all(room.can_build_on(event) for event in previous.values()):
            raise Dropped("The events before this one cannot be had")
        snapshots = sorted({event.snapshot for event in previous.values()})
        return await self._branches.resolve(room, [State(snapshot) for snapshot in snapshots])

    async def _judge(self, room: Room, pdu: Pdu, state: State) -> Rejection | None:
        """Checks 4 and 5: by the event's auth events, and by the state before it. Raises Dropped."""
        create_id = create_event_id(pdu)
        known = await self._events.load_ids({*pdu.auth_events, *([create_id] if create_id else ())})
        auth_events = [known[event_id] for event_id in pdu.auth_events if event_id in known]
        if len(auth_events) < len(pdu.auth_events):
            raise Dropped("The auth events of this one cannot be had")
        rejection = check_by_auth_events(pdu, auth_events, known)
        if rejection is not None:
            return rejection
        if state.snapshot == room.tip.snapshot and not state.changes:
            return await self._judge_by_tip(room, pdu)  # branches of messages have one state, which is in memory
        keys = auth_event_keys(room.version, pdu.type, pdu.sender, pdu.state_key, pdu.content)
        auth_state = await self._branches.load_auth_state(room, state, {*keys, CREATE})
        return check_event_auth(pdu, auth_state, verified_servers=None)

    async def _judge_by_tip(self, room: Room, pdu: Pdu) -> Rejection | None:
        """Check 6: by the current state."""
        for _ in range(MAX_LOADS):
            try:
                return check_event_auth(pdu, self._tip_state(room, pdu), verified_servers=None)
            except NotLoaded as missing:
                await self._missing.load(missing)
        raise Dropped("The server is overloaded")

    async def _placement(self, room: Room, pdu: Pdu, before: State) -> Placement:
        """Where an event goes, and what becomes of the room's current state."""
        replaces = await self._replaces(room, pdu, before)
        passed = await self._passed(pdu)
        beside = [extremity for extremity in room.tip.extremities if extremity.reference.event_id not in passed]
        is_past = await self._is_past(beside, pdu)
        new = None
        after = before
        if pdu.state_key is not None and not is_past:
            key = pdu.state_key_pair
            new = StoredEvent(position=PENDING, room=room.room, pdu=pdu, snapshot=0)
            after = State(before.snapshot, {**before.changes, key: PENDING})
        states = [State(snapshot) for snapshot in sorted({extremity.snapshot for extremity in beside})]
        if not is_past:
            states.append(after)
        current = await self._branches.resolve(room, states, new)
        differences = await self._branches.differences(room, [State(room.tip.snapshot), current])
        positions = {key: values[1] for key, values in differences.items() if values[1] != PENDING}
        loaded = await self._events.load(position for position in positions.values() if position != GONE)
        return Placement(
            parent=before.snapshot,
            changes_before=before.changes,
            replaces=replaces,
            beside=beside,
            current={key: loaded.get(position) for key, position in positions.items()},
            is_current=any(values[1] == PENDING for values in differences.values()),
            is_extremity=not is_past,
        )

    async def _replaces(self, room: Room, pdu: Pdu, before: State) -> int | None:
        """The position of the event whose place a state event takes in the state before it."""
        if pdu.state_key is None:
            return None
        return (await self._branches.load_keys(room, before, [pdu.state_key_pair])).get(pdu.state_key_pair)

    async def _is_past(self, extremities: Sequence[Extremity], pdu: Pdu) -> bool:
        """Whether any of these extremities stands on an event, which has come late then.

        It is none itself, or the next event would have the room's state resolved with one of its past.
        """
        pending = {extremity.reference.event_id for extremity in extremities}
        seen: set[str] = set()
        while pending and len(seen) < MAX_ANCESTORS:
            seen |= pending
            loaded = await self._events.load_ids(pending)
            deeper = [event for event in loaded.values() if event.pdu.depth > pdu.depth]
            pending = {event_id for event in deeper for event_id in event.pdu.prev_events} - seen
            if pdu.event_id in pending:
                return True
        return False

    async def _passed(self, pdu: Pdu) -> set[str]:
        """The events that are no extremities once this one is there: its predecessors, and theirs where they are
        events that never were any."""
        passed: set[str] = set()
        pending = set(pdu.prev_events)
        while pending and len(passed) < MAX_ANCESTORS:
            passed |= pending
            loaded = await self._events.load_ids(pending)
            pending = {
                event_id
                for event in loaded.values()
                if event.kind in (EventKind.REJECTED, EventKind.SOFT_FAILED)
                for event_id in event.pdu.prev_events
            } - passed
        return passed


def _release_when_done(claim: Claim, done: Done) -> None:
    """Has a claim released when the event is stored, or was given up."""
    done.add_done_callback(lambda _: claim.release())


def _names_create(pdu: Pdu) -> bool:
    return not pdu.room_version.room_id_is_create_event_hash

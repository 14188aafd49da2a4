"""The events of another server's transaction, each taken into its room or said why not.

Events of a room are taken in one after another, whoever sends them; those of one server in its order. What is missing
before an event is fetched while others have the room: a slow server keeps its own events waiting, and nobody else's.

https://spec.matrix.org/v1.19/server-server-api/#transactions
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from weakref import WeakValueDictionary

from homeserver.logs import get_logger
from homeserver.services.errors import MatrixError
from homeserver.services.federation.holding import Holding, Lacking
from homeserver.services.federation.missing_events import MissingEvents
from homeserver.services.federation.policy_servers import PolicyServers
from homeserver.services.federation.receiving import Done, Dropped, Receiving
from homeserver.services.federation.verification import Verification, Verified
from homeserver.services.remote import RemoteFailure
from homeserver.services.rooms.access import is_admitted
from homeserver.services.rooms.branches import State, Unresolvable
from homeserver.services.rooms.event_cache import EventCache
from homeserver.services.rooms.registry import RoomRegistry
from homeserver.services.rooms.room import Room
from matrix.hashes import compute_event_id
from matrix.identifiers import is_event_id
from matrix.pdu import InvalidPdu, Pdu
from storage.events import EventKind

log = get_logger(__name__)

MAX_RELOADS = 3


TakeBack = Callable[[str, str, Sequence[object]], Awaitable[dict[str, dict[str, Any]]]]


async def _nothing(_origin: str, _room_id: str, _events: Sequence[object]) -> dict[str, dict[str, Any]]:
    return {}


class MembersUnknown(Dropped):
    """Events of a room wait until it is known who is in it."""


class IncomingEvents:
    """Receives events, those of a room one after another and rooms side by side."""

    def __init__(
        self,
        registry: RoomRegistry,
        events: EventCache,
        verification: Verification,
        missing_events: MissingEvents,
        receiving: Receiving,
        policy_servers: PolicyServers,
        holding: Holding,
    ) -> None:
        self._holding = holding
        self._registry = registry
        self._events = events
        self._verification = verification
        self._missing_events = missing_events
        self._receiving = receiving
        self._policy_servers = policy_servers
        self.take_back: TakeBack = _nothing
        """What is done with events of rooms that nobody here is in."""
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._queues: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()

    def lock(self, room_id: str) -> asyncio.Lock:
        """What to hold while events of other servers are taken into a room."""
        lock = self._locks.get(room_id)
        if lock is None:
            lock = self._locks[room_id] = asyncio.Lock()
        return lock

    def _queue(self, origin: str, room_id: str) -> asyncio.Lock:
        """What to hold while events of a server are taken into a room, so that they keep their order."""
        queue = self._queues.get((origin, room_id))
        if queue is None:
            queue = self._queues[origin, room_id] = asyncio.Lock()
        return queue

    async def receive(self, origin: str, events: Sequence[object]) -> dict[str, dict[str, Any]]:
        """Takes in the events of a transaction; returns event ID -> {} or {"error": …}, once all is durable."""
        by_room: dict[str, list[object]] = {}
        for event in events:
            room_id = event.get("room_id") if isinstance(event, dict) else None
            if isinstance(room_id, str):
                by_room.setdefault(room_id, []).append(event)
        results: dict[str, dict[str, Any]] = {}
        rooms = (self._receive_in_room(origin, room_id, found, results) for room_id, found in by_room.items())
        await asyncio.gather(*rooms)
        return results

    async def _receive_in_room(
        self, origin: str, room_id: str, events: Sequence[object], results: dict[str, dict[str, Any]]
    ) -> None:
        room = await self._registry.load(room_id)
        if room is None or not room.local_joined:
            room = await self._joined_meanwhile(room_id)
        if room is None or not room.local_joined:
            # Of others nothing can be said in rooms that nobody here is in, not even by what ID.
            results.update(await self.take_back(origin, room_id, events))
            return
        reason = None if is_admitted(room, origin) else "Your server is kept out of this room"
        lacked_members = room.partial is not None
        verified = await self._recommended(room, await self._verification.verify(events, room.version))
        taken: Sequence[Done] = ()
        async with self._queue(origin, room_id):
            async with self.lock(room_id):
                if reason is None and (held := await self._hold(origin, room_id, verified)) is not None:
                    results.update(held)
                    return
            if lacked_members:  # only now is it known if its policy server is in it
                verified = await self._recommended(await self._room(room_id), verified)
            for event, one in zip(events, verified, strict=True):
                if isinstance(one, InvalidPdu):
                    if (event_id := _event_id(event, room)) is not None:
                        results[event_id] = {"error": str(one)}
                else:
                    results[one.pdu.event_id] = {} if reason is None else {"error": reason}
            if reason is None:
                good = deque(one for one in verified if isinstance(one, Verified))
                taken = await self._receive_in_order(origin, room_id, good, results)
        if taken:
            await asyncio.wait(taken)
        for done in taken:
            if done.cancelled() or done.exception() is not None:
                raise MatrixError(503, "M_UNKNOWN", "The events could not be stored")

    async def _receive_in_order(
        self, origin: str, room_id: str, waiting: deque[Verified], results: dict[str, dict[str, Any]]
    ) -> list[Done]:
        """Takes in events one after another; where something is missing before one, others have the room meanwhile."""
        taken: list[Done] = []
        await self._load_known(waiting)
        while waiting:
            one = await self._receive_until_gap(origin, room_id, waiting, results, taken)
            if one is None:
                break
            with _noting(origin, one.pdu.event_id, results):
                try:
                    if (done := await self._receive_with_gap(origin, room_id, one)) is not None:
                        taken.append(done)
                except MembersUnknown:
                    async with self.lock(room_id):
                        results.update(await self._hold(origin, room_id, [one]) or {})
            await self._load_known(waiting)  # that took its time
        return taken

    async def _receive_until_gap(
        self,
        origin: str,
        room_id: str,
        waiting: deque[Verified],
        results: dict[str, dict[str, Any]],
        taken: list[Done],
    ) -> Verified | None:
        """Takes in events up to one before which something is missing: that one, if there is any."""
        async with self.lock(room_id):
            while waiting:
                one = waiting.popleft()
                with _noting(origin, one.pdu.event_id, results):
                    try:
                        done, is_complete = await self._receive_at_once(room_id, one)
                    except MembersUnknown:
                        results.update(await self._hold(origin, room_id, [one]) or {})
                        continue
                    if not is_complete:
                        return one
                    if done is not None:
                        taken.append(done)
        return None

    async def _recommended(
        self, room: Room, verified: Sequence[Verified | InvalidPdu]
    ) -> Sequence[Verified | InvalidPdu]:
        """Events with what the room's policy server says of them: of those that are new."""
        if self._policy_servers.find(room) is None:
            return verified
        good = [one for one in verified if isinstance(one, Verified)]
        await self._load_known(good)
        new = [one for one in good if not self._is_taken_in(one)]
        checked = {one.pdu.event_id: one for one in await self._policy_servers.check(room, new)}
        return [checked.get(one.pdu.event_id, one) if isinstance(one, Verified) else one for one in verified]

    async def _hold(
        self, origin: str, room_id: str, verified: Sequence[Verified | InvalidPdu]
    ) -> dict[str, dict[str, Any]] | None:
        """What is answered to events of a room that lacks members, where they are kept for later; None elsewhere."""
        room = await self._room(room_id)
        if room.partial is None:
            return None
        return await self._holding.hold(room, origin, [one for one in verified if isinstance(one, Verified)])

    async def receive_held(self, origin: str, room_id: str, pdu: Pdu) -> Done | None:
        """Takes in an event that was held back. Raises Dropped, RemoteFailure."""
        async with self._queue(origin, room_id):
            return await self._receive_one(origin, room_id, await self._held(room_id, pdu))

    async def receive_held_at_once(self, room_id: str, pdu: Pdu) -> Done | None:
        """The same if nothing is missing before it. The caller holds the room's lock. Raises Lacking, Dropped."""
        done, is_complete = await self._receive_at_once(room_id, await self._held(room_id, pdu))
        if not is_complete:
            raise Lacking("Events before this one are missing")
        return done

    async def _held(self, room_id: str, pdu: Pdu) -> Verified:
        await self._events.load_ids({pdu.event_id, *pdu.prev_events, *pdu.auth_events})
        room = await self._room(room_id)
        if not room.local_joined:
            raise Dropped("Nobody here is in the room any more")
        [one] = await self._policy_servers.check(room, [Verified(pdu, frozenset())])
        return one

    async def _joined_meanwhile(self, room_id: str) -> Room | None:
        """The room, once a user's join of it that is under way is done: events that follow it may come before that."""
        lock = self._locks.get(room_id)
        if lock is None or not lock.locked():
            return None
        async with lock:
            return await self._registry.load(room_id)

    async def receive_own(self, server: str, room_id: str, pdu: Pdu) -> None:
        """Takes in an event of a user here that another server has let into a room. Raises MatrixError."""
        try:
            [one] = await self._policy_servers.check(await self._room(room_id), [Verified(pdu, frozenset())])
            done = await self._receive_one(server, room_id, one)
        except (Dropped, RemoteFailure) as error:
            raise MatrixError(502, "M_UNKNOWN", f"{server}: {error}") from None
        if done is not None:
            await done

    async def _load_known(self, verified: Iterable[Verified | InvalidPdu]) -> None:
        """Brings into memory what is known of these events and of those they name, in one query."""
        wanted: set[str] = set()
        for one in verified:
            if isinstance(one, Verified):
                wanted.update((one.pdu.event_id, *one.pdu.prev_events, *one.pdu.auth_events))
        await self._events.load_ids(wanted)

    async def _receive_one(self, origin: str, room_id: str, one: Verified) -> Done | None:
        """Takes in one event, with what is missing before it. Raises Dropped, RemoteFailure."""
        async with self.lock(room_id):
            done, is_complete = await self._receive_at_once(room_id, one)
        return done if is_complete else await self._receive_with_gap(origin, room_id, one)

    async def _receive_at_once(self, room_id: str, one: Verified) -> tuple[Done | None, bool]:
        """Takes in one event, if it is known what it stands on: whether that is so. The caller holds the room's lock.

        Raises Dropped.
        """
        if self._is_taken_in(one):
            return None, True
        for _ in range(MAX_RELOADS):
            room = await self._usable_room(room_id)
            if one.is_recommended and (done := await self._receiving.on_tip(room, one.pdu)) is not None:
                return done, True
            await self._receiving.settle(room)
            if room.stale:
                continue
            if await self._lacks(room, one):
                return None, False
            return await self._receiving.take_in(room, one.pdu, is_recommended=one.is_recommended), True
        raise Dropped("The room cannot be loaded")

    async def _receive_with_gap(self, origin: str, room_id: str, one: Verified) -> Done | None:
        """Takes in one event, and before it what it stands on, as far as that can be had."""
        room = await self._room(room_id)
        found: Sequence[Verified] = ()
        try:
            if await self._is_missing_events(room, one):
                found = await self._missing_events.fetch_between(origin, room, one.pdu.event_id)
        except RemoteFailure as failure:
            log.info("missing events could not be fetched", room_id=room_id, reason=str(failure))
        for before in await self._policy_servers.check(room, found):
            try:
                await self._receive_after_gap(origin, room_id, before)
            except (Dropped, RemoteFailure, Unresolvable) as error:
                log.info("a missing event was dropped", event_id=before.pdu.event_id, reason=str(error))
        return await self._receive_after_gap(origin, room_id, one)

    async def _receive_after_gap(self, origin: str, room_id: str, one: Verified) -> Done | None:
        """Takes in an event, by the word of the other server on the state before it where that cannot be told."""
        if one.pdu.room_id != room_id:
            return None
        state: State | None = None
        has_fetched_chain = False
        for _ in range(MAX_RELOADS):
            async with self.lock(room_id):
                room = await self._usable_room(room_id)
                await self._receiving.settle(room)
                if room.stale:
                    continue
                await self._events.load_ids((one.pdu.event_id,))
                if self._is_taken_in(one):
                    return None
                lacks_auth_events = await self._lacks_auth_events(one)
                lacks_state = await self._is_missing_events(room, one)
                if not lacks_auth_events and not lacks_state:
                    return await self._receiving.take_in(room, one.pdu, is_recommended=one.is_recommended)
                if not lacks_auth_events and state is not None:
                    return await self._receiving.take_in_after_gap(
                        room, one.pdu, state, is_recommended=one.is_recommended
                    )
            if lacks_auth_events and has_fetched_chain:
                raise Dropped("The auth events of this one cannot be had")
            if lacks_auth_events:
                await self._missing_events.fetch_auth_chain(origin, room, one.pdu.event_id)
                has_fetched_chain = True
            if lacks_state and state is None:
                if not one.pdu.prev_events:
                    raise Dropped("A room begins only once")
                state = await self._missing_events.fetch_state_before(origin, room, one.pdu.event_id)
        raise Dropped("The events before this one cannot be had")

    async def _lacks(self, room: Room, one: Verified) -> bool:
        """Whether anything is missing that an event stands on."""
        return await self._lacks_auth_events(one) or await self._is_missing_events(room, one)

    async def _lacks_auth_events(self, one: Verified) -> bool:
        known = await self._events.load_ids(one.pdu.auth_events)
        return not known.keys() >= set(one.pdu.auth_events)

    def _is_taken_in(self, one: Verified) -> bool:
        known = self._events.known(one.pdu.event_id)
        return known is not None and known.kind in (EventKind.TIMELINE, EventKind.SOFT_FAILED)

    async def _is_missing_events(self, room: Room, one: Verified) -> bool:
        """Whether events that the event stands on are not known, or not the state after them."""
        previous = await self._events.load_ids(one.pdu.prev_events)
        known = [event for event in previous.values() if room.can_build_on(event)]
        return not known or len(known) < len(set(one.pdu.prev_events))

    async def _usable_room(self, room_id: str) -> Room:
        """The room, if events can be judged there. Raises Dropped."""
        room = await self._room(room_id)
        if room.partial is not None:
            raise MembersUnknown("It is not known any more who is in the room")
        return room

    async def _room(self, room_id: str) -> Room:
        room = await self._registry.load(room_id)
        if room is None:
            raise Dropped("This server is not in the room")
        return room


@contextmanager
def _noting(origin: str, event_id: str, results: dict[str, dict[str, Any]]) -> Iterator[None]:
    """Notes why an event is not taken in."""
    try:
        yield
    except (Dropped, RemoteFailure) as error:
        log.info("an event was dropped", event_id=event_id, origin=origin, reason=str(error))
        results[event_id] = {"error": str(error)}
    except Unresolvable as error:
        log.error("an event has no place in its room", event_id=event_id, exc_info=error)
        results[event_id] = {"error": error.message}


def _event_id(event: object, room: Room) -> str | None:
    try:
        event_id = compute_event_id(event, room.version) if isinstance(event, dict) else None
    except (ValueError, KeyError):
        return None
    return event_id if is_event_id(event_id) else None  # versions 1 and 2 have it as the other server wrote it

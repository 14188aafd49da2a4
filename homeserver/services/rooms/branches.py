"""The states of a room's branches, how they differ, and what they resolve to where they meet.

The algorithm itself is pure (`matrix/state_res`): here it is given what it asks for. All of it costs what differs, not
what the room has: states are never loaded whole but where the algorithm needs them so.
https://spec.matrix.org/v1.19/server-server-api/#room-state-resolution
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from homeserver.services.errors import MatrixError
from homeserver.services.rooms.event_cache import EventCache
from homeserver.services.rooms.room import Room, StateKey
from matrix.pdu import Pdu
from matrix.state_res import AuthChains, ChainsTooLong, MissingEvents, resolve_conflict
from storage.events import EventKind, StoredEvent
from storage.snapshots import EMPTY, GONE, SnapshotRepository

MAX_ROUNDS = 2_000
MAX_KEYS_ASKED_SINGLY = 64
"""After so many the whole state is found out at once: a hostile room could ask for one key after another."""
PENDING = -(2**62)
"""The position, for the time being, of an event that gets one once it is known what becomes of the state."""
MAX_ROOMS_WITH_CHAINS = 100
IN_THREAD_FROM_EVENTS = 500
"""From how many events in conflict on they are resolved in a thread: others wait for some 20 ms, and no longer."""
NO_CHANGES: Mapping[StateKey, int] = {}


class State(NamedTuple):
    """A state of a room: a stored snapshot with changes on top, key -> position, GONE for what it does not have."""

    snapshot: int
    changes: Mapping[StateKey, int] = NO_CHANGES


class Unresolvable(MatrixError):
    """500 M_UNKNOWN: what the room's state rests on is not all there, or goes in circles. No other room suffers."""

    def __init__(self, message: str) -> None:
        super().__init__(500, "M_UNKNOWN", message)


class _MissingKeys(Exception):
    def __init__(self, keys: Collection[StateKey]) -> None:
        super().__init__(f"{len(keys)} keys")
        self.keys = keys


class _MissingAll(Exception):
    """The whole state."""


class Branches:
    """Compares and resolves states. Everything that it is given must be committed already."""

    def __init__(self, events: EventCache, snapshots: SnapshotRepository) -> None:
        self._events = events
        self._snapshots = snapshots
        self._chains: OrderedDict[str, AuthChains] = OrderedDict()

    async def load_keys(self, room: Room, state: State, keys: Iterable[StateKey]) -> dict[StateKey, int]:
        """Those of the keys that the state has: key -> position."""
        found = {}
        stored: dict[int, StateKey] = {}
        for key in keys:
            if key in state.changes:
                found[key] = state.changes[key]
            elif (number := room.keys.get(key)) is not None:
                stored[number] = key
        if stored and state.snapshot != EMPTY:
            positions = await self._snapshots.load_keys(state.snapshot, list(stored))
            found.update({stored[number]: position for number, position in positions.items()})
        return {key: position for key, position in found.items() if position != GONE}

    async def load_all(self, room: Room, state: State) -> dict[StateKey, int]:
        """The whole state."""
        stored = await self._snapshots.load(state.snapshot) if state.snapshot != EMPTY else {}
        whole = {key: stored[number] for key, number in room.keys.items() if number in stored}
        whole.update(state.changes)
        return {key: position for key, position in whole.items() if position != GONE}

    async def load_auth_state(self, room: Room, state: State, keys: Iterable[StateKey]) -> dict[StateKey, Pdu]:
        """The events that the state has under these keys."""
        positions = await self.load_keys(room, state, keys)
        events = await self._events.load(positions.values())
        return {key: events[position].pdu for key, position in positions.items()}

    async def differences(self, room: Room, states: Sequence[State]) -> dict[StateKey, list[int]]:
        """Where states differ: key -> its position in each of them, GONE where one does not have it."""
        snapshots = list(dict.fromkeys(state.snapshot for state in states))
        stored: dict[StateKey, dict[int, int]] = {}
        if len(snapshots) > 1:
            names = {number: key for key, number in room.keys.items()}
            for number, positions in (await self._snapshots.load_differences(snapshots)).items():
                stored[names[number]] = dict(zip(snapshots, positions, strict=True))
        changed = {key for state in states for key in state.changes}
        common = await self.load_keys(room, State(snapshots[0]), changed - stored.keys())
        found = {}
        for key in changed | stored.keys():
            by_snapshot = stored.get(key)
            values = [
                state.changes[key]
                if key in state.changes
                else (by_snapshot[state.snapshot] if by_snapshot is not None else common.get(key, GONE))
                for state in states
            ]
            if len(set(values)) > 1:
                found[key] = values
        return found

    async def resolve(self, room: Room, states: Sequence[State], new: StoredEvent | None = None) -> State:
        """The state in which these come together. `new` is an event at the position PENDING that is not stored yet."""
        first = states[0]
        if len(states) == 1:
            return first
        differences = await self.differences(room, states)
        if not differences:
            return first
        positions = {position for values in differences.values() for position in values if position != GONE}
        loaded = await self._events.load(positions - {PENDING})
        if new is not None:
            loaded[PENDING] = new
        conflicted: list[dict[StateKey, str]] = [{} for _ in states]
        for key, values in differences.items():
            for state_set, position in zip(conflicted, values, strict=True):
                if position != GONE:
                    state_set[key] = loaded[position].event_id
        resolution = _Resolution(self, self._events, room, first, self._chains_of(room))
        if new is not None:
            resolution.add(new)
        resolved = await resolution.run(conflicted)
        found = await self._events.load_ids(set(resolved.values()) - ({new.event_id} if new is not None else set()))
        if new is not None:
            found[new.event_id] = new
        changes = dict(first.changes)
        for key in differences.keys() | resolved.keys():
            changes[key] = found[resolved[key]].position if key in resolved else GONE
        return State(first.snapshot, changes)

    def forget_chains(self, room: Room) -> None:
        """Lets the next resolution in a room begin with an index of its own."""
        self._chains.pop(room.room_id, None)

    def _chains_of(self, room: Room) -> AuthChains:
        chains = self._chains.get(room.room_id)
        if chains is None:
            chains = self._chains[room.room_id] = AuthChains()
            if len(self._chains) > MAX_ROOMS_WITH_CHAINS:
                self._chains.popitem(last=False)
        self._chains.move_to_end(room.room_id)
        return chains


class _Resolution:
    """One resolution: calls the algorithm, loads what that lacks, and calls again."""

    def __init__(self, branches: Branches, events: EventCache, room: Room, common: State, chains: AuthChains) -> None:
        self._branches = branches
        self._events = events
        self._room = room
        self._common = common
        self._chains = chains
        self._pdus: dict[str, Pdu] = {}
        self._rejected: set[str] = set()
        self._unconflicted: dict[StateKey, str | None] = {}
        self._all: Collection[str] | None = None
        self._is_whole = False

    def add(self, event: StoredEvent) -> None:
        """Adds an event that is not stored yet."""
        self._pdus[event.event_id] = event.pdu

    async def run(self, conflicted: Sequence[Mapping[StateKey, str]]) -> dict[StateKey, str]:
        """The resolved state under the keys that differ, and maybe others."""
        event_ids = {event_id for state_set in conflicted for event_id in state_set.values()}
        await self._load(event_ids)
        for _ in range(MAX_ROUNDS):
            try:
                if len(event_ids) < IN_THREAD_FROM_EVENTS:
                    return self._resolve(conflicted)
                return await self._resolve_in_thread(conflicted)
            except MissingEvents as missing:
                await self._load(missing.event_ids)
            except _MissingKeys as missing:
                await self._load_unconflicted(missing.keys)
            except _MissingAll:
                await self._load_all()
            except ChainsTooLong:
                raise Unresolvable("The auth events of the room are too many") from None
        raise Unresolvable("The state of the room cannot be resolved")

    async def _resolve_in_thread(self, conflicted: Sequence[Mapping[StateKey, str]]) -> dict[StateKey, str]:
        try:
            return await asyncio.to_thread(self._resolve, conflicted)
        except asyncio.CancelledError:
            self._branches.forget_chains(self._room)  # which the thread goes on to change
            raise

    def _resolve(self, conflicted: Sequence[Mapping[StateKey, str]]) -> dict[StateKey, str]:
        return resolve_conflict(
            self._room.version,
            self._look_up,
            conflicted,
            self._pdus,
            unconflicted_ids=self._all_ids,
            rejected=self._rejected,
            chains=self._chains,
        )

    def _look_up(self, key: StateKey) -> str | None:
        if key not in self._unconflicted:
            if self._is_whole:
                return None
            raise _MissingKeys((key,))
        return self._unconflicted[key]

    def _all_ids(self) -> Collection[str]:
        if self._all is None:
            raise _MissingAll
        return self._all

    async def _load(self, event_ids: Iterable[str]) -> None:
        """Loads events and, while they are at hand, what their auth chains lead to."""
        wanted = set(event_ids) - self._pdus.keys()
        loaded = await self._events.load_ids(wanted)
        if len(loaded) < len(wanted):
            raise Unresolvable("Auth events of the room are missing")
        for event_id, event in loaded.items():
            self._pdus[event_id] = event.pdu
            if event.kind == EventKind.REJECTED:
                self._rejected.add(event_id)
        pending = [event.pdu for event in loaded.values()]
        while pending:
            for event_id in pending.pop().auth_events:
                if event_id not in self._pdus and (known := self._events.known(event_id)) is not None:
                    self._pdus[event_id] = known.pdu
                    if known.kind == EventKind.REJECTED:
                        self._rejected.add(event_id)
                    if event_id not in self._chains:
                        pending.append(known.pdu)

    async def _load_unconflicted(self, keys: Collection[StateKey]) -> None:
        if len(self._unconflicted) >= MAX_KEYS_ASKED_SINGLY:
            await self._load_all()
            return
        positions = await self._branches.load_keys(self._room, self._common, keys)
        events = await self._events.load(positions.values())
        for key in keys:
            event = events.get(positions.get(key, GONE))
            self._unconflicted[key] = None if event is None else event.event_id
            if event is not None:
                self._pdus.setdefault(event.event_id, event.pdu)

    async def _load_all(self) -> None:
        """Finds out the whole state, by the IDs of its events: those that are looked at are asked for by these."""
        positions = await self._branches.load_all(self._room, self._common)
        event_ids = await self._events.load_event_ids(positions.values())
        self._unconflicted = {key: event_ids[position] for key, position in positions.items()}
        self._all = list(event_ids.values())
        self._is_whole = True

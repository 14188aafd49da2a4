"""What the state of a room must be, by nothing but its events: worked out from scratch, event by event.

A server works with snapshots, differences, memories, and with what others tell it where it has missed something. Here
the states before and after each event are what the specification says they are, with the slow resolver of the tests.
https://spec.matrix.org/v1.19/server-server-api/#checks-performed-on-receipt-of-a-pdu
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from matrix.event_auth import check_auth_event_selection, check_event_auth
from matrix.pdu import Pdu
from matrix.room_versions import RoomVersion, StateResolution
from matrix.state_res import StateKey, resolve_state
from tests.matrix.naive_state_res import resolve_naively

CREATE = ("m.room.create", "")

States = frozenset[tuple[StateKey, str]]


class UnknownEvent(Exception):
    """No server has an event that another one stands on."""


class Expectation:
    """The states of a room, given all of its events."""

    def __init__(self, version: RoomVersion, events: Mapping[str, Pdu]) -> None:
        self._version = version
        self._events = events
        self._rejected: set[str] = set()
        self._after: dict[str, States] = {}
        self._resolved: dict[frozenset[States], States] = {}

    def state_after(self, event_ids: Iterable[str]) -> dict[StateKey, str]:
        """The state in which the branches that end in these events come together. Raises UnknownEvent."""
        return dict(self._together(event_ids))

    def _together(self, event_ids: Iterable[str]) -> States:
        states = frozenset(self._state_after(event_id) for event_id in event_ids)
        if states not in self._resolved:
            self._resolved[states] = self._resolve(states)
        return self._resolved[states]

    def _resolve(self, states: frozenset[States]) -> States:
        if len(states) < 2:
            return next(iter(states), frozenset())
        state_sets = [dict(state) for state in states]
        if self._version.state_resolution is StateResolution.V1:
            return frozenset(resolve_state(self._version, state_sets, self._events, rejected=self._rejected).items())
        return frozenset(resolve_naively(self._version, state_sets, self._events, self._rejected).items())

    def _state_after(self, event_id: str) -> States:
        if event_id not in self._after:
            self._walk(event_id)
        return self._after[event_id]

    def _walk(self, event_id: str) -> None:
        """Works out the states after all events up to one, the oldest first."""
        waiting = [event_id]
        while waiting:
            pdu = self._events.get(waiting[-1])
            if pdu is None:
                raise UnknownEvent(waiting[-1])
            if before := [previous for previous in pdu.prev_events if previous not in self._after]:
                waiting += before
                continue
            waiting.pop()
            if pdu.event_id not in self._after:
                self._after[pdu.event_id] = self._take(pdu)

    def _take(self, pdu: Pdu) -> States:
        before = self._together(pdu.prev_events)
        if not self._is_allowed(pdu, dict(before)):
            self._rejected.add(pdu.event_id)
            return before
        if pdu.state_key is None:
            return before
        return frozenset((dict(before) | {pdu.state_key_pair: pdu.event_id}).items())

    def _is_allowed(self, pdu: Pdu, before: Mapping[StateKey, str]) -> bool:
        if pdu.type == "m.room.create":
            return True
        auth_events = [self._known(event_id) for event_id in pdu.auth_events]
        rejected = [event.event_id for event in auth_events if event.event_id in self._rejected]
        by_auth_events = {event.state_key_pair: event for event in auth_events}
        if self._version.room_id_is_create_event_hash:
            by_auth_events[CREATE] = self._known("$" + pdu.room_id[1:])
        by_state = {key: self._known(event_id) for key, event_id in before.items()}
        return (
            check_auth_event_selection(pdu, auth_events, rejected) is None
            and check_event_auth(pdu, by_auth_events, verified_servers=None) is None
            and check_event_auth(pdu, by_state, verified_servers=None) is None
        )

    def _known(self, event_id: str) -> Pdu:
        pdu = self._events.get(event_id)
        if pdu is None:
            raise UnknownEvent(event_id)
        return pdu

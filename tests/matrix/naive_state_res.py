"""State resolution 2 and 2.1 once more, as slow and as close to the specification's words as can be, to compare with.

https://spec.matrix.org/v1.19/rooms/v2/#state-resolution, https://spec.matrix.org/v1.19/rooms/v12/#state-resolution
"""

from collections.abc import Container, Mapping, Sequence

from matrix.event_auth import auth_event_keys, check_event_auth
from matrix.pdu import Pdu
from matrix.power_levels import PowerLevels
from matrix.room_versions import RoomVersion, StateResolution
from matrix.state_res import StateMap

Key = tuple[str, str]
State = dict[Key, Pdu]
CREATE, POWER_LEVELS = ("m.room.create", ""), ("m.room.power_levels", "")


class NaiveResolver:
    """The definitions as methods, over the events of one room."""

    def __init__(self, version: RoomVersion, events: Mapping[str, Pdu], rejected: Container[str]) -> None:
        self.version = version
        self.events = events
        self.rejected = rejected

    def auth_events(self, event: Pdu) -> list[Pdu]:
        return [self.events[event_id] for event_id in event.auth_events]

    def auth_chain(self, event: Pdu) -> set[Pdu]:
        chain: set[Pdu] = set()
        todo = self.auth_events(event)
        while todo:
            auth_event = todo.pop()
            if auth_event not in chain:
                chain.add(auth_event)
                todo.extend(self.auth_events(auth_event))
        return chain

    def auth_difference(self, states: list[State]) -> set[Pdu]:
        full_auth_chains = [set().union(*[self.auth_chain(event) for event in state.values()]) for state in states]
        return set().union(*full_auth_chains) - set.intersection(*full_auth_chains)

    def conflicted_state_subgraph(self, conflicted: set[Pdu]) -> set[Pdu]:
        subgraph = set()
        for start in conflicted:
            for end in conflicted & self.auth_chain(start):
                subgraph |= {start, end}
                subgraph |= {event for event in self.auth_chain(start) if end in self.auth_chain(event)}
        return subgraph

    def auth_event(self, event: Pdu, key: Key) -> Pdu | None:
        if key == CREATE and self.version.room_id_is_create_event_hash:
            return self.events["$" + event.room_id[1:]]
        for auth_event in self.auth_events(event):
            if (auth_event.type, auth_event.state_key) == key:
                return auth_event
        return None

    def sender_level(self, event: Pdu) -> float:
        create, power_levels = self.auth_event(event, CREATE), self.auth_event(event, POWER_LEVELS)
        return 0 if create is None else PowerLevels.of(self.version, create, power_levels).user(event.sender)

    def reverse_topological_power_ordering(self, events: set[Pdu]) -> list[Pdu]:
        ordered: list[Pdu] = []
        left = set(events)
        while left:
            candidates = [event for event in left if not self.auth_chain(event) & left]
            smallest = min(
                candidates, key=lambda event: (-self.sender_level(event), event.origin_server_ts, event.event_id)
            )
            ordered.append(smallest)
            left.remove(smallest)
        return ordered

    def power_levels_before(self, event: Pdu) -> list[Pdu]:
        found = []
        power_levels = self.auth_event(event, POWER_LEVELS)
        while power_levels is not None:
            found.append(power_levels)
            power_levels = self.auth_event(power_levels, POWER_LEVELS)
        return found

    def mainline_ordering(self, power_levels: Pdu | None, events: set[Pdu]) -> list[Pdu]:
        mainline = [] if power_levels is None else [power_levels, *self.power_levels_before(power_levels)]

        def mainline_position(event: Pdu) -> float:
            for candidate in self.power_levels_before(event):
                if candidate in mainline:
                    return mainline.index(candidate)
            return float("inf")

        return sorted(events, key=lambda event: (-mainline_position(event), event.origin_server_ts, event.event_id))

    def iterative_auth_checks(self, state: State, events: list[Pdu]) -> State:
        state = dict(state)
        for event in events:
            auth_state: State = {}
            keys = auth_event_keys(self.version, event.type, event.sender, event.state_key, event.content)
            for key in [CREATE, *keys]:
                found = state.get(key)
                if found is None:
                    found = self.auth_event(event, key)
                    if found is not None and found.event_id in self.rejected:
                        found = None
                if found is not None:
                    auth_state[key] = found
            if check_event_auth(event, auth_state, verified_servers=None) is None:
                state[event.state_key_pair] = event
        return state

    def resolve(self, states: list[State]) -> State:
        keys = set().union(*states)
        unconflicted = {
            key: states[0][key]
            for key in keys
            if all(key in state and state[key] is states[0].get(key) for state in states)
        }
        conflicted = {state[key] for state in states for key in state if key not in unconflicted}
        full_conflicted_set = conflicted | self.auth_difference(states)
        if self.version.state_resolution is StateResolution.V2_1:
            full_conflicted_set |= self.conflicted_state_subgraph(conflicted)
        x = set()
        for event in full_conflicted_set:
            if is_power_event(event):
                x |= {event} | self.auth_chain(event) & full_conflicted_set
        initial = {} if self.version.state_resolution is StateResolution.V2_1 else unconflicted
        partial = self.iterative_auth_checks(initial, self.reverse_topological_power_ordering(x))
        remaining = self.mainline_ordering(partial.get(POWER_LEVELS), full_conflicted_set - x)
        return self.iterative_auth_checks(partial, remaining) | unconflicted


def is_power_event(event: Pdu) -> bool:
    if event.type == "m.room.member":
        return event.content["membership"] in ("leave", "ban") and event.sender != event.state_key
    return event.type in ("m.room.power_levels", "m.room.join_rules")


def resolve_naively(
    version: RoomVersion, state_sets: Sequence[StateMap], events: Mapping[str, Pdu], rejected: Container[str] = ()
) -> dict[Key, str]:
    """What `resolve_state` should return for versions 2 and 2.1, given all of the room's events."""
    states = [{key: events[event_id] for key, event_id in state_set.items()} for state_set in state_sets]
    resolved = NaiveResolver(version, events, rejected).resolve(states)
    return {key: event.event_id for key, event in resolved.items()}

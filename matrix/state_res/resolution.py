"""The entrance to state resolution, whichever algorithm a room version has."""

from collections.abc import Callable, Collection, Container, Mapping, Sequence

from matrix.pdu import Pdu
from matrix.room_versions import RoomVersion, StateResolution
from matrix.state_res.auth_chains import AuthChains
from matrix.state_res.common import Conflict, EventId, StateKey, StateMap
from matrix.state_res.split_conflicted import split_conflicted
from matrix.state_res.v1 import resolve_v1
from matrix.state_res.v2 import resolve_v2, resolve_v2_1


def resolve_state(
    version: RoomVersion,
    state_sets: Sequence[StateMap],
    events: Mapping[EventId, Pdu],
    *,
    rejected: Container[EventId] = frozenset(),
    chains: AuthChains | None = None,
) -> dict[StateKey, EventId]:
    """Return the resolution of a set of room states: one state, the same whatever the order of the states.

    `events` are those known so far, by ID; states that agree need none. `rejected` has at least those of them that were
    rejected. `chains` is the room's index of auth chains, if it is kept from one resolution to the next.

    Raises MissingEvents, after which the caller loads those and calls again with all that it has: once for each step
    in the auth chains of the conflicted events that was not loaded along with them, and twice more at most. Raises
    ChainsTooLong where there is no telling.
    https://spec.matrix.org/v1.19/server-server-api/#room-state-resolution
    """
    if not state_sets:
        return {}
    unconflicted, conflicted = split_conflicted(state_sets)
    return unconflicted | _resolve(
        version, conflicted, unconflicted.get, unconflicted.values, events, rejected=rejected, chains=chains
    )


def resolve_conflict(
    version: RoomVersion,
    unconflicted_lookup: Callable[[StateKey], EventId | None],
    conflicted: Sequence[StateMap],
    events: Mapping[EventId, Pdu],
    *,
    unconflicted_ids: Callable[[], Collection[EventId]],
    rejected: Container[EventId] = frozenset(),
    chains: AuthChains | None = None,
) -> dict[StateKey, EventId]:
    """Return what `resolve_state` would, but for the keys that all states agree on.

    `conflicted` are the room states without keys under which all of them have the same event. What they have there is
    asked of `unconflicted_lookup`, by key, as it is needed, and of `unconflicted_ids`, as a whole, in the rare case
    that an event which the states have replaced each on its own is not in all of their auth chains: which needs all
    of the room's auth events. Both may know of more than is unconflicted, such as one of the states, whole. The result
    may have keys that no state has.
    """
    if not conflicted:
        return {}
    agreed, conflicted = split_conflicted(conflicted)
    conflicted_keys = {key for state_set in conflicted for key in state_set}

    def look_up(key: StateKey) -> EventId | None:
        if key in conflicted_keys:
            return None
        return agreed.get(key) or unconflicted_lookup(key)

    return agreed | _resolve(version, conflicted, look_up, unconflicted_ids, events, rejected=rejected, chains=chains)


def _resolve(
    version: RoomVersion,
    conflicted: Sequence[StateMap],
    unconflicted_lookup: Callable[[StateKey], EventId | None],
    unconflicted_ids: Callable[[], Collection[EventId]],
    events: Mapping[EventId, Pdu],
    *,
    rejected: Container[EventId],
    chains: AuthChains | None,
) -> dict[StateKey, EventId]:
    if not any(conflicted):
        return {}
    distinct = list({frozenset(state_set.items()): state_set for state_set in conflicted}.values())
    conflict = Conflict(version, distinct, unconflicted_lookup, unconflicted_ids, events, rejected)
    if version.state_resolution is StateResolution.V1:
        return resolve_v1(conflict)
    if chains is None:
        chains = AuthChains()
    try:
        if version.state_resolution is StateResolution.V2:
            return resolve_v2(conflict, chains)
        return resolve_v2_1(conflict, chains)
    finally:
        chains.trim()  # now: it may not be needed again for a long time

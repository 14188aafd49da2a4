"""The unconflicted state map and the conflicted state set."""

from collections.abc import Sequence

from matrix.state_res.common import EventId, StateKey, StateMap


def split_conflicted(state_sets: Sequence[StateMap]) -> tuple[dict[StateKey, EventId], list[StateMap]]:
    """Return the unconflicted state map, and of each state set the entries that are in conflict.

    Dictionaries are compared as a whole, so that large ones are not walked through but for what differs.
    https://spec.matrix.org/v1.19/rooms/v2/#definitions
    """
    first = state_sets[0]
    conflicted_keys: set[StateKey] = set()
    for other in state_sets[1:]:
        # "If a given key K is present in every S_i with the same value V in each state map, then the pair (K, V)
        # belongs to the unconflicted state map. Otherwise, V belongs to the conflicted state set."
        if other is not first and other != first:
            conflicted_keys.update(key for key, _ in first.items() ^ other.items())
    unconflicted = dict(first)
    for key in conflicted_keys:
        unconflicted.pop(key, None)
    return unconflicted, [_restrict(state_set, conflicted_keys) for state_set in state_sets]


def _restrict(state_set: StateMap, keys: set[StateKey]) -> StateMap:
    return {key: state_set[key] for key in keys if key in state_set}

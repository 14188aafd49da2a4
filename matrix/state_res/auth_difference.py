"""The auth difference: what not all of the states are built on."""

from matrix.state_res.auth_chains import AuthChains, BitSet
from matrix.state_res.common import Conflict


def auth_difference(conflict: Conflict, chains: AuthChains) -> BitSet:
    """Return the auth difference, as far as it is not in the conflicted state set anyway.

    The conflicted events must be in `chains`. Raises MissingEvents.
    https://spec.matrix.org/v1.19/rooms/v2/#definitions
    """
    # "The full auth chain for each state S_i, that is the union of the auth chains for each event in S_i ..."
    # Unconflicted events are in every state: whatever is in their chains is in every full chain.
    full_chains = [chains.full_chain(state_set.values()) for state_set in conflict.state_sets]
    union, intersection = 0, full_chains[0]
    for full_chain in full_chains:
        union |= full_chain
        intersection &= full_chain
    # "... and then taking every event that doesn't appear in every auth chain."
    conflicted_ids = conflict.event_ids
    difference = union & ~intersection & ~chains.bits(conflicted_ids)
    if not difference:
        return 0
    # What is left has been replaced within its state. Only this asks about unconflicted events, however many there are.
    unconflicted_ids = set(conflict.unconflicted_ids())
    unconflicted_ids -= conflicted_ids
    chains.extend(unconflicted_ids, conflict.events)
    return difference & ~chains.in_chains_of(difference, unconflicted_ids)

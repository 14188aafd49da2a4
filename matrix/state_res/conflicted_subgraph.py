"""The conflicted state subgraph: what lies between conflicted events."""

from matrix.state_res.auth_chains import AuthChains, BitSet
from matrix.state_res.common import Conflict


def conflicted_subgraph(conflict: Conflict, chains: AuthChains) -> BitSet:
    """Return the conflicted state subgraph, as far as it is not in the conflicted state set anyway.

    The conflicted events must be in `chains`.
    https://spec.matrix.org/v1.19/rooms/v12/#definitions
    """
    # "Starting from an event in the conflicted state set and following auth_events edges may lead to another event in
    # the conflicted state set." What is on such a path is in the chain of the one event, and has the other in its own.
    conflicted_ids = conflict.event_ids
    conflicted = chains.bits(conflicted_ids)
    ends = chains.full_chain(conflicted_ids) & conflicted
    if not ends:
        return 0
    # Numbers rise from auth events to those that refer to them, so nothing before the first end is on a path.
    first_end = (ends & -ends).bit_length() - 1
    candidates = (chains.full_chain(conflicted_ids) & ~conflicted) >> first_end << first_end
    return chains.bits(event_id for event_id in chains.ids(candidates) if chains.chain(event_id) & ends)

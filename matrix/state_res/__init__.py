"""State resolution: from the states of the branches of a room's history to the one where they meet, as pure functions.

Each module holds one term of the specification, its clauses in the specification's order. Events come from a mapping;
what is not in it is asked for by MissingEvents.
https://spec.matrix.org/v1.19/server-server-api/#room-state-resolution
"""

from matrix.state_res.auth_chains import AuthChains
from matrix.state_res.common import ChainsTooLong, EventId, MissingEvents, StateKey, StateMap
from matrix.state_res.resolution import resolve_conflict, resolve_state

__all__ = [
    "AuthChains",
    "ChainsTooLong",
    "EventId",
    "MissingEvents",
    "StateKey",
    "StateMap",
    "resolve_conflict",
    "resolve_state",
]

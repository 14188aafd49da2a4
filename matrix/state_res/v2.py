"""State resolution of room versions 2 to 11, and that of room version 12, which is called 2.1.

https://spec.matrix.org/v1.19/rooms/v2/#state-resolution, https://spec.matrix.org/v1.19/rooms/v12/#state-resolution
"""

from collections.abc import Callable, Iterator

from matrix.event_auth.common import POWER_LEVELS_KEY
from matrix.pdu import Pdu
from matrix.state_res.auth_chains import AuthChains, BitSet
from matrix.state_res.auth_difference import auth_difference
from matrix.state_res.common import Conflict, EventId, StateKey, check_present
from matrix.state_res.conflicted_subgraph import conflicted_subgraph
from matrix.state_res.iterative_auth import ResolvedState, check_iteratively, get_auth_keys
from matrix.state_res.mainline import order_by_mainline
from matrix.state_res.power_events import is_power_event
from matrix.state_res.reverse_topological_power_ordering import order_by_power


def resolve_v2(conflict: Conflict, chains: AuthChains) -> dict[StateKey, EventId]:
    """Return what the resolved state has beside the unconflicted state map, by state resolution version 2.

    Raises MissingEvents.
    """
    conflicted_ids = conflict.event_ids
    power_levels_id = conflict.unconflicted(POWER_LEVELS_KEY)
    chains.extend(conflicted_ids if power_levels_id is None else conflicted_ids | {power_levels_id}, conflict.events)
    # "The full conflicted set is the union of the conflicted state set and the auth difference."
    conflicted = chains.bits(conflicted_ids)
    full_conflicted_set = conflicted | auth_difference(conflicted, False, conflict, chains)
    # "... starting from the unconflicted state map ..."
    return _resolve(full_conflicted_set, conflict.unconflicted_pdu, conflict, chains)


def resolve_v2_1(conflict: Conflict, chains: AuthChains) -> dict[StateKey, EventId]:
    """Return what the resolved state has beside the unconflicted state map, by state resolution version 2.1.

    Raises MissingEvents.
    """
    conflicted_ids = conflict.event_ids
    chains.extend(conflicted_ids, conflict.events)
    # "The full conflicted set is the union of the conflicted state set, the conflicted state subgraph, and the auth
    # difference."
    conflicted = chains.bits(conflicted_ids) | conflicted_subgraph(conflict, chains)
    full_conflicted_set = conflicted | auth_difference(conflicted, True, conflict, chains)
    # "... starting from an empty state map ..."
    return _resolve(full_conflicted_set, _get_nothing, conflict, chains)


def _get_nothing(key: StateKey) -> Pdu | None:
    """Return what is in an empty state map."""
    return None


def _resolve(
    full_conflicted_set: BitSet, initial: Callable[[StateKey], Pdu | None], conflict: Conflict, chains: AuthChains
) -> dict[StateKey, EventId]:
    """Apply the algorithm to the full conflicted set, starting from the initial state map."""
    full_conflicted_ids = chains.ids(full_conflicted_set)
    check_present(_list_needed(full_conflicted_ids, initial is not _get_nothing, conflict), conflict.events)
    pdus = [conflict.events[event_id] for event_id in full_conflicted_ids]
    # 1. "Select the set X of all power events that appear in the full conflicted set. For each such power event P,
    # enlarge X by adding the events in the auth chain of P which also belong to the full conflicted set. Sort X into a
    # list using the reverse topological power ordering."
    power_events = [pdu.event_id for pdu in pdus if is_power_event(pdu)]
    selected = chains.bits(power_events) | (chains.full_chain(power_events) & full_conflicted_set)
    selected_ids = chains.ids(selected)
    # 2. "Apply the iterative auth checks algorithm ... to get a partially resolved state."
    resolved: ResolvedState = {}
    in_order = order_by_power(selected_ids, conflict, chains)
    check_iteratively(_only_state(in_order), resolved, initial, conflict)
    # 3. "Take all remaining events that weren't picked in step 1 and order them by the mainline ordering based on the
    # power level in the partially resolved state obtained in step 2."
    power_levels = resolved.get(POWER_LEVELS_KEY) or initial(POWER_LEVELS_KEY)
    remaining = set(full_conflicted_ids).difference(selected_ids)
    in_order = order_by_mainline(
        (pdu for pdu in pdus if pdu.event_id in remaining),
        None if power_levels is None else power_levels.event_id,
        chains,
    )
    # 4. "Apply the iterative auth checks algorithm on the partial resolved state and the list of events from the
    # previous step."
    check_iteratively(_only_state(in_order), resolved, initial, conflict)
    # 5. "Update the result by replacing any event with the event with the same key from the unconflicted state map."
    return {key: pdu.event_id for key, pdu in resolved.items() if conflict.unconflicted(key) is None}


def _list_needed(full_conflicted_ids: list[EventId], with_unconflicted: bool, conflict: Conflict) -> Iterator[EventId]:
    """Yield the full conflicted set, and as far as that is present, all else that the algorithm looks at."""
    if with_unconflicted and (power_levels_id := conflict.unconflicted(POWER_LEVELS_KEY)) is not None:
        yield power_levels_id
    for event_id in full_conflicted_ids:
        yield event_id
        pdu = conflict.events.get(event_id)
        if pdu is None:
            continue
        yield from pdu.auth_events
        if (create_id := conflict.create_id(pdu)) is not None:
            yield create_id
        if with_unconflicted:
            for key in get_auth_keys(pdu):
                if (unconflicted_id := conflict.unconflicted(key)) is not None:
                    yield unconflicted_id


def _only_state(pdus: list[Pdu]) -> Iterator[Pdu]:
    """Leave out what is no state event, and is in no state or auth chain unless a server made it up."""
    return (pdu for pdu in pdus if pdu.is_state)

"""State resolution of room version 1, https://spec.matrix.org/v1.19/rooms/v1/#state-resolution."""

from collections.abc import Iterator, Mapping
from hashlib import sha1
from typing import Final

from matrix.event_auth import check_event_auth
from matrix.pdu import Pdu
from matrix.state_res.common import Conflict, EventId, StateKey, check_present
from matrix.state_res.iterative_auth import get_auth_keys

_AUTH_TYPES: Final = ("m.room.power_levels", "m.room.join_rules", "m.room.member")
"""The types whose conflicts are resolved first, in this order."""


def resolve_v1(conflict: Conflict) -> dict[StateKey, EventId]:
    """Return what the resolved state has beside what all states have in common.

    Raises MissingEvents.
    """
    # "A conflict occurs between states where those states have different event_ids for the same (event_type,
    # state_key)." Other than in version 2, a key that some states lack is not in conflict for that alone.
    values: dict[StateKey, set[EventId]] = {}
    for state_set in conflict.state_sets:
        for key, event_id in state_set.items():
            values.setdefault(key, set()).add(event_id)
    # "Start by setting R to the union of the states to be resolved, excluding any conflicting events."
    results = {key: next(iter(event_ids)) for key, event_ids in values.items() if len(event_ids) == 1}
    conflicting = {key: event_ids for key, event_ids in values.items() if len(event_ids) > 1}
    check_present(_list_needed(conflicting, results, conflict), conflict.events)
    # "First we resolve conflicts between m.room.power_levels events." "Repeat the above process for conflicts between
    # m.room.join_rules events." "Repeat the above process for conflicts between m.room.member events." Keys of one
    # pass do not see each other's results: their order, of which nothing is said, does not matter then.
    for type in _AUTH_TYPES:
        results |= {
            key: _resolve_auth_events(key, event_ids, results, conflict)
            for key, event_ids in conflicting.items()
            if key[0] == type
        }
    # "No other events affect the authorisation rules, so for all other conflicts, ..."
    for key, event_ids in conflicting.items():
        if key[0] not in _AUTH_TYPES:
            picked = _pick_event(event_ids, results, conflict)
            # Where no event passes authentication, there is none to pick.
            if picked is not None:
                results[key] = picked
    return results


def _list_needed(
    conflicting: Mapping[StateKey, set[EventId]], results: Mapping[StateKey, EventId], conflict: Conflict
) -> Iterator[EventId]:
    """Yield the conflicting events and, as far as they are present, what the rules will read to judge them."""
    for event_ids in conflicting.values():
        yield from event_ids
        for pdu in [conflict.events[event_id] for event_id in event_ids if event_id in conflict.events]:
            for auth_key in get_auth_keys(pdu):
                auth_id = results.get(auth_key) or conflict.unconflicted(auth_key)
                if auth_id is not None:
                    yield auth_id


def _resolve_auth_events(
    key: StateKey, event_ids: set[EventId], results: Mapping[StateKey, EventId], conflict: Conflict
) -> EventId:
    """Return the result for one key of a type that affects the authorisation rules."""
    # "Assemble all the ... events from the states to be resolved into a list. Sort the list by ascending depth then
    # descending sha1(event_id)."
    first, *subsequent = _sort_by_depth(event_ids, conflict)
    # "Add the first event in the list to R."
    result = first.event_id
    # "For each subsequent event in the list, check that the event would be allowed by the authorisation rules for a
    # room in state R. If the event would be allowed, then update R with the event and continue with the next event in
    # the list. If it would not be allowed, stop."
    for pdu in subsequent:
        if not _is_allowed(pdu, {**results, key: result}, conflict):
            break
        result = pdu.event_id
    return result


def _pick_event(event_ids: set[EventId], results: Mapping[StateKey, EventId], conflict: Conflict) -> EventId | None:
    """Return the result for one key of any other type; None if there is none."""
    # "... just pick the event with the highest depth and lowest sha1(event_id) that passes authentication in R and add
    # it to R."
    for pdu in reversed(_sort_by_depth(event_ids, conflict)):
        if _is_allowed(pdu, results, conflict):
            return pdu.event_id
    return None


def _sort_by_depth(event_ids: set[EventId], conflict: Conflict) -> list[Pdu]:
    """Sort "by ascending depth then descending sha1(event_id)"."""
    pdus = [conflict.events[event_id] for event_id in event_ids]
    return sorted(pdus, key=lambda pdu: (pdu.depth, -int(sha1(pdu.event_id.encode()).hexdigest(), 16)))


def _is_allowed(pdu: Pdu, results: Mapping[StateKey, EventId], conflict: Conflict) -> bool:
    """Tell whether the rules allow the event in a room in state R."""
    auth_state: dict[StateKey, Pdu] = {}
    for key in get_auth_keys(pdu):
        event_id = results.get(key) or conflict.unconflicted(key)
        if event_id is not None:
            auth_state[key] = conflict.events[event_id]
    # The signatures that the rules ask for were verified when the event was received.
    return check_event_auth(pdu, auth_state, verified_servers=None) is None

"""The iterative auth checks: a state built up by one event after the other, if the rules allow it."""

from collections.abc import Callable, Iterable

from matrix.event_auth import auth_event_keys, check_event_auth
from matrix.event_auth.common import CREATE_KEY, POWER_LEVELS_KEY
from matrix.pdu import Pdu
from matrix.power_levels import PowerLevels
from matrix.state_res.common import Conflict, StateKey

ResolvedState = dict[StateKey, Pdu]
"""The part of a room state that differs from what a resolution started with."""


def check_iteratively(
    pdus: Iterable[Pdu],
    resolved: ResolvedState,
    initial: Callable[[StateKey], Pdu | None],
    conflict: Conflict,
) -> None:
    """Apply the state events that the rules allow to the state of `resolved` on top of `initial`, in this order.

    Their auth events, and what `initial` returns for the keys of them, must be among the conflict's events.
    https://spec.matrix.org/v1.19/rooms/v2/#definitions
    """
    levels: tuple[Pdu, Pdu | None, PowerLevels] | None = None
    for pdu in pdus:
        auth_state = _select_auth_state(pdu, resolved, initial, conflict)
        create, power_levels = auth_state.get(CREATE_KEY), auth_state.get(POWER_LEVELS_KEY)
        if create is not None and (levels is None or levels[0] is not create or levels[1] is not power_levels):
            levels = (create, power_levels, PowerLevels.of(conflict.room_version, create, power_levels))
        # "... applying the state event to the room state if the state event is allowed by the authorisation rules. If
        # the state event is not allowed by the authorisation rules, then the event is ignored."
        known_levels = None if levels is None else levels[2]
        # The signatures that the rules ask for were verified when the event was received.
        if check_event_auth(pdu, auth_state, power_levels=known_levels, verified_servers=None) is None:
            resolved[pdu.state_key_pair] = pdu


def get_auth_keys(pdu: Pdu) -> list[StateKey]:
    """Return the keys that are required for checking the authorisation rules."""
    keys = auth_event_keys(pdu.room_version, pdu.type, pdu.sender, pdu.state_key, pdu.content)
    return keys if CREATE_KEY in keys else [CREATE_KEY, *keys]


def _select_auth_state(
    pdu: Pdu, resolved: ResolvedState, initial: Callable[[StateKey], Pdu | None], conflict: Conflict
) -> ResolvedState:
    """Return the state at those keys that the rules read."""
    auth_state: ResolvedState = {}
    absent: set[StateKey] = set()
    for key in get_auth_keys(pdu):
        found = resolved.get(key) or initial(key)
        if found is None:
            absent.add(key)
        else:
            auth_state[key] = found
    # "If a (event_type, state_key) key that is required for checking the authorisation rules is not present in the
    # state, then the appropriate state event from the event's auth_events is used if the auth event is not rejected."
    if absent:
        create_id = conflict.create_id(pdu)
        # From version 12 on the room's ID names the create event instead of auth_events.
        for auth_id in pdu.auth_events if create_id is None else (create_id, *pdu.auth_events):
            auth_event = conflict.events[auth_id]
            if auth_event.state_key is not None and auth_id not in conflict.rejected:
                key = auth_event.state_key_pair
                if key in absent:
                    auth_state.setdefault(key, auth_event)
    return auth_state

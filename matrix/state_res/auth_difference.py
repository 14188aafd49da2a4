"""The auth difference: what not all of the states are built on."""

from matrix.pdu import Pdu
from matrix.state_res.auth_chains import AuthChains, BitSet
from matrix.state_res.common import Conflict, StateKey, check_present
from matrix.state_res.iterative_auth import get_auth_keys
from matrix.state_res.power_events import is_power_event


def auth_difference(known: BitSet, starts_empty: bool, conflict: Conflict, chains: AuthChains) -> BitSet:
    """Return the auth difference, but for what is known to be in the full conflicted set and what has no effect there.

    The conflicted events must be in `chains`. `starts_empty` tells what the iterative auth checks start from. Raises
    MissingEvents.
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
    difference = union & ~intersection & ~known
    # What is in the chain of an unconflicted event is not part of it. There may be very many of those, so that those in
    # the index are asked first, and the others only if it matters.
    difference &= ~chains.supporting(difference, conflict.unconflicted)
    difference &= ~_immaterial(difference, known, starts_empty, conflict, chains)
    if difference:
        chains.extend(conflict.unconflicted_ids(), conflict.events)
        difference &= ~chains.supporting(difference, conflict.unconflicted)
    return difference


def _immaterial(
    difference: BitSet, known: BitSet, starts_empty: bool, conflict: Conflict, chains: AuthChains
) -> BitSet:
    """Return events whose presence in the full conflicted set changes nothing, whichever others are in it.

    That is the case for unconflicted events that neither take part in step 1 of the algorithm nor are replaced on the
    way, so that they only ever put into the state what is there, or what is read from `auth_events` in its stead: as a
    rule the membership of somebody who has sent one of the conflicted events.
    """
    if not difference:
        return 0
    event_ids = chains.ids(difference | known)
    check_present(event_ids, conflict.events)
    pdus = [conflict.events[event_id] for event_id in event_ids]
    power_events = [pdu.event_id for pdu in pdus if is_power_event(pdu)]
    candidates = {
        pdu.state_key_pair: pdu
        for pdu in [conflict.events[event_id] for event_id in chains.ids(difference & ~chains.full_chain(power_events))]
        if pdu.is_state and not is_power_event(pdu) and conflict.unconflicted(pdu.state_key_pair) == pdu.event_id
    }
    for pdu in pdus:
        if pdu.is_state and candidates.get(pdu.state_key_pair, pdu) is not pdu:
            del candidates[pdu.state_key_pair]
        if starts_empty:
            for key in get_auth_keys(pdu):
                if key in candidates and not _reads(pdu, candidates[key], key, conflict):
                    del candidates[key]
    return chains.bits(pdu.event_id for pdu in candidates.values())


def _reads(pdu: Pdu, auth_event: Pdu, key: StateKey, conflict: Conflict) -> bool:
    """Tell whether an event is judged by this auth event of its own where the state has nothing under the key."""
    if pdu is auth_event:
        return True
    if auth_event.event_id in conflict.rejected:
        return False
    check_present(pdu.auth_events, conflict.events)
    named = [conflict.events[auth_id] for auth_id in pdu.auth_events]
    return [other for other in named if (other.type, other.state_key) == key] == [auth_event]

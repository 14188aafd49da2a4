"""What holds of state resolution whatever the history: https://spec.matrix.org/v1.19/rooms/v2/#state-resolution."""

from collections.abc import Mapping, Sequence
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from matrix.pdu import Pdu
from matrix.room_versions import RoomVersion
from matrix.state_res import AuthChains, MissingEvents, StateMap, resolve_conflict, resolve_state
from tests.matrix.histories import USERS, History, Step, conflicts, steps
from tests.matrix.naive_state_res import resolve_naively
from tests.matrix.rooms import ALICE, BOB, CAROL, CREATOR, versions

Conflict = tuple[History, list[StateMap]]
POWER_LEVELS = ("m.room.power_levels", "")

few = settings(max_examples=50)


def draw_rejected(data: st.DataObject, history: History) -> set[str]:
    return data.draw(st.sets(st.sampled_from(history.ids), max_size=3))


@settings(max_examples=300)
@given(conflicts(versions(2), hostile=True), st.data())
def test_the_specification_read_slowly_says_the_same(conflict: Conflict, data: st.DataObject) -> None:
    history, states = conflict
    rejected = draw_rejected(data, history)
    resolved = resolve_state(history.version, states, history.events, rejected=rejected)
    assert resolved == resolve_naively(history.version, states, history.events, rejected)


@given(conflicts(hostile=True), st.data())
def test_the_order_and_number_of_states_do_not_matter(conflict: Conflict, data: st.DataObject) -> None:
    history, states = conflict
    rejected = draw_rejected(data, history)
    resolved = resolve_state(history.version, states, history.events, rejected=rejected)
    shuffled = data.draw(st.permutations(states)) + data.draw(st.lists(st.sampled_from(states), max_size=2))
    shuffled = [dict(data.draw(st.permutations(list(state.items())))) for state in shuffled]
    events = dict(data.draw(st.permutations(list(history.events.items()))))
    assert resolve_state(history.version, shuffled, events, rejected=rejected) == resolved


@few
@given(conflicts(hostile=True))
def test_a_state_and_itself_resolve_to_it(conflict: Conflict) -> None:
    history, states = conflict
    resolved = resolve_state(history.version, states, history.events)
    for state in [*states, resolved]:
        assert resolve_state(history.version, [state], {}) == state
        assert resolve_state(history.version, [state, dict(state)], {}) == state


@given(conflicts(hostile=True))
def test_what_is_in_all_states_stays_and_nothing_is_made_up(conflict: Conflict) -> None:
    history, states = conflict
    resolved = resolve_state(history.version, states, history.events)
    assert set.intersection(*[set(state.items()) for state in states]) <= set(resolved.items())
    sources = {event_id for state in states for event_id in state.values()}
    todo = list(sources)
    while todo:
        for auth_id in history.events[todo.pop()].auth_events:
            if auth_id not in sources:
                sources.add(auth_id)
                todo.append(auth_id)
    assert set(resolved.values()) <= sources
    assert all(history.events[event_id].state_key_pair == key for key, event_id in resolved.items())


@given(conflicts(hostile=True), st.data())
def test_a_conflict_alone_resolves_as_in_its_states(conflict: Conflict, data: st.DataObject) -> None:
    history, states = conflict
    rejected = draw_rejected(data, history)
    resolved = resolve_state(history.version, states, history.events, rejected=rejected)
    agreed = set.intersection(*[set(state.items()) for state in states])
    # Some of the keys that all states agree on may be among those in conflict, for the caller's convenience.
    spare = data.draw(st.sets(st.sampled_from(sorted(agreed)), max_size=2)) if agreed else set()
    differing = [dict(set(state.items()) - agreed | spare) for state in states]
    unconflicted = dict(agreed)
    result = resolve_conflict(
        history.version,
        unconflicted.get,
        differing,
        history.events,
        unconflicted_ids=unconflicted.values,
        rejected=rejected,
    )
    assert unconflicted | result == resolved
    assert not set(result) & set(dict(agreed - spare))
    # Whoever has one of the states at hand may look up in it.
    same = resolve_conflict(
        history.version,
        states[0].get,
        differing,
        history.events,
        unconflicted_ids=states[0].values,
        rejected=rejected,
    )
    assert same == result


def resolve_by_loading(
    version: RoomVersion, states: Sequence[StateMap], events: Mapping[str, Pdu], chains: AuthChains, *, deep: bool
) -> tuple[dict[tuple[str, str], str], int]:
    """Begin without events, load those that are missing, and tell how many times; deep: with their auth chains."""
    known: dict[str, Pdu] = {}
    rounds = 0
    while missing := find_missing(version, states, known, chains):
        rounds += 1
        assert not missing & set(known), "only what is missing is asked for"
        todo = list(missing)
        while todo:
            event_id = todo.pop()
            known[event_id] = events[event_id]
            todo.extend(auth_id for auth_id in events[event_id].auth_events if deep and auth_id not in known)
    return resolve_state(version, states, known, chains=chains), rounds


def find_missing(
    version: RoomVersion, states: Sequence[StateMap], known: Mapping[str, Pdu], chains: AuthChains
) -> frozenset[str]:
    try:
        resolve_state(version, states, known, chains=chains)
    except MissingEvents as missing:
        return missing.event_ids
    return frozenset()


@given(conflicts(hostile=True), st.booleans())
def test_what_is_missing_can_be_loaded_in_few_rounds(conflict: Conflict, deep: bool) -> None:
    history, states = conflict
    resolved = resolve_state(history.version, states, history.events)
    found, rounds = resolve_by_loading(history.version, states, history.events, AuthChains(), deep=deep)
    assert found == resolved
    assert rounds <= (4 if deep else len(history.ids))


@given(conflicts(hostile=True), st.data())
def test_an_index_that_is_kept_changes_nothing(conflict: Conflict, data: st.DataObject) -> None:
    history, states = conflict
    bounds: dict[str, Any] = data.draw(
        st.fixed_dictionaries({}, optional={"max_events": st.integers(0, 20), "max_chain_bytes": st.integers(0, 20)})
    )
    chains = AuthChains(**bounds)
    for event_id in data.draw(st.lists(st.sampled_from(history.ids), max_size=3)):
        chains.extend([event_id], history.events)
    for _ in range(3):
        some = data.draw(st.lists(st.sampled_from(states), min_size=1))
        expected = resolve_state(history.version, some, history.events)
        assert resolve_state(history.version, some, history.events, chains=chains) == expected
        found, _ = resolve_by_loading(history.version, some, history.events, chains, deep=data.draw(st.booleans()))
        assert found == expected


WEAK_STEPS = steps([USERS.index(BOB), USERS.index(CAROL)], hostile=True)


@given(st.sampled_from(versions(2)), st.sampled_from(["ban", "kick", "demote"]), WEAK_STEPS, st.data())
def test_bans_and_demotions_are_not_undone_without_authority(
    version: RoomVersion, sanction: str, weak_steps: list[Step], data: st.DataObject
) -> None:
    """Bob, a moderator, forks the history before he is dealt with; he and Carol do there what they like.

    That goes for what they may do and for what they may not, and their server claims it all to be state.
    """
    history = History(version, {ALICE: 100, BOB: 50})
    for user_id in (ALICE, BOB, CAROL):
        history.member(user_id, user_id, "join")
    fork = history.newest
    if sanction == "demote":
        verdict = history.levels(CREATOR, {ALICE: 100}, fork, ts=data.draw(st.integers(0, 8)))
    else:
        history.levels(CREATOR, {ALICE: 100}, fork)
        verdict = history.member(CREATOR, BOB, "ban" if sanction == "ban" else "leave")
        if sanction == "kick":
            verdict = history.add("m.room.join_rules", CREATOR, {"join_rule": "invite"}, "")
    honest = [history.states[verdict.event_id]]
    elsewhere = history.at(fork)
    for step in weak_steps:
        step.apply(elsewhere)
    evil = data.draw(st.lists(st.sampled_from(elsewhere.ids[-8:]), min_size=1, max_size=3))
    resolved = resolve_state(version, honest + [history.states[event_id] for event_id in evil], history.events)
    assert resolved[POWER_LEVELS] == honest[0][POWER_LEVELS]
    if sanction != "demote":
        bob = history.events[resolved["m.room.member", BOB]]
        assert bob.content["membership"] in ("ban", "leave")
        assert sanction == "kick" or bob is verdict


@given(conflicts(versions(2), hostile=False), st.sampled_from(["ban", "levels", "join_rules"]), st.data())
def test_what_was_never_authorised_is_never_in_the_result(conflict: Conflict, action: str, data: st.DataObject) -> None:
    """Someone who never was in the room sends a power event, and a server claims it to be state."""
    history, states = conflict
    key = {"ban": ("m.room.member", CREATOR), "levels": POWER_LEVELS, "join_rules": ("m.room.join_rules", "")}[action]
    content = {
        "ban": {"membership": "ban"},
        "levels": {"users": {"@mallory:evil.example": 100}},
        "join_rules": {"join_rule": "public"},
    }[action]
    parents = [history.events[data.draw(st.sampled_from(history.ids))]]
    made_up = history.force(key[0], "@mallory:evil.example", content, key[1], parents=parents, ts=0)
    states = [*states, {**data.draw(st.sampled_from(states)), key: made_up.event_id}]
    if any(state.get(key) != made_up.event_id for state in states):
        resolved = resolve_state(history.version, states, history.events)
        assert made_up.event_id not in resolved.values()


@few
@given(st.sampled_from(versions(1)), st.lists(st.integers(0, 3), min_size=8, max_size=8), st.data())
def test_changes_that_do_not_meet_add_up_however_they_are_divided_among_forks(
    version: RoomVersion, forks: list[int], data: st.DataObject
) -> None:
    history = History(version, {ALICE: 50})
    base = history.member(ALICE, ALICE, "join")
    changes = [("m.room.member", f"@user{number}:example.org", f"@user{number}:example.org") for number in range(4)]
    changes += [("org.example.setting", ALICE, str(number)) for number in range(4)]
    tips = dict.fromkeys(range(4), base)
    expected = dict(history.states[base.event_id])
    for (type, sender, state_key), fork in zip(data.draw(st.permutations(changes)), forks, strict=True):
        content = {"membership": "join"} if type == "m.room.member" else {}
        tips[fork] = history.add(type, sender, content, state_key, parents=[tips[fork]])
        expected[type, state_key] = tips[fork].event_id
    assert history.resolve(*tips.values()) == expected

"""Unconflicted events in the auth difference: most of them change nothing, and these are the ones that do."""

import pytest

from matrix.room_versions import RoomVersion
from matrix.state_res import AuthChains, MissingEvents, StateMap, resolve_state
from tests.matrix.histories import History
from tests.matrix.naive_state_res import resolve_naively
from tests.matrix.rooms import ALICE, BOB, CAROL, CREATOR, versions

TOPIC, SETTING = ("m.room.topic", ""), ("org.example.setting", "")


@pytest.fixture(params=versions(2), ids=lambda version: version.identifier)
def history(request: pytest.FixtureRequest) -> History:
    """A public room that Bob, Carol and Alice have joined, in this order, before they got any power."""
    version: RoomVersion = request.param
    history = History(version)
    for user_id in (BOB, CAROL, ALICE):
        history.member(user_id, user_id, "join")
    history.levels(CREATOR, {ALICE: 60, BOB: 50})
    return history


def resolve(history: History, *states: StateMap) -> dict[tuple[str, str], str]:
    resolved = resolve_state(history.version, states, history.events)
    assert resolved == resolve_naively(history.version, states, history.events)
    return resolved


def test_a_membership_holds_back_the_power_event_that_it_authorises(history: History) -> None:
    """Without Alice's membership in the auth difference, her kick would come before Bob's ban."""
    fork = history.newest
    kick = history.member(ALICE, BOB, "leave", fork, ts=100)
    ban = history.member(BOB, CAROL, "ban", fork, ts=101)
    states = [history.states[pdu.event_id] for pdu in (kick, ban)]
    resolved = resolve(history, *states)
    assert resolved["m.room.member", BOB] == kick.event_id
    assert resolved["m.room.member", CAROL] == ban.event_id
    # Something of hers that all states agree on has it in its auth chain, which takes it out of the difference.
    setting = history.add("org.example.setting", ALICE, {}, "", parents=[fork])
    resolved = resolve(history, *[{**state, SETTING: setting.event_id} for state in states])
    assert resolved["m.room.member", BOB] == kick.event_id
    assert resolved["m.room.member", CAROL] != ban.event_id


def test_a_membership_is_read_where_an_event_names_an_older_one(history: History) -> None:
    """Alice has left, as all states agree; an event of one names that, an event of another what was before."""
    topic = history.topic(ALICE, "before", ts=50)
    left = history.member(ALICE, ALICE, "leave", ts=10)
    stale = history.states[left.event_id]
    made_up = history.force("m.room.topic", ALICE, {"topic": "after"}, "", ts=100)
    assert left.event_id in made_up.auth_events
    without = {key: event_id for key, event_id in stale.items() if key != TOPIC}
    assert stale[TOPIC] == topic.event_id
    assert TOPIC not in resolve(history, stale, {**without, TOPIC: made_up.event_id})


def test_a_membership_comes_back_after_another_that_no_state_has(history: History) -> None:
    """The leave that only an auth chain knows is before Alice's membership by the clock, though made after it."""
    fork = history.newest
    joined = history.member(ALICE, ALICE, "join", fork, ts=10)
    topic = history.topic(ALICE, "hers", joined, ts=101)
    left = history.member(ALICE, ALICE, "leave", topic, ts=5)
    setting = history.force("org.example.setting", ALICE, {}, "", parents=[left], ts=102)
    other = history.topic(BOB, "his", joined, ts=100)
    mine = {**history.states[topic.event_id], SETTING: setting.event_id}
    assert resolve(history, mine, history.states[other.event_id])[TOPIC] == topic.event_id


def test_most_conflicts_do_not_ask_for_the_rest_of_the_room(history: History) -> None:
    """Two members set a topic at once. Nothing is known of a hundred others but that they are in all states."""
    fork = history.newest
    tips = [history.topic(user_id, user_id, fork, ts=ts) for ts, user_id in ((100, BOB), (101, ALICE))]
    unknown = {("org.example", str(number)): f"$unknown{number}" for number in range(100)}
    states = [unknown | history.states[tip.event_id] for tip in tips]
    assert resolve_state(history.version, states, history.events)[TOPIC] == tips[1].event_id
    # Where it matters who is in the auth chains of all others, they are needed.
    tips = [history.member(ALICE, BOB, "leave", fork), history.member(BOB, CAROL, "ban", fork)]
    states = [unknown | history.states[tip.event_id] for tip in tips]
    with pytest.raises(MissingEvents) as missing:
        resolve_state(history.version, states, history.events)
    assert missing.value.event_ids == set(unknown.values())
    # Unless what is known by now tells as much.
    setting = history.add("org.example.setting", ALICE, {}, "", parents=[fork])
    chains = AuthChains()
    chains.extend([setting.event_id], history.events)
    states = [{**state, SETTING: setting.event_id} for state in states]
    resolved = resolve_state(history.version, states, history.events, chains=chains)
    assert resolved["m.room.member", BOB] == tips[0].event_id

"""State resolution on stories told by hand, most of them those of the proposals that the algorithms come from.

https://github.com/matrix-org/matrix-spec-proposals/blob/main/proposals/1442-state-resolution.md
https://github.com/matrix-org/matrix-spec-proposals/blob/main/proposals/4297-state-resolution-v2_1.md
"""

from collections.abc import Mapping
from hashlib import sha1

import pytest

from matrix.pdu import Pdu
from matrix.room_versions import ROOM_VERSIONS, RoomVersion
from matrix.state_res import MissingEvents, resolve_conflict, resolve_state
from tests.matrix.histories import History
from tests.matrix.rooms import ALICE, ALL_VERSIONS, BOB, CAROL, CREATOR, versions

V1 = ROOM_VERSIONS["1"]
POWER_LEVELS, JOIN_RULES, TOPIC = ("m.room.power_levels", ""), ("m.room.join_rules", ""), ("m.room.topic", "")


def member(user_id: str) -> tuple[str, str]:
    return ("m.room.member", user_id)


def start(version: RoomVersion, levels: Mapping[str, int] | None = None) -> History:
    """A public room with Alice, Bob and Carol in it."""
    history = History(version, {ALICE: 100, BOB: 50} if levels is None else levels)
    for user_id in (ALICE, BOB, CAROL):
        history.member(user_id, user_id, "join")
    return history


@pytest.fixture(params=ALL_VERSIONS, ids=lambda version: version.identifier)
def version(request: pytest.FixtureRequest) -> RoomVersion:
    """Each room version."""
    result: RoomVersion = request.param
    return result


@pytest.fixture(params=versions(2), ids=lambda version: version.identifier)
def later_version(request: pytest.FixtureRequest) -> RoomVersion:
    """Each room version but the first."""
    result: RoomVersion = request.param
    return result


def test_no_states_and_equal_states_need_no_events(version: RoomVersion) -> None:
    state = {("m.room.create", ""): "$create", TOPIC: "$topic"}
    assert resolve_state(version, [], {}) == {}
    assert resolve_state(version, [state], {}) == state
    assert resolve_state(version, [state, dict(reversed(state.items())), state], {}) == state
    assert resolve_state(version, [{}, {}], {}) == {}
    assert resolve_conflict(version, state.get, [{}, {}], {}, unconflicted_ids=state.values) == {}
    assert resolve_conflict(version, state.get, [], {}, unconflicted_ids=state.values) == {}


def test_a_ban_outlives_what_the_banned_user_did_elsewhere(version: RoomVersion) -> None:
    history = start(version)
    fork = history.newest
    ban = history.member(CREATOR, BOB, "ban", fork)
    left = history.member(BOB, BOB, "leave", fork)
    back = history.member(BOB, BOB, "join", left)
    topic = history.topic(BOB, "evasion", back)
    resolved = history.resolve(ban, topic)
    if version is V1:  # "users who have been banned from the room may be able to rejoin", as v1 is known to allow
        assert resolved[member(BOB)] in (ban.event_id, back.event_id)
    else:
        assert resolved[member(BOB)] == ban.event_id
        assert TOPIC not in resolved


def test_a_demotion_outlives_what_the_demoted_user_did_elsewhere(later_version: RoomVersion) -> None:
    history = start(later_version)
    fork = history.newest
    demotion = history.levels(CREATOR, {ALICE: 100}, fork, ts=1000)
    rise = history.levels(BOB, {ALICE: 100, BOB: 50, CAROL: 50}, fork, ts=1)
    topic = history.topic(CAROL, "mine", rise, ts=2000)
    resolved = history.resolve(topic, demotion)
    assert resolved[POWER_LEVELS] == demotion.event_id
    assert TOPIC not in resolved


def test_the_mainline_orders_topics(later_version: RoomVersion) -> None:
    """MSC1442, example 1."""
    history = start(later_version)
    first = history.topic(CREATOR, "1")
    topic_2 = history.topic(CREATOR, "2", first, ts=20)
    power_2 = history.levels(CREATOR, {ALICE: 100}, topic_2, ts=21)
    power_3 = history.levels(BOB, {ALICE: 100, BOB: 50, CAROL: 1}, first, ts=19)
    topic_3 = history.topic(BOB, "3", power_3, ts=22)
    resolved = history.resolve(power_2, topic_3)
    assert (resolved[POWER_LEVELS], resolved[TOPIC]) == (power_2.event_id, topic_2.event_id)
    message_2 = history.add("m.room.message", CREATOR, {}, None, parents=[power_2, topic_3])
    # Its clock is wrong, but it was sent under newer power levels.
    topic_4 = history.topic(CREATOR, "4", power_2, ts=1)
    assert history.resolve(message_2, topic_4)[TOPIC] == topic_4.event_id


def test_events_rejected_by_state_take_part(later_version: RoomVersion) -> None:
    """MSC1442, example 2."""
    history = start(later_version)
    before = history.newest
    power_1 = history.events[history.states[before.event_id][POWER_LEVELS]]
    demotion = history.levels(CREATOR, {ALICE: 100})
    auth = [power_1, history.events[history.states[before.event_id][member(BOB)]]]
    if not later_version.room_id_is_create_event_hash:
        auth.append(history.room.create)
    topic = history.force("m.room.topic", BOB, {"topic": "D"}, "", parents=[demotion], auth=auth)
    power = history.levels(CREATOR, {ALICE: 100, BOB: 50}, demotion)
    assert history.resolve(topic, power, rejected={topic.event_id})[TOPIC] == topic.event_id
    # Without a conflict of power levels, version 2.1 judges by those that the event itself names.
    resolved = history.resolve(topic, demotion, rejected={topic.event_id})
    assert (TOPIC in resolved) == (later_version.identifier == "12")


def test_rejected_events_authorise_nothing(later_version: RoomVersion) -> None:
    history = start(later_version)
    joined = history.events[history.states[history.newest.event_id][member(BOB)]]
    history.add("org.example.setting", BOB, {}, "")
    state = dict(history.states[history.topic(BOB, "from nowhere").event_id])
    del state[member(BOB)]
    states = [state, {key: event_id for key, event_id in state.items() if key != TOPIC}]
    assert resolve_state(later_version, states, history.events)[TOPIC] == state[TOPIC]
    assert TOPIC not in resolve_state(later_version, states, history.events, rejected={joined.event_id})


def test_powers_passed_on_within_a_fork_are_passed_on(later_version: RoomVersion) -> None:
    """MSC1442, "Ordering and Authing": what one state has replaced authorises what it has now."""
    history = start(later_version, {ALICE: 100})
    before = history.newest
    history.levels(ALICE, {ALICE: 100, BOB: 100})
    history.levels(BOB, {ALICE: 100, BOB: 100, CAROL: 100})
    last = history.levels(CAROL, {ALICE: 100, BOB: 100, CAROL: 100}, ban=75)
    aside = history.topic(CREATOR, "aside", before)
    assert history.resolve(aside, last)[POWER_LEVELS] == last.event_id


def test_who_left_for_good_is_not_joined_again(later_version: RoomVersion) -> None:
    """MSC1442, the "Hotel California" issue."""
    history = start(later_version)
    first = history.member(BOB, BOB, "leave")
    history.member(BOB, BOB, "join")
    last = history.member(BOB, BOB, "leave")
    assert history.resolve(first, last)[member(BOB)] == last.event_id


def test_a_topic_from_before_a_ban_is_lost(later_version: RoomVersion) -> None:
    """MSC1442, "State Resets": unwanted, yet what the algorithm says."""
    history = start(later_version)
    before = history.newest
    history.topic(BOB, "lost")
    ban = history.member(CREATOR, BOB, "ban")
    assert TOPIC not in history.resolve(before, ban)
    assert TOPIC in history.states[ban.event_id]


def test_stale_join_rules_of_who_left(later_version: RoomVersion) -> None:
    """MSC4297, problem A: solved by starting from an empty state."""
    history = start(later_version)
    old = history.add("m.room.join_rules", ALICE, {"join_rule": "invite"}, "")
    new = history.add("m.room.join_rules", ALICE, {"join_rule": "public"}, "")
    left = history.member(ALICE, ALICE, "leave")
    right = history.states[left.event_id]
    wrong = {**right, JOIN_RULES: old.event_id}
    resolved = resolve_state(later_version, [right, wrong], history.events)
    expected = new.event_id if later_version.identifier == "12" else None
    assert resolved.get(JOIN_RULES) == expected


def test_stale_power_levels_beside_events_of_newer_ones(later_version: RoomVersion) -> None:
    """MSC4297, problem B: solved by the conflicted state subgraph."""
    history = start(later_version, {ALICE: 100})
    old = history.events[history.states[history.newest.event_id][POWER_LEVELS]]
    history.levels(ALICE, {ALICE: 100, BOB: 100})
    new = history.levels(BOB, {ALICE: 100, BOB: 100, CAROL: 100})
    topic = history.topic(CAROL, "sent with the power that Bob gave")
    right = history.states[topic.event_id]
    wrong = {**right, POWER_LEVELS: old.event_id}
    resolved = resolve_state(later_version, [wrong, right], history.events)
    expected = new if later_version.identifier == "12" else old
    assert resolved[POWER_LEVELS] == expected.event_id


def test_v1_sorts_power_levels_by_depth_and_stops_at_the_first_that_is_not_allowed() -> None:
    history = start(V1)
    fork = history.newest
    demotion = history.levels(CREATOR, {ALICE: 100}, fork)
    deeper = history.topic(BOB, "deeper", fork)
    bobs = history.levels(BOB, {ALICE: 100, BOB: 50, CAROL: 50}, deeper)
    carols = history.topic(CAROL, "Carol's", bobs)
    resolved = history.resolve(demotion, carols)
    assert demotion.depth < bobs.depth
    assert resolved[POWER_LEVELS] == demotion.event_id
    # Only one of the states has a topic: there is no conflict, and nobody asks for Carol's right to set it.
    assert resolved[TOPIC] == carols.event_id


def test_v1_prefers_depth_and_then_the_lesser_hash() -> None:
    history = start(V1)
    fork = history.newest
    one, other = history.topic(CREATOR, "one", fork), history.topic(ALICE, "other", fork)

    def digest(pdu: Pdu) -> str:
        return sha1(pdu.event_id.encode()).hexdigest()

    assert one.depth == other.depth
    assert history.resolve(one, other)[TOPIC] == min(one, other, key=digest).event_id
    deeper = history.topic(BOB, "deeper", history.member(CAROL, CAROL, "leave", fork))
    assert history.resolve(one, deeper, other)[TOPIC] == deeper.event_id
    # Bob's is the deepest, but he has no power any more; the member event in conflict is resolved before.
    kick = history.member(CREATOR, BOB, "leave", one)
    assert history.resolve(kick, other)[TOPIC] in (one.event_id, other.event_id)
    states = [history.states[kick.event_id], {**history.states[deeper.event_id], member(BOB): kick.event_id}]
    assert resolve_state(V1, states, history.events)[TOPIC] == one.event_id


def test_v1_picks_nothing_where_no_event_passes() -> None:
    history = start(V1)
    fork = history.newest
    states = [history.states[history.topic(BOB, topic, fork).event_id] for topic in ("one", "other")]
    banned = history.member(CREATOR, BOB, "ban", fork).event_id
    states = [{**state, member(BOB): banned} for state in states]
    assert TOPIC not in resolve_state(V1, states, history.events)


def test_all_that_is_missing_is_asked_for_at_once(version: RoomVersion) -> None:
    history = start(version)
    fork = history.newest
    tips = [history.topic(user_id, user_id, fork) for user_id in (ALICE, BOB)]
    states = [history.states[tip.event_id] for tip in tips]
    with pytest.raises(MissingEvents) as first:
        resolve_state(version, states, {})
    assert first.value.event_ids >= {tip.event_id for tip in tips}
    known = {event_id: history.events[event_id] for event_id in first.value.event_ids}
    with pytest.raises(MissingEvents) as second:
        resolve_state(version, states, known)
    auth_events = {auth_id for tip in tips for auth_id in tip.auth_events}
    assert second.value.event_ids >= auth_events - set(known)
    assert not second.value.event_ids & set(known)


def test_only_what_differs_is_looked_at(later_version: RoomVersion) -> None:
    """A conflict among few of many keys asks for no event of the others, whether they come as a map or by look-up."""
    history = start(later_version)
    fork = history.newest
    tips = [history.topic(ALICE, topic, fork) for topic in ("one", "other")]
    unknown = {("org.example", str(number)): f"$unknown{number}" for number in range(100)}
    states = [unknown | history.states[tip.event_id] for tip in tips]
    resolved = resolve_state(later_version, states, history.events)
    assert resolved == unknown | history.resolve(*tips)
    asked: list[tuple[str, str]] = []

    def look_up(key: tuple[str, str]) -> str | None:
        asked.append(key)
        return states[0].get(key)

    conflicted = [{TOPIC: tip.event_id} for tip in tips]
    assert resolve_conflict(later_version, look_up, conflicted, history.events, unconflicted_ids=states[0].values) == {
        TOPIC: resolved[TOPIC]
    }
    assert len(set(asked)) <= 6

"""Push rules: https://spec.matrix.org/v1.19/client-server-api/#push-rules"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matrix.push_rules import (
    DEFAULT_RULES,
    NO_NOTIFICATION,
    MentionIndex,
    Outcome,
    Recipient,
    RoomContext,
    compile_ruleset,
    default_ruleset,
    evaluate,
    evaluate_unmentioned,
)

ALICE = "@alice:example.org"
BOB = "@bob:example.org"
ROOM = "!room:example.org"

Json = dict[str, Any]

EDIT: Json = {"m.relates_to": {"rel_type": "m.replace", "event_id": "$first"}}


def message(body: object = "hello", event_type: str = "m.room.message", **content: object) -> Json:
    return {
        "type": event_type,
        "sender": BOB,
        "room_id": ROOM,
        "event_id": "$event",
        "content": {"msgtype": "m.text", "body": body} | content,
    }


def state(event_type: str, state_key: str = "", **content: object) -> Json:
    return {"type": event_type, "state_key": state_key, "sender": BOB, "room_id": ROOM, "content": content}


def mentions(**mentioned: object) -> Json:
    content: Json = {"m.mentions": mentioned}
    return message("hello", **content)


def room(member_count: int = 10, power_level: float = 0, **levels: int) -> RoomContext:
    return RoomContext(member_count, power_level, levels)


def rule(rule_id: str = "mine", actions: Sequence[object] = ("notify",), **rest: object) -> Json:
    return {"rule_id": rule_id, "default": False, "enabled": True, "actions": list(actions), **rest}


def outcome_of(
    ruleset: Mapping[str, Any], event: Json, context: RoomContext | None = None, display_name: str | None = "Alice"
) -> Outcome:
    return evaluate(compile_ruleset(ruleset), event, Recipient(ALICE, display_name), context or room())


def holds(
    condition: object, event: Json, context: RoomContext | None = None, display_name: str | None = "Alice"
) -> bool:
    """Whether a rule with this one condition matches."""
    ruleset: Json = {"override": [rule(conditions=[condition])]}
    return outcome_of(ruleset, event, context, display_name).rule_id == "mine"


# --- The predefined rules ---------------------------------------------------------------------------------------------


PREDEFINED = [
    # (rule, event, room, what happens)
    (".m.rule.suppress_notices", message(msgtype="m.notice"), room(), (False, False, None)),
    (".m.rule.invite_for_me", state("m.room.member", ALICE, membership="invite"), room(), (True, False, "default")),
    (".m.rule.member_event", state("m.room.member", BOB, membership="join"), room(), (False, False, None)),
    (".m.rule.member_event", state("m.room.member", "@c:x", membership="invite"), room(), (False, False, None)),
    (".m.rule.is_user_mention", mentions(user_ids=[BOB, ALICE]), room(), (True, True, "default")),
    (".m.rule.is_room_mention", mentions(room=True), room(power_level=50), (True, True, None)),
    (".m.rule.is_room_mention", mentions(room=True), room(power_level=math.inf), (True, True, None)),
    (".m.rule.is_room_mention", mentions(room=True), room(power_level=1, room=1), (True, True, None)),
    (".m.rule.message", mentions(room=True), room(power_level=49), (True, False, None)),
    (".m.rule.message", mentions(room=1), room(power_level=50), (True, False, None)),
    (".m.rule.message", mentions(user_ids=["@alice"]), room(), (True, False, None)),
    (".m.rule.message", mentions(user_ids=ALICE), room(), (True, False, None)),
    (".m.rule.tombstone", state("m.room.tombstone", body="gone"), room(), (True, True, None)),
    (None, state("m.room.tombstone", "x", body="gone"), room(), (False, False, None)),
    (".m.rule.reaction", message(event_type="m.reaction"), room(2), (False, False, None)),
    (".m.rule.room.server_acl", state("m.room.server_acl", allow=["*"]), room(), (False, False, None)),
    (
        ".m.rule.suppress_edits",
        message(**EDIT),
        room(2),
        (False, False, None),
    ),
    (".m.rule.call", message(event_type="m.call.invite"), room(2), (True, False, "ring")),
    (".m.rule.encrypted_room_one_to_one", message(event_type="m.room.encrypted"), room(2), (True, False, "default")),
    (".m.rule.room_one_to_one", message(), room(2), (True, False, "default")),
    (".m.rule.message", message(), room(3), (True, False, None)),
    (".m.rule.message", message("Alice, alice, @room"), room(3, 100), (True, False, None)),
    (".m.rule.encrypted", message(event_type="m.room.encrypted"), room(3), (True, False, None)),
    (None, state("m.room.topic", topic="Cake"), room(), (False, False, None)),
    (None, message(event_type="org.example.custom"), room(), (False, False, None)),
]


@pytest.mark.parametrize(("rule_id", "event", "context", "expected"), PREDEFINED)
def test_predefined_rules(
    rule_id: str | None, event: Json, context: RoomContext, expected: tuple[bool, bool, str | None]
) -> None:
    outcome = outcome_of(default_ruleset(ALICE), event, context)
    assert outcome.rule_id == rule_id
    assert (outcome.notify, outcome.highlight, outcome.sound) == expected
    assert evaluate(DEFAULT_RULES, event, Recipient(ALICE, "Alice"), context) == outcome


def test_every_predefined_rule_is_listed_in_order() -> None:
    ruleset = default_ruleset(ALICE)
    assert {kind: [rule["rule_id"] for rule in rules] for kind, rules in ruleset.items()} == {
        "override": [
            ".m.rule.master",
            ".m.rule.suppress_notices",
            ".m.rule.invite_for_me",
            ".m.rule.member_event",
            ".m.rule.is_user_mention",
            ".m.rule.is_room_mention",
            ".m.rule.tombstone",
            ".m.rule.reaction",
            ".m.rule.room.server_acl",
            ".m.rule.suppress_edits",
        ],
        "content": [],
        "room": [],
        "sender": [],
        "underride": [
            ".m.rule.call",
            ".m.rule.encrypted_room_one_to_one",
            ".m.rule.room_one_to_one",
            ".m.rule.message",
            ".m.rule.encrypted",
        ],
    }
    rules = [rule for kind in ruleset.values() for rule in kind]
    assert all(rule["default"] is True for rule in rules)
    assert [rule["rule_id"] for rule in rules if rule["enabled"] is not True] == [".m.rule.master"]


def test_default_rulesets_share_nothing() -> None:
    changed = default_ruleset(ALICE)
    changed["override"][4]["actions"].append("x")
    changed["override"][4]["actions"][1]["value"] = "ring"
    assert default_ruleset(ALICE)["override"][4]["actions"] == [
        "notify",
        {"set_tweak": "sound", "value": "default"},
        {"set_tweak": "highlight"},
    ]


def test_master_rule_silences_everything_user_rules_too() -> None:
    ruleset = default_ruleset(ALICE)
    ruleset["override"][0]["enabled"] = True
    ruleset["override"].insert(0, rule("mine"))
    outcome = outcome_of(ruleset, mentions(user_ids=[ALICE]))
    assert (outcome.rule_id, outcome.notify) == (".m.rule.master", False)


# --- Rule kinds, priorities and actions -------------------------------------------------------------------------------


def test_kinds_are_checked_in_order() -> None:
    ruleset: Json = {
        "underride": [rule("underride")],
        "sender": [rule(BOB)],
        "room": [rule(ROOM)],
        "content": [rule("content", pattern="hello")],
        "override": [rule("override")],
    }
    met = []
    for kind in ("override", "content", "room", "sender", "underride"):
        met.append(outcome_of(ruleset, message()).rule_id)
        del ruleset[kind]
    assert met == ["override", "content", ROOM, BOB, "underride"]
    assert outcome_of(ruleset, message()) is NO_NOTIFICATION


def test_first_rule_of_a_kind_wins_and_disabled_rules_are_passed_over() -> None:
    rules = [rule("off", enabled=False, pattern="tea"), rule("tea", pattern="tea"), rule("time", pattern="time")]
    assert outcome_of({"content": rules}, message("It's time for tea")).rule_id == "tea"


def test_user_rules_come_before_server_rules_of_their_kind() -> None:
    ruleset: Json = {"override": [rule(".m.rule.x", default=True), rule("mine")]}
    assert outcome_of(ruleset, message()).rule_id == "mine"


@pytest.mark.parametrize("kind", ["room", "sender"])
def test_room_and_sender_rules_compare_ids_exactly(kind: str) -> None:
    for rule_id in ("!ROOM:example.org", "@*:example.org", "@BOB:example.org", "*"):
        assert outcome_of({kind: [rule(rule_id)]}, message()).rule_id is None


def test_own_events_never_notify() -> None:
    event = mentions(user_ids=[ALICE]) | {"sender": ALICE}
    assert evaluate(DEFAULT_RULES, event, Recipient(ALICE, None), room()) is NO_NOTIFICATION


@pytest.mark.parametrize(
    ("actions", "notify", "highlight", "sound"),
    [
        ([], False, False, None),
        (["dont_notify"], False, False, None),
        (["coalesce"], False, False, None),
        (["notify"], True, False, None),
        (["notify", {"set_tweak": "highlight"}], True, True, None),
        (["notify", {"set_tweak": "highlight", "value": True}], True, True, None),
        (["notify", {"set_tweak": "highlight", "value": False}], True, False, None),
        (["notify", {"set_tweak": "highlight", "value": "yes"}], True, False, None),
        (["notify", {"set_tweak": "sound", "value": "cakealarm.wav"}], True, False, "cakealarm.wav"),
        (["notify", {"set_tweak": "sound", "value": 3}, {"set_tweak": []}, {}, 7, None], True, False, None),
        ([{"set_tweak": "highlight"}, {"set_tweak": "sound", "value": "default"}], False, False, None),
    ],
)
def test_actions(actions: list[object], notify: bool, highlight: bool, sound: str | None) -> None:
    outcome = outcome_of({"override": [rule(actions=actions)]}, message())
    assert (outcome.notify, outcome.highlight, outcome.sound) == (notify, highlight, sound)
    assert outcome.actions == tuple(action for action in actions if action not in ("dont_notify", "coalesce"))


LEGACY = [".m.rule.contains_display_name", ".m.rule.contains_user_name", ".m.rule.roomnotif"]


@pytest.mark.parametrize("rule_id", LEGACY)
def test_legacy_mention_rules_yield_to_mentions(rule_id: str) -> None:
    by_kind: list[Json] = [
        {"override": [rule(rule_id, conditions=[{"kind": "contains_display_name"}])]},
        {"content": [rule(rule_id, pattern="hello")]},
    ]
    for ruleset in by_kind:
        assert outcome_of(ruleset, message("hello"), display_name="Hello").rule_id == rule_id
        assert outcome_of(ruleset, mentions(), display_name="Hello").rule_id is None


# --- Conditions -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "pattern", "event", "expected"),
    [
        # The specification's own examples.
        ("content.topic", "lunc?*", state("m.room.topic", topic="Lunch plans"), True),
        ("content.topic", "lunc?*", state("m.room.topic", topic="LUNCH"), True),
        ("content.topic", "lunc?*", state("m.room.topic", topic=" lunch"), False),
        ("content.topic", "lunc?*", state("m.room.topic", topic="lunc"), False),
        ("content.topic", "lunc?*", state("m.room.topic", topic=None), False),
        ("content.body", "ex*ple", message("An example event."), True),
        ("content.body", "ex*ple", message("exple"), True),
        ("content.body", "ex*ple", message("An exciting triple-whammy"), True),
        ("content.body", "ex*ple", message("An inexample event."), False),
        ("content.body", "cake", message("CAKE!"), True),
        ("content.body", "cake", message("cheesecake, pancakes"), False),
        ("content.body", "cake", message("my_cake"), False),
        ("content.body", "cake", message("écake"), True),
        ("content.body", "cake", message("pancake cake"), True),
        ("content.body", "@room", message("hi @room"), True),
        ("content.body", "Über", message("das ist ÜBER"), True),
        ("content.body", "*", message(""), True),
        ("content.body", "*", message(None), False),
        ("content.body", "cake", state("m.room.topic", topic="cake"), False),
        (r"content.m\.x", "*", state("t", **{"m.x": "y"}), True),
        ("content.m.x", "*", state("t", **{"m.x": "y"}), False),
        ("type", "M.Room.*", message(), True),
        ("type", "m.room", message(), False),
        ("room_id", ROOM.upper(), message(), True),
        ("room_id", "room", message(), False),
        ("state_key", "", state("t"), True),
        ("state_key", "*", message(), False),
        ("content.n", "*", state("t", n=1), False),
    ],
)
def test_event_match(key: str, pattern: str, event: Json, expected: bool) -> None:
    assert holds({"kind": "event_match", "key": key, "pattern": pattern}, event) is expected


@pytest.mark.parametrize(
    ("value", "actual", "expected"),
    [
        (True, True, True),
        (True, 1, False),
        (1, True, False),
        (True, "true", False),
        (1, 1, True),
        (1, 1.0, False),
        (None, None, True),
        (None, False, False),
        ("a", "a", True),
        ("a", "A", False),
        ("*", "a", False),
        ([], [], False),
        ({}, {}, False),
        (1.5, 1.5, False),
        (2**53 - 1, 2**53 - 1, True),
        (2**53, 2**53, False),
    ],
)
def test_values_are_compared_without_casts(value: object, actual: object, expected: bool) -> None:
    condition = {"key": "content.value", "value": value}
    assert holds(condition | {"kind": "event_property_is"}, state("t", value=actual)) is expected
    assert holds(condition | {"kind": "event_property_contains"}, state("t", value=[{}, actual, []])) is expected


def test_property_conditions_need_the_property() -> None:
    condition = {"key": "content.value", "value": None}
    assert not holds(condition | {"kind": "event_property_is"}, state("t"))
    assert not holds(condition | {"kind": "event_property_contains"}, state("t"))
    assert not holds(condition | {"kind": "event_property_contains"}, state("t", value=None))
    assert not holds({"kind": "event_property_is", "key": "content.value"}, state("t", value=None))


@pytest.mark.parametrize(
    ("display_name", "body", "expected"),
    [
        ("Alice", "hey alice!", True),
        ("Alice", "malice", False),
        ("Alice M.", "ask Alice M. about it", True),
        ("A*e", "alice", False),
        ("A*e", "is a*e here", True),
        ("", "", False),
        (None, "alice", False),
        ("Alice", None, False),
    ],
)
def test_contains_display_name(display_name: str | None, body: object, expected: bool) -> None:
    assert holds({"kind": "contains_display_name"}, message(body), display_name=display_name) is expected


@pytest.mark.parametrize(
    ("text", "matching"),
    [
        ("2", {2}),
        ("==2", {2}),
        ("<2", {1}),
        ("<=2", {1, 2}),
        (">2", {3}),
        (">=2", {2, 3}),
        ("=2", set()),
        ("> 2", set()),
        ("two", set()),
        ("-1", set()),
        ("²", set()),
        ("", set()),
        (2, set()),
    ],
)
def test_room_member_count(text: object, matching: set[int]) -> None:
    condition = {"kind": "room_member_count", "is": text}
    assert {count for count in (1, 2, 3) if holds(condition, message(), room(count))} == matching


def test_sender_notification_permission() -> None:
    def may_notify(key: object, context: RoomContext) -> bool:
        return holds({"kind": "sender_notification_permission", "key": key}, message(), context)

    assert may_notify("room", room(power_level=50))
    assert not may_notify("room", room(power_level=49))
    assert may_notify("room", room(power_level=20, room=20))
    assert may_notify("other", room(power_level=20, other=20))
    assert not may_notify("other", room(power_level=100))
    assert not may_notify(None, room(power_level=100))


@pytest.mark.parametrize(
    "condition",
    [
        {"kind": "org.example.unknown"},
        {"kind": ["event_match"]},
        {"kind": "event_match", "key": "type"},
        {"kind": "event_match", "pattern": "*"},
        {"kind": "event_match", "key": "type", "pattern": 1},
        {"kind": "event_property_is", "key": 1, "value": 1},
        {"kind": "event_property_contains", "value": 1},
        {"kind": "room_member_count"},
        {},
        [],
        None,
        "event_match",
    ],
)
def test_malformed_conditions_never_match(condition: object) -> None:
    assert not holds(condition, message())


@pytest.mark.parametrize(
    "ruleset",
    [
        {},
        {"override": None},
        {"override": "x"},
        {"override": {}},
        {"override": [None, 1, [], {}, {"rule_id": 1}]},
        {"override": [{"rule_id": "mine", "enabled": True}]},
        {"override": [{"rule_id": "mine", "enabled": True, "actions": "notify"}]},
        {"override": [{"rule_id": "mine", "enabled": "yes", "actions": []}]},
        {"override": [{"rule_id": "mine", "enabled": True, "actions": [], "conditions": {}}]},
        {"content": [{"rule_id": "mine", "enabled": True, "actions": []}]},
        {"content": [{"rule_id": "mine", "enabled": True, "actions": [], "pattern": 1}]},
    ],
)
def test_malformed_rules_never_match(ruleset: Json) -> None:
    assert outcome_of(ruleset, message()) is NO_NOTIFICATION


@pytest.mark.parametrize("event", [{}, {"content": None}, {"content": []}, {"type": 1, "content": {"m.mentions": 1}}])
def test_malformed_events_match_nothing(event: Json) -> None:
    assert outcome_of(default_ruleset(ALICE), event) is NO_NOTIFICATION
    assert MentionIndex([ALICE]).candidates(event) == set()


def test_rules_about_many_types_all_work() -> None:
    rules = [
        rule(f"rule{n}", conditions=[{"kind": "event_match", "key": "type", "pattern": f"Type{n}"}]) for n in range(200)
    ]
    rules.insert(150, rule("any", conditions=[{"kind": "event_match", "key": "content.any", "pattern": "x"}]))
    compiled = compile_ruleset({"override": rules})
    for number in (0, 63, 64, 199):
        for event_type in (f"type{number}", f"TYPE{number}"):
            found = evaluate(compiled, message(event_type=event_type), Recipient(ALICE, None), room())
            assert found.rule_id == f"rule{number}"
            found = evaluate(compiled, message(event_type=event_type, any="x"), Recipient(ALICE, None), room())
            assert found.rule_id == (f"rule{number}" if number < 150 else "any")


def test_a_rule_that_demands_two_types_never_matches() -> None:
    conditions = [{"kind": "event_match", "key": "type", "pattern": pattern} for pattern in ("m.room.message", "x")]
    assert outcome_of({"override": [rule(conditions=conditions)]}, message()).rule_id is None


@pytest.mark.timeout(5)
def test_hostile_rules_cost_no_more_than_the_limit_of_one_evaluation() -> None:
    rules = [rule(f"rule{n}", pattern="a?" * 20 + "b") for n in range(500)] + [rule("a", pattern="cake")]
    event = message("a" * 60_000 + "b cake")
    compiled = compile_ruleset({"content": rules})
    for _ in range(10):
        assert evaluate(compiled, event, Recipient(ALICE, None), room()) is NO_NOTIFICATION


# --- A whole room at once ---------------------------------------------------------------------------------------------

USER_IDS = [ALICE, BOB, "@carol:example.org", "@Dave:example.org", "@*:example.org", "@e?e:example.org"]

_user_ids = st.sampled_from([*USER_IDS, *(user_id.upper() for user_id in USER_IDS), "@eve:example.org", ""])
_junk: st.SearchStrategy[object] = st.none() | st.booleans() | st.integers(0, 2) | st.just([]) | st.just({})


def _mostly(values: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    return st.one_of(values, values, values, _junk)


_types = st.sampled_from(
    ["m.room.message", "m.room.member", "M.Room.Member", "m.room.encrypted", "m.reaction", "m.call.invite", "x"]
)
_mentions = st.fixed_dictionaries(
    {}, optional={"user_ids": _mostly(st.lists(_mostly(_user_ids), max_size=3)), "room": _mostly(st.just(True))}
)
_contents = st.fixed_dictionaries(
    {},
    optional={
        "body": _mostly(st.sampled_from(["alice", "hello Bob", "@room"])),
        "msgtype": _mostly(st.sampled_from(["m.text", "m.notice"])),
        "membership": _mostly(st.sampled_from(["invite", "INVITE", "join", "leave"])),
        "m.mentions": _mostly(_mentions),
        "m.relates_to": _mostly(st.just({"rel_type": "m.replace", "event_id": "$e"})),
    },
)
_events = st.fixed_dictionaries(
    {},
    optional={
        "type": _mostly(_types),
        "content": _mostly(_contents),
        "sender": _mostly(_user_ids),
        "state_key": _mostly(_user_ids),
    },
)
_rooms = st.builds(
    RoomContext,
    member_count=st.integers(1, 3),
    sender_power_level=st.sampled_from([0, 50, math.inf]),
    notification_levels=st.sampled_from([{}, {"room": 50}, {"room": 51}]),
)


@given(_events, st.sets(st.sampled_from(USER_IDS)), _rooms)
def test_an_event_does_the_same_for_all_who_are_no_candidates(
    event: Json, members: set[str], context: RoomContext
) -> None:
    candidates = MentionIndex(members).candidates(event)
    others = {member for member in members if member != event.get("sender")}
    assert candidates <= others
    unmentioned = evaluate_unmentioned(event, context)
    for member in others - candidates:
        rules = compile_ruleset(default_ruleset(member))
        assert evaluate(rules, event, Recipient(member, "Alice"), context) == unmentioned


@given(_events, st.sampled_from([ALICE, BOB, "@Dave:example.org"]), _rooms)
def test_the_shared_default_rules_are_everybodys(event: Json, user_id: str, context: RoomContext) -> None:
    recipient = Recipient(user_id, None)
    own = compile_ruleset(default_ruleset(user_id))
    assert evaluate(DEFAULT_RULES, event, recipient, context) == evaluate(own, event, recipient, context)


def test_candidates_are_those_mentioned_and_those_invited() -> None:
    index = MentionIndex([ALICE, BOB])
    assert index.candidates(message("alice")) == set()
    assert index.candidates(mentions(user_ids=[ALICE, BOB, "@stranger:x", 1])) == {ALICE}
    assert index.candidates(state("m.room.member", ALICE, membership="invite")) == {ALICE}
    assert index.candidates(state("m.room.member", ALICE, membership="join")) == set()


def test_index_follows_the_members() -> None:
    index = MentionIndex()
    index.add(ALICE)
    index.add(ALICE)
    assert index.candidates(mentions(user_ids=[ALICE])) == {ALICE}
    index.remove(ALICE)
    index.remove(ALICE)
    assert index.candidates(mentions(user_ids=[ALICE])) == set()

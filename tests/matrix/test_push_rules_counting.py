"""Rule sets cut down to what counts in a room count as the whole ones do; rule sets are edited as the API says."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matrix.push_rules import Recipient, RoomContext, UserRules, compile_ruleset, default_ruleset, evaluate
from matrix.push_rules.editing import (
    NoSuchNeighbour,
    NoSuchRule,
    change_rule,
    delete_rule,
    find_rule,
    own_part,
    put_rule,
    whole_ruleset,
)

USER = "@alice:x"
HERE, THERE = "!here:x", "!there:x"

ACTIONS = st.sampled_from(
    [
        [],
        ["dont_notify"],
        ["notify"],
        ["notify", {"set_tweak": "sound", "value": "ring"}],
        ["notify", {"set_tweak": "highlight"}],
        ["notify", {"set_tweak": "highlight"}, {"set_tweak": "highlight", "value": False}],
    ]
)
CONDITIONS = st.lists(
    st.sampled_from(
        [
            {"kind": "event_match", "key": "room_id", "pattern": HERE},
            {"kind": "event_match", "key": "room_id", "pattern": THERE},
            {"kind": "event_match", "key": "room_id", "pattern": "!*:x"},
            {"kind": "event_match", "key": "type", "pattern": "m.room.message"},
            {"kind": "event_match", "key": "content.body", "pattern": "cake"},
            {"kind": "contains_display_name"},
            {"kind": "room_member_count", "is": ">2"},
            {"kind": "unknown"},
        ]
    ),
    max_size=3,
)
CONDITIONAL = st.tuples(st.sampled_from(["override", "underride"]), st.sampled_from("abc"), CONDITIONS, ACTIONS)
OTHERS = st.tuples(
    st.sampled_from(["content", "room", "sender"]), st.sampled_from([HERE, THERE, "@bob:x", "cake"]), st.none(), ACTIONS
)
CHANGES = st.tuples(
    st.sampled_from([(kind, rule["rule_id"]) for kind, rules in default_ruleset(USER).items() for rule in rules]),
    st.one_of(st.booleans(), ACTIONS),
)


@st.composite
def rulesets(draw: st.DrawFn) -> dict[str, list[dict[str, Any]]]:
    """Rule sets that users can make."""
    ruleset = default_ruleset(USER)
    for kind, rule_id, conditions, actions in draw(st.lists(st.one_of(CONDITIONAL, OTHERS), max_size=6)):
        rule: dict[str, Any] = {"rule_id": rule_id, "default": False, "enabled": True, "actions": actions}
        if conditions is not None:
            rule["conditions"] = conditions
        if kind == "content":
            rule["pattern"] = rule_id
        ruleset = put_rule(ruleset, kind, rule)
    for (kind, rule_id), value in draw(st.lists(CHANGES, max_size=3)):
        field = "enabled" if isinstance(value, bool) else "actions"
        ruleset = change_rule(ruleset, kind, rule_id, field, value)
    return ruleset


EVENTS = st.fixed_dictionaries(
    {
        "type": st.sampled_from(["m.room.message", "m.room.encrypted", "m.room.tombstone", "m.reaction"]),
        "sender": st.sampled_from(["@bob:x", "@carol:x", USER]),
        "room_id": st.sampled_from([HERE, "!else:x"]),
        "content": st.sampled_from(
            [
                {"body": "a cake"},
                {"body": "Alice, look", "msgtype": "m.notice"},
                {"body": "Alice, look"},
                {"body": "you", "m.mentions": {"user_ids": [USER]}},
                {"body": "all", "m.mentions": {"room": True}},
            ]
        ),
    }
)


@given(rulesets(), EVENTS, st.sampled_from([2, 3]), st.sampled_from([0, 50]))
def test_what_is_cut_down_counts_the_same(
    ruleset: dict[str, list[dict[str, Any]]], event: dict[str, Any], members: int, level: int
) -> None:
    recipient, context = Recipient(USER, "Alice"), RoomContext(members, level, {"room": 50})
    expected = evaluate(compile_ruleset(ruleset), event, recipient, context)
    rules = UserRules(ruleset).in_room(event["room_id"])
    if rules is None:
        outcome = evaluate(compile_ruleset(default_ruleset(USER)), event, recipient, context)
    else:
        outcome = rules.evaluate(event, recipient, context)
    assert (outcome.notify, outcome.highlight) == (expected.notify, expected.highlight)


@given(rulesets())
def test_the_users_part_makes_the_whole_again(ruleset: dict[str, list[dict[str, Any]]]) -> None:
    assert whole_ruleset(own_part(ruleset, USER), USER) == ruleset
    assert whole_ruleset(ruleset, USER) == ruleset


def test_equal_rules_are_one_object_and_default_ones_none() -> None:
    assert UserRules(default_ruleset(USER)).in_room(HERE) is None
    sounds = change_rule(default_ruleset(USER), "underride", ".m.rule.call", "actions", ["notify"])
    assert UserRules(sounds).in_room(HERE) is None, "sounds do not count"

    def muting(*room_ids: str) -> UserRules:
        ruleset = default_ruleset(USER)
        for room_id in room_ids:
            ruleset = put_rule(ruleset, "room", {"rule_id": room_id, "default": False, "enabled": True, "actions": []})
        return UserRules(ruleset)

    one, both = muting(HERE), muting(HERE, THERE)
    assert one.in_room(THERE) is None
    assert one.in_room(HERE) is both.in_room(HERE) is both.in_room(THERE) is not None
    assert (one.is_own_in(HERE), one.is_own_in(THERE)) == (True, False)


def test_rules_of_a_later_release_appear() -> None:
    stored = own_part(default_ruleset(USER), USER)
    assert stored == {kind: [] for kind in stored}
    assert whole_ruleset({}, USER) == default_ruleset(USER)


def test_what_is_not_there_cannot_be_edited() -> None:
    ruleset = default_ruleset(USER)
    rule = {"rule_id": "x", "default": False, "enabled": True, "actions": []}
    for neighbour in ("nothing", ".m.rule.master"):
        with pytest.raises(NoSuchNeighbour):
            put_rule(ruleset, "override", rule, before=neighbour)
    for change in (
        lambda: find_rule(ruleset, "override", "x"),
        lambda: delete_rule(ruleset, "override", "x"),
        lambda: change_rule(ruleset, "override", "x", "enabled", True),
    ):
        with pytest.raises(NoSuchRule):
            change()
    assert ruleset == default_ruleset(USER)

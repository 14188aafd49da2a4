"""A user's rule set as the push rules API reads and changes it.

A rule set is what `m.push_rules` holds under `global`: {kind: [rule, …]} in the order of priority, user-defined rules
before the server's own, and `.m.rule.master` before all.
Every function that changes one returns a new rule set and leaves the old one as it was.

https://spec.matrix.org/v1.19/client-server-api/#push-rules-api
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from matrix.push_rules.predefined import default_ruleset
from matrix.push_rules.ruleset import KINDS, MASTER_RULE_ID

Rule = dict[str, Any]
Ruleset = dict[str, list[Rule]]

_CHANGEABLE: Final = ("enabled", "actions")


class NoSuchRule(Exception):
    """The rule to read or change is not there."""


class NoSuchNeighbour(Exception):
    """The rule named by `before` or `after` is not one of the user's own, of this kind."""


def find_rule(ruleset: Mapping[str, Sequence[Rule]], kind: str, rule_id: str) -> Rule:
    """The rule of this kind with this ID. Raises NoSuchRule."""
    for rule in ruleset.get(kind, ()):
        if rule["rule_id"] == rule_id:
            return rule
    raise NoSuchRule


def put_rule(
    ruleset: Ruleset, kind: str, rule: Rule, *, before: str | None = None, after: str | None = None
) -> Ruleset:
    """Adds a user-defined rule, or puts it in the place of the one with its ID. Raises NoSuchNeighbour.

    A changed rule stays where it is unless `before` (or else `after`) says otherwise, and stays enabled or disabled.
    A new one comes first. With both given, `before` says where it goes, for the specification lets it decide.
    """
    rules = list(ruleset[kind])
    old = next((index for index, known in enumerate(rules) if known["rule_id"] == rule["rule_id"]), None)
    if old is not None:
        rule = {**rule, "enabled": rules.pop(old)["enabled"]}
    for neighbour in (before, after):
        if neighbour is not None:
            _index_of(rules, neighbour)
    if before is not None:
        index = _index_of(rules, before)
    elif after is not None:
        index = _index_of(rules, after) + 1
    else:
        index = _is_led_by_master(rules) if old is None else old
    rules.insert(index, rule)
    return {**ruleset, kind: rules}


def _is_led_by_master(rules: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the first of these rules is the one that no other may stand before."""
    return bool(rules) and rules[0]["rule_id"] == MASTER_RULE_ID


def _index_of(rules: Sequence[Rule], rule_id: str) -> int:
    for index, rule in enumerate(rules):
        if rule["rule_id"] == rule_id and not rule["default"]:
            return index
    raise NoSuchNeighbour(rule_id)


def delete_rule(ruleset: Ruleset, kind: str, rule_id: str) -> Ruleset:
    """Removes a user-defined rule. Raises NoSuchRule."""
    find_rule(ruleset, kind, rule_id)
    return {**ruleset, kind: [rule for rule in ruleset[kind] if rule["rule_id"] != rule_id]}


def change_rule(ruleset: Ruleset, kind: str, rule_id: str, field: str, value: object) -> Ruleset:
    """Sets `enabled` or `actions` of any rule, the server's own too. Raises NoSuchRule."""
    assert field in _CHANGEABLE, field
    changed = {**find_rule(ruleset, kind, rule_id), field: value}
    return {**ruleset, kind: [changed if rule["rule_id"] == rule_id else rule for rule in ruleset[kind]]}


def copy_room_rules(ruleset: Ruleset, old_room_id: str, new_room_id: str) -> Ruleset:
    """Has the user's rules that are named after one room for another one too, each right before the one it is like.

    That is how clients set what a room notifies of: by a room rule, or by an override rule whose condition has the
    room's ID. A rule that is named after the other room already stays as it is.
    """
    copied: Ruleset = {}
    for kind, rules in ruleset.items():
        has_own = any(rule["rule_id"] == new_room_id for rule in rules)
        copied[kind] = []
        for rule in rules:
            if rule["rule_id"] == old_room_id and not rule["default"] and not has_own:
                copied[kind].append(_rule_of_room(rule, old_room_id, new_room_id))
            copied[kind].append(rule)
    return copied


def _rule_of_room(rule: Rule, old_room_id: str, new_room_id: str) -> Rule:
    in_old = {"kind": "event_match", "key": "room_id", "pattern": old_room_id}
    in_new = {**in_old, "pattern": new_room_id}
    changed = {**rule, "rule_id": new_room_id}
    if "conditions" in rule:
        changed["conditions"] = [in_new if condition == in_old else condition for condition in rule["conditions"]]
    return changed


def own_part(ruleset: Mapping[str, Sequence[Rule]], user_id: str) -> Ruleset:
    """What of a rule set is the user's: their rules, and what they have changed of the server's own."""
    defaults = default_ruleset(user_id)
    own: Ruleset = {}
    for kind in KINDS:
        predefined = {rule["rule_id"]: rule for rule in defaults[kind]}
        own[kind] = []
        for rule in ruleset.get(kind, ()):
            standard = predefined.get(rule["rule_id"])
            if standard is None:
                own[kind].append(rule)
            elif changes := {field: rule[field] for field in _CHANGEABLE if rule[field] != standard[field]}:
                own[kind].append({"rule_id": rule["rule_id"], **changes})
    return own


def whole_ruleset(own: Mapping[str, Sequence[Mapping[str, Any]]], user_id: str) -> Ruleset:
    """The rule set of a user from their part of it: predefined rules that are newer than that part are in it too."""
    ruleset: Ruleset = {}
    for kind, predefined in default_ruleset(user_id).items():
        changes = {rule["rule_id"]: rule for rule in own.get(kind, ())}
        own_rules = [{**rule} for rule in own.get(kind, ()) if not rule["rule_id"].startswith(".")]
        standard = [
            {**rule, **{field: changed[field] for field in _CHANGEABLE if field in changed}}
            if (changed := changes.get(rule["rule_id"]))
            else rule
            for rule in predefined
        ]
        # https://spec.matrix.org/v1.19/client-server-api/#predefined-rules: clients evaluate what they are given.
        first = _is_led_by_master(standard)
        ruleset[kind] = standard[:first] + own_rules + standard[first:]
    return ruleset

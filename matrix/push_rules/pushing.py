"""Users' rule sets with all that they say, sounds and other tweaks too: what a pusher needs beside whether it counts.

Compiled once for all who have changed the predefined rules in the same way, most of them in no way.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final
from weakref import WeakValueDictionary

import orjson

from matrix.push_rules.conditions import RECIPIENT
from matrix.push_rules.editing import own_part
from matrix.push_rules.predefined import predefined_override_rules, predefined_underride_rules
from matrix.push_rules.ruleset import KINDS, RuleSet, compile_ruleset, evaluate
from matrix.push_rules.values import Outcome, Recipient, RoomContext

_ANYONE: Final = Recipient(user_id="*", display_name=None)  # no Matrix ID: nobody is this
_PREDEFINED: Final = {"override": predefined_override_rules(RECIPIENT), "underride": predefined_underride_rules()}


class PushingRules:
    """A compiled rule set that users share. Compare by identity."""

    __slots__ = ("__weakref__", "_rules", "needs_display_name")

    def __init__(self, rules: RuleSet, *, needs_display_name: bool) -> None:
        self._rules = rules
        self.needs_display_name = needs_display_name

    def evaluate(self, event: Mapping[str, object], recipient: Recipient, room: RoomContext) -> Outcome:
        """What an event does for one user who has these rules."""
        return evaluate(self._rules, event, recipient, room)

    def evaluate_unmentioned(self, event: Mapping[str, object], room: RoomContext) -> Outcome:
        """What an event does for every user who has these rules, is not its sender, and is not singled out by it
        (`MentionIndex`). Only where no display name is needed.
        """
        return evaluate(self._rules, event, _ANYONE, room)


_shared: Final[WeakValueDictionary[bytes, PushingRules]] = WeakValueDictionary()


def pushing_rules(ruleset: Mapping[str, Sequence[dict[str, Any]]], user_id: str) -> PushingRules:
    """A user's whole rule set, as one object for all who have the same but for their IDs."""
    own = own_part(ruleset, user_id)
    signature = orjson.dumps(own)
    rules = _shared.get(signature)
    if rules is None:
        whole = {kind: [_impersonal(kind, rule) for rule in ruleset.get(kind, ())] for kind in KINDS}
        needs_name = any(_looks_for_name(rule) for rules in whole.values() for rule in rules)
        rules = _shared[signature] = PushingRules(compile_ruleset(whole), needs_display_name=needs_name)
    return rules


def _impersonal(kind: str, rule: dict[str, Any]) -> dict[str, Any]:
    """A predefined rule in the form that means whoever is evaluated; others as they are."""
    for predefined in _PREDEFINED.get(kind, ()):
        if predefined["rule_id"] == rule["rule_id"]:
            return {**predefined, "enabled": rule["enabled"], "actions": rule["actions"]}
    return rule


def _looks_for_name(rule: Mapping[str, Any]) -> bool:
    conditions = rule.get("conditions") or ()
    return any(isinstance(c, Mapping) and c.get("kind") == "contains_display_name" for c in conditions)

"""Compiling a rule set, and evaluating an event by it.

https://spec.matrix.org/v1.19/client-server-api/#push-rules
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeGuard

from matrix.globs import fold_case
from matrix.push_rules.conditions import RECIPIENT, Condition, Subject, body_condition, compile_condition, literal_type
from matrix.push_rules.predefined import (
    LEGACY_MENTION_RULE_IDS,
    predefined_override_rules,
    predefined_underride_rules,
)
from matrix.push_rules.values import NO_NOTIFICATION, Outcome, Recipient, RoomContext

KINDS: Final = ("override", "content", "room", "sender", "underride")
"""The kinds of rules in the order in which they are checked."""

MASTER_RULE_ID: Final = ".m.rule.master"

_MAX_INDEXED_TYPES: Final = 64
_ABOLISHED_ACTIONS: Final = ("dont_notify", "coalesce")

# What is left to check of a rule, and what follows if all of it holds.
_Step = tuple[tuple[Condition, ...], Outcome]


@dataclass(frozen=True, slots=True)
class _Rule:
    event_type: str | None
    """The folded type that the event has to have, if the rule demands a single one."""
    type_conditions: tuple[Condition, ...]
    """The conditions that demand `event_type`."""
    conditions: tuple[Condition, ...]
    """All others."""
    outcome: Outcome


class RuleSet:
    """A compiled rule set: immutable, good for any number of evaluations, and shared by all users who have it.

    Most rules are about a single event type, so they are laid out by it: an event meets only the rules that can match
    its type, with that condition already taken care of.
    """

    __slots__ = ("_steps_by_type", "_steps_otherwise")

    def __init__(self, rules: Sequence[_Rule]) -> None:
        types = list(dict.fromkeys(rule.event_type for rule in rules if rule.event_type is not None))
        indexed = types[:_MAX_INDEXED_TYPES]
        self._steps_by_type: dict[str, tuple[_Step, ...]] = {
            event_type: tuple(
                (rule.conditions, rule.outcome) for rule in rules if rule.event_type in (None, event_type)
            )
            for event_type in indexed
        }
        self._steps_otherwise: tuple[_Step, ...] = tuple(
            (rule.type_conditions + rule.conditions, rule.outcome)
            for rule in rules
            if rule.event_type is None or rule.event_type not in self._steps_by_type
        )

    def steps_for(self, event_type: object) -> tuple[_Step, ...]:
        """What can match an event of this type, in order of priority."""
        if not isinstance(event_type, str):
            return self._steps_otherwise
        steps = self._steps_by_type.get(event_type)
        if steps is None:
            steps = self._steps_by_type.get(fold_case(event_type), self._steps_otherwise)
        return steps


def evaluate(rules: RuleSet, event: Mapping[str, object], recipient: Recipient, room: RoomContext) -> Outcome:
    """What `event`, in client format, does for `recipient`: the outcome of the first rule that matches.

    Events of the recipient's own do nothing. If no rule matches, the outcome is `NO_NOTIFICATION`.
    """
    if event.get("sender") == recipient.user_id:
        return NO_NOTIFICATION
    subject = Subject(event, recipient, room)
    for conditions, outcome in rules.steps_for(event.get("type")):
        for holds in conditions:
            if not holds(subject):
                break
        else:
            return outcome
    return NO_NOTIFICATION


def compile_ruleset(ruleset: Mapping[str, object]) -> RuleSet:
    """Compile a rule set given as the client-server API spells it, the content of `m.push_rules`' `global`.

    Rules that are disabled, malformed, or hold a condition that is malformed or unknown never match, and are left out.
    Within a kind the order given stands, but for what the specification guarantees: user-defined rules come before the
    server's own, and `.m.rule.master` before everything.
    """
    rules: list[_Rule] = []
    for kind in KINDS:
        compiled = (_compile_rule(kind, rule) for rule in _by_priority(ruleset.get(kind)))
        rules.extend(rule for rule in compiled if rule is not None)
    return RuleSet(rules)


def _by_priority(rules: object) -> Iterable[Mapping[str, object]]:
    if not _is_array(rules):
        return ()
    usable = [rule for rule in rules if isinstance(rule, Mapping) and isinstance(rule.get("rule_id"), str)]
    return sorted(usable, key=lambda rule: (rule["rule_id"] != MASTER_RULE_ID, rule["rule_id"].startswith(".")))


def _compile_rule(kind: str, rule: Mapping[str, object]) -> _Rule | None:
    rule_id, actions = rule.get("rule_id"), rule.get("actions")
    if rule.get("enabled", True) is not True or not isinstance(rule_id, str) or not _is_array(actions):
        return None
    outcome = _outcome_of(rule_id, actions)
    match kind:
        case "content":
            pattern = rule.get("pattern")
            if not isinstance(pattern, str):
                return None
            return _Rule(None, (), (*_preconditions(rule_id), body_condition(pattern)), outcome)
        case "room":
            return _Rule(None, (), (lambda subject: subject.event.get("room_id") == rule_id,), outcome)
        case "sender":
            return _Rule(None, (), (lambda subject: subject.event.get("sender") == rule_id,), outcome)
        case _:
            return _compile_conditional_rule(rule_id, rule.get("conditions", ()), outcome)


def _compile_conditional_rule(rule_id: str, conditions: object, outcome: Outcome) -> _Rule | None:
    if not _is_array(conditions):
        return None
    types = {folded for condition in conditions if (folded := literal_type(condition)) is not None}
    if len(types) > 1:
        return None  # No event has two types.
    type_conditions: list[Condition] = []
    others: list[Condition] = [*_preconditions(rule_id)]
    for condition in conditions:
        compiled = compile_condition(condition)
        if compiled is None:
            return None
        (others if literal_type(condition) is None else type_conditions).append(compiled)
    return _Rule(next(iter(types), None), tuple(type_conditions), tuple(others), outcome)


def _is_array(value: object) -> TypeGuard[Sequence[object]]:
    return isinstance(value, list | tuple)


def _preconditions(rule_id: str) -> tuple[Condition, ...]:
    return (_has_no_mentions,) if rule_id in LEGACY_MENTION_RULE_IDS else ()


def _has_no_mentions(subject: Subject) -> bool:
    content = subject.event.get("content")
    return not isinstance(content, dict) or "m.mentions" not in content


def _outcome_of(rule_id: str, actions: Sequence[object]) -> Outcome:
    """Read a rule's actions. Tweaks without `notify` change nothing: there is no notification to change."""
    kept = tuple(action for action in actions if action not in _ABOLISHED_ACTIONS)
    if "notify" not in kept:
        return Outcome(notify=False, highlight=False, sound=None, rule_id=rule_id, actions=kept)
    tweaks = {action["set_tweak"]: action for action in kept if _is_tweak(action)}
    highlight, sound = tweaks.get("highlight"), tweaks.get("sound", {}).get("value")
    return Outcome(
        notify=True,
        highlight=highlight is not None and highlight.get("value", True) is True,
        sound=sound if isinstance(sound, str) else None,
        rule_id=rule_id,
        actions=kept,
    )


def _is_tweak(action: object) -> TypeGuard[Mapping[str, object]]:
    return isinstance(action, Mapping) and isinstance(action.get("set_tweak"), str)


DEFAULT_RULES: Final = compile_ruleset(
    {"override": predefined_override_rules(RECIPIENT), "underride": predefined_underride_rules()}
)
"""The default rule set of every user at once: where it names the user, it means the recipient of the evaluation."""

"""Users' rule sets as far as they say what counts: shared by all to whom, in one room, they say the same.

What a rule set does in a room does not depend on its rules about other rooms, and what counts does not depend on
sounds. Most people's rules, looked at like this, are the default ones, or those of somebody who has muted the room.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from weakref import WeakValueDictionary

import orjson

from matrix.globs import has_wildcard
from matrix.identifiers import is_room_id
from matrix.push_rules.conditions import RECIPIENT
from matrix.push_rules.predefined import predefined_override_rules, predefined_underride_rules
from matrix.push_rules.ruleset import KINDS, MASTER_RULE_ID, RuleSet, compile_ruleset, evaluate
from matrix.push_rules.values import Outcome, Recipient, RoomContext

_PREDEFINED: Final = {("override", rule["rule_id"]): rule for rule in predefined_override_rules(RECIPIENT)} | {
    ("underride", rule["rule_id"]): rule for rule in predefined_underride_rules()
}

_ALWAYS_COUNTED: Final = frozenset({".m.rule.message", ".m.rule.encrypted"})
_ANYONE: Final = Recipient(user_id="*", display_name=None)  # no Matrix ID: nobody is this


class CountingRules:
    """What a rule set counts in a room. One object for all rule sets that count alike: compare by identity."""

    __slots__ = ("__weakref__", "_rules", "is_own", "needs_display_name")

    def __init__(self, rules: RuleSet, *, is_own: bool, needs_display_name: bool) -> None:
        self._rules = rules
        self.is_own = is_own
        """Whether so little counts that it is counted by itself, and not as a difference from what others count."""
        self.needs_display_name = needs_display_name

    def evaluate(self, event: Mapping[str, object], recipient: Recipient, room: RoomContext) -> Outcome:
        """What an event does for one user who has these rules."""
        return evaluate(self._rules, event, recipient, room)

    def evaluate_unmentioned(self, event: Mapping[str, object], room: RoomContext) -> Outcome:
        """What an event does for every user who has these rules and is not singled out by it (`MentionIndex`).

        Only where no display name is needed.
        """
        return evaluate(self._rules, event, _ANYONE, room)


@dataclass(frozen=True, slots=True)
class _Item:
    """An enabled rule: the room it is about (None: any), its form for compiling, and what tells it from others.

    `decides_mode` is set of rules that meet nearly every message.
    """

    room_id: str | None
    kind: str
    rule: Mapping[str, Any]
    signature: object
    holds_always: bool
    decides_mode: bool
    notifies: bool
    needs_display_name: bool = False


_shared: Final[WeakValueDictionary[bytes, CountingRules]] = WeakValueDictionary()


class UserRules:
    """One user's rules, for any room."""

    __slots__ = ("_by_room", "_general", "_items", "general_is_own", "own_by_room")

    def __init__(self, ruleset: Mapping[str, Iterable[Mapping[str, Any]]]) -> None:
        self._items = [
            item for kind in KINDS for rule in _ordered(ruleset.get(kind, ())) if (item := _item(kind, rule))
        ]
        rooms = {item.room_id for item in self._items if item.room_id is not None}
        self.general_is_own, self.own_by_room = _modes(self._items)
        """Whether messages are counted by themselves: in any room, and where that is otherwise in single rooms."""
        self._general = self._compile(None)
        self._by_room: dict[str, CountingRules | None] = {}
        if len(rooms) <= _MAX_COMPILED_ROOMS:
            self._by_room = {room_id: self._compile(room_id) for room_id in rooms}

    def in_room(self, room_id: str) -> CountingRules | None:
        """What counts in a room; None where it is what counts by the default rules."""
        if room_id in self._by_room:
            return self._by_room[room_id]
        if any(item.room_id == room_id for item in self._items):
            return self._compile(room_id)
        return self._general

    def is_own_in(self, room_id: str) -> bool:
        """Whether messages of a room are counted by themselves."""
        return self.own_by_room.get(room_id, self.general_is_own)

    def _compile(self, room_id: str | None) -> CountingRules | None:
        items: list[_Item] = []
        for item in self._items:
            if item.room_id is None or item.room_id == room_id:
                items.append(item)
                if item.holds_always:
                    break  # none after it is ever reached
        is_own = self.general_is_own if room_id is None else self.is_own_in(room_id)
        signature = orjson.dumps([is_own, [item.signature for item in items]])
        if signature == _default_signature:
            return None
        rules = _shared.get(signature)
        if rules is None:
            compiled = compile_ruleset({kind: [item.rule for item in items if item.kind == kind] for kind in KINDS})
            needs_name = any(item.needs_display_name for item in items)
            rules = _shared[signature] = CountingRules(compiled, is_own=is_own, needs_display_name=needs_name)
        return rules


_MAX_COMPILED_ROOMS: Final = 50
"""Of a user with rules about more rooms than this, those of a room are put together when they are asked for."""


def _ordered(rules: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return sorted(rules, key=lambda rule: (rule["rule_id"] != MASTER_RULE_ID, rule["rule_id"].startswith(".")))


def _item(kind: str, rule: Mapping[str, Any]) -> _Item | None:
    if rule.get("enabled", True) is not True:
        return None
    rule_id, actions = rule["rule_id"], rule["actions"]
    notifies = "notify" in actions
    tweaks = [a for a in actions if isinstance(a, Mapping) and a.get("set_tweak") == "highlight"] if notifies else []
    outcome = ["notify", *tweaks[-1:]] if notifies else []
    predefined = _PREDEFINED.get((kind, rule_id))
    if predefined is not None:
        is_master = rule_id == MASTER_RULE_ID
        form = {**predefined, "enabled": True, "actions": outcome}
        decides = is_master or (rule_id in _ALWAYS_COUNTED and not notifies)
        return _Item(None, kind, form, [kind, rule_id, outcome], is_master, decides, notifies)
    form = {"rule_id": rule_id, "actions": outcome}
    signature: list[object] = [kind, outcome]
    if kind == "content":
        form["pattern"] = rule["pattern"]
        signature += [rule_id[:1] == "." and rule_id, rule["pattern"]]
        return _Item(None, kind, form, signature, False, False, notifies)
    if kind == "sender":
        return _Item(None, kind, form, [*signature, rule_id], False, False, notifies)
    if kind == "room":  # in its room it always holds, as an underride rule without conditions does
        return _Item(rule_id, "underride", {**form, "conditions": []}, signature, True, True, notifies)
    conditions = rule.get("conditions", ())
    room_id = next((literal for c in conditions if (literal := _literal_room(c)) is not None), None)
    others = [condition for condition in conditions if _literal_room(condition) != room_id or room_id is None]
    form["conditions"] = others
    needs_name = any(isinstance(c, Mapping) and c.get("kind") == "contains_display_name" for c in others)
    signature += [rule_id[:1] == "." and rule_id, others]
    return _Item(room_id, kind, form, signature, not others, not others, notifies, needs_name)


def _literal_room(condition: object) -> str | None:
    """The room that a condition demands, if it is a single one. (Room IDs never differ in case alone.)"""
    if (
        not isinstance(condition, Mapping)
        or condition.get("kind") != "event_match"
        or condition.get("key") != "room_id"
    ):
        return None
    pattern = condition.get("pattern")
    if not isinstance(pattern, str) or not is_room_id(pattern) or has_wildcard(pattern):
        return None
    return pattern


def _modes(items: Iterable[_Item]) -> tuple[bool, dict[str, bool]]:
    """Whether messages nearly always count for nothing: in rooms that no rule is about, and where it is otherwise.

    The first rule that always holds decides. A wrong guess costs rows and makes no count wrong.
    """
    rooms: dict[str, bool] = {}
    for item in items:
        if not item.decides_mode:
            continue
        if item.room_id is None:
            general = not item.notifies
            return general, {room_id: is_own for room_id, is_own in rooms.items() if is_own != general}
        rooms.setdefault(item.room_id, not item.notifies)
    return False, {room_id: True for room_id, is_own in rooms.items() if is_own}


_default_signature: Final = orjson.dumps(
    [
        False,
        [
            item.signature
            for kind, rules in (
                ("override", predefined_override_rules("")),
                ("underride", predefined_underride_rules()),
            )
            for rule in rules
            if (item := _item(kind, rule)) is not None
        ],
    ]
)

"""Push conditions, compiled: a function per condition, with all of its JSON read beforehand.

https://spec.matrix.org/v1.19/client-server-api/#conditions
"""

import re
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Final

from matrix.globs import GLOB_WORK_LIMIT, Glob, fold_case, has_wildcard, whole_glob, word_glob, word_literal
from matrix.property_paths import property_getter, split_property_path
from matrix.push_rules.values import Recipient, RoomContext


class _Personal(Enum):
    RECIPIENT = "recipient"


RECIPIENT: Final = _Personal.RECIPIENT
"""In a pattern or value: the Matrix ID of whoever is evaluated. JSON cannot hold it, so no stored rule set can."""

_MAX_INTEGER: Final = 2**53 - 1
_BODY: Final = ("content", "body")
_DEFAULT_NOTIFICATION_LEVELS: Final[Mapping[str, int]] = {"room": 50}
_MEMBER_COUNT: Final = re.compile(r"(==|<=|>=|<|>)?([0-9]{1,16})")


class Subject:
    """One event before one user: what conditions look at, and what they have spent on it."""

    __slots__ = ("_folded_body", "_glob_work_left", "event", "recipient", "room")

    def __init__(self, event: Mapping[str, object], recipient: Recipient, room: RoomContext) -> None:
        self.event = event
        self.recipient = recipient
        self.room = room
        self._folded_body: str | None = None
        self._glob_work_left = GLOB_WORK_LIMIT

    def folded_body(self) -> str | None:
        """`content.body` without its case, folded once for all rules that look at it; `None` if it is no string."""
        if self._folded_body is None:
            content = self.event.get("content")
            body = content.get("body") if isinstance(content, dict) else None
            if not isinstance(body, str):
                return None
            self._folded_body = fold_case(body)
        return self._folded_body

    def matches_glob(self, glob: Glob, text: str) -> bool:
        """Match, unless the globs tried so far have used up what one evaluation may cost: then nothing matches."""
        if glob.needle not in text:
            return False
        self._glob_work_left -= glob.work_on(text)
        return self._glob_work_left >= 0 and glob.matches(text)


Condition = Callable[[Subject], bool]


def body_condition(pattern: str) -> Condition:
    """Whether `pattern` describes a part of `content.body` that starts and ends at word boundaries."""
    glob = word_glob(fold_case(pattern))

    def matches_body(subject: Subject) -> bool:
        body = subject.folded_body()
        return body is not None and subject.matches_glob(glob, body)

    return matches_body


def _event_match(condition: Mapping[str, object]) -> Condition | None:
    key, pattern = condition.get("key"), condition.get("pattern")
    if not isinstance(key, str):
        return None
    path = split_property_path(key)
    get_property = property_getter(path)
    if pattern is RECIPIENT:
        return lambda subject: _equals_folded(get_property(subject.event), fold_case(subject.recipient.user_id))
    if not isinstance(pattern, str):
        return None
    if path == _BODY:
        return body_condition(pattern)
    folded = fold_case(pattern)
    if not has_wildcard(folded):

        def matches_literal(subject: Subject) -> bool:
            value = get_property(subject.event)
            return value == folded or (isinstance(value, str) and fold_case(value) == folded)

        return matches_literal
    glob = whole_glob(folded)

    def matches_whole(subject: Subject) -> bool:
        value = get_property(subject.event)
        return isinstance(value, str) and subject.matches_glob(glob, fold_case(value))

    return matches_whole


def _equals_folded(value: object, folded: str) -> bool:
    return isinstance(value, str) and fold_case(value) == folded


def _is_comparable(value: object) -> bool:
    """Whether `value` is one that conditions can compare: a string, an integer that JSON may hold, a boolean, null."""
    if isinstance(value, int):
        return -_MAX_INTEGER <= value <= _MAX_INTEGER
    return value is None or isinstance(value, str)


def _event_property_is(condition: Mapping[str, object]) -> Condition | None:
    key, expected = condition.get("key"), condition.get("value", RECIPIENT)
    if not isinstance(key, str) or not _is_comparable(expected):
        return None
    get_property = property_getter(split_property_path(key))
    # Python holds that True == 1 and 1 == 1.0; the specification says "do not cast types".
    expected_type = type(expected)

    def is_value(subject: Subject) -> bool:
        value = get_property(subject.event)
        return type(value) is expected_type and value == expected

    return is_value


def _event_property_contains(condition: Mapping[str, object]) -> Condition | None:
    key, expected = condition.get("key"), condition.get("value")
    if not isinstance(key, str) or "value" not in condition:
        return None
    get_property = property_getter(split_property_path(key))
    if expected is RECIPIENT:

        def contains_recipient(subject: Subject) -> bool:
            values = get_property(subject.event)
            return isinstance(values, list) and subject.recipient.user_id in values

        return contains_recipient
    if not _is_comparable(expected):
        return None
    expected_type = type(expected)

    def contains_value(subject: Subject) -> bool:
        values = get_property(subject.event)
        return isinstance(values, list) and any(type(value) is expected_type and value == expected for value in values)

    return contains_value


def _contains_display_name(condition: Mapping[str, object]) -> Condition:
    def contains_display_name(subject: Subject) -> bool:
        display_name = subject.recipient.display_name
        if not display_name:
            return False
        body = subject.folded_body()
        return body is not None and subject.matches_glob(word_literal(fold_case(display_name)), body)

    return contains_display_name


def _room_member_count(condition: Mapping[str, object]) -> Condition | None:
    text = condition.get("is")
    match = _MEMBER_COUNT.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        return None
    count = int(match[2])
    match match[1]:
        case "<":
            return lambda subject: subject.room.member_count < count
        case ">":
            return lambda subject: subject.room.member_count > count
        case "<=":
            return lambda subject: subject.room.member_count <= count
        case ">=":
            return lambda subject: subject.room.member_count >= count
        case _:
            return lambda subject: subject.room.member_count == count


def _sender_notification_permission(condition: Mapping[str, object]) -> Condition | None:
    """A kind of notification that the room gives no level for, and that has no default level, is nobody's to send."""
    key = condition.get("key")
    if not isinstance(key, str):
        return None
    default_level = _DEFAULT_NOTIFICATION_LEVELS.get(key)

    def has_permission(subject: Subject) -> bool:
        level = subject.room.notification_levels.get(key, default_level)
        return level is not None and subject.room.sender_power_level >= level

    return has_permission


_COMPILERS: Final[Mapping[str, Callable[[Mapping[str, object]], Condition | None]]] = {
    "event_match": _event_match,
    "event_property_is": _event_property_is,
    "event_property_contains": _event_property_contains,
    "contains_display_name": _contains_display_name,
    "room_member_count": _room_member_count,
    "sender_notification_permission": _sender_notification_permission,
}


def compile_condition(condition: object) -> Condition | None:
    """Compile one condition; `None` if it is malformed or of an unknown kind, and so cannot match any event."""
    if not isinstance(condition, Mapping):
        return None
    kind = condition.get("kind")
    compiler = _COMPILERS.get(kind) if isinstance(kind, str) else None
    return compiler(condition) if compiler is not None else None


def literal_type(condition: object) -> str | None:
    """The folded event type that `condition` demands, or `None` if it demands none or describes it by a glob."""
    if not isinstance(condition, Mapping) or condition.get("kind") != "event_match" or condition.get("key") != "type":
        return None
    pattern = condition.get("pattern")
    return fold_case(pattern) if isinstance(pattern, str) and not has_wildcard(pattern) else None

"""Which of a room's messages somebody may see, worked out from the events themselves. Pure.

The bot sees a room as a member; whoever asks it may have seen less. For each message the state at the message decides,
by the rules of https://spec.matrix.org/v1.19/client-server-api/#server-behaviour-5. That state is rebuilt from the
state events in the same run and from what each of them replaced; where that is not known, the stricter is taken.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from appservices.summary_bot.events import RawEvent, mapping

MEMBER = "m.room.member"
VISIBILITY = "m.room.history_visibility"
VISIBILITIES = ("world_readable", "shared", "invited", "joined")
DEFAULT_VISIBILITY = "shared"
"""https://spec.matrix.org/v1.19/client-server-api/#room-history-visibility"""

STRICTEST = "joined"
ABSENT = "leave"

Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Now:
    """What was the room's state a moment before its events were read."""

    visibility: str
    joined: frozenset[str]


def visible_to(events: Sequence[RawEvent], now: Now, user_id: str) -> list[bool]:
    """For each event (oldest first), whether this person may see it. Nobody who is not in the room now sees any."""
    if _membership_in_the_end(events, now, user_id) != "join":
        return [False] * len(events)
    walk = _Walk(events, now, {user_id})
    return [_may_see(visibility, memberships[user_id]) for visibility, memberships in walk.states()]


def visible_to_all(events: Sequence[RawEvent], now: Now) -> list[bool]:
    """For each event (oldest first), whether every present member of the room may see it."""
    in_the_end = dict.fromkeys(now.joined, "join")
    for event in events:
        if _key(event) is not None and event["type"] == MEMBER:
            in_the_end[event["state_key"]] = _value(MEMBER, event["content"])
    members = {user for user, membership in in_the_end.items() if membership == "join"}
    walk = _Walk(events, now, members)
    away = dict.fromkeys(("invite", "other"), 0)
    result = []
    kinds: dict[str, str] = {}
    for visibility, memberships, changed in walk.steps():
        for user in changed:
            before, after = kinds.get(user, "join"), _kind(memberships[user])
            kinds[user] = after
            for kind, step in ((before, -1), (after, 1)):
                if kind in away:
                    away[kind] += step
        result.append(
            visibility in ("world_readable", "shared")
            or (away["other"] == 0 and (visibility == "invited" or away["invite"] == 0))
        )
    return result


def _kind(membership: str) -> str:
    return membership if membership in ("join", "invite") else "other"


def _may_see(visibility: str, membership: str) -> bool:
    """For somebody who is in the room now: the rules of the specification in their order."""
    return (
        visibility == "world_readable"
        or membership == "join"
        or visibility == "shared"
        or (visibility == "invited" and membership == "invite")
    )


def _key(event: RawEvent) -> Key | None:
    state_key = event.get("state_key")
    if not isinstance(state_key, str):
        return None
    if event["type"] == MEMBER or (event["type"] == VISIBILITY and state_key == ""):
        return event["type"], state_key
    return None


def _value(kind: str, content: Mapping[str, Any]) -> str:
    if kind == VISIBILITY:
        value = content.get("history_visibility")
        return value if value in VISIBILITIES else DEFAULT_VISIBILITY
    value = content.get("membership")
    return value if isinstance(value, str) else ABSENT


def _value_before(kind: str, event: RawEvent) -> str:
    """What a state event replaced."""
    unsigned = mapping(event.get("unsigned"))
    if isinstance(unsigned.get("prev_content"), dict):
        return _value(kind, unsigned["prev_content"])
    if "replaces_state" in unsigned:
        return STRICTEST if kind == VISIBILITY else ABSENT
    return DEFAULT_VISIBILITY if kind == VISIBILITY else ABSENT


def _membership_in_the_end(events: Sequence[RawEvent], now: Now, user_id: str) -> str:
    for event in reversed(events):
        if _key(event) == (MEMBER, user_id):
            return _value(MEMBER, event["content"])
    return "join" if user_id in now.joined else ABSENT


class _Walk:
    """Goes through events, oldest first, and says the state before each of them."""

    def __init__(self, events: Sequence[RawEvent], now: Now, users: Iterable[str]) -> None:
        self._events = events
        self._memberships = {user: "join" if user in now.joined else ABSENT for user in users}
        self._visibility = now.visibility if now.visibility in VISIBILITIES else DEFAULT_VISIBILITY
        seen: set[Key] = set()
        self._changed = []
        for event in events:
            key = _key(event)
            if key is None or key in seen:
                continue
            seen.add(key)
            before = _value_before(key[0], event)
            if key[0] == VISIBILITY:
                self._visibility = before
            elif key[1] in self._memberships:
                self._memberships[key[1]] = before
                self._changed.append(key[1])

    def states(self) -> Iterator[tuple[str, Mapping[str, str]]]:
        for visibility, memberships, _ in self.steps():
            yield visibility, memberships

    def steps(self) -> Iterator[tuple[str, Mapping[str, str], Sequence[str]]]:
        """(visibility, memberships, whose membership is another than at the step before), for each event."""
        changed = self._changed
        for event in self._events:
            yield self._visibility, self._memberships, changed
            changed = []
            key = _key(event)
            if key is None:
                continue
            if key[0] == VISIBILITY:
                self._visibility = _value(VISIBILITY, event["content"])
            elif key[1] in self._memberships:
                self._memberships[key[1]] = _value(MEMBER, event["content"])
                changed = [key[1]]

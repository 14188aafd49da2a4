"""Who may see an event: the rules of room history visibility.

https://spec.matrix.org/v1.19/client-server-api/#room-history-visibility
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

WORLD_READABLE: Final = "world_readable"
SHARED: Final = "shared"
INVITED: Final = "invited"
JOINED: Final = "joined"

VISIBILITIES: Final = frozenset({WORLD_READABLE, SHARED, INVITED, JOINED})
DEFAULT_VISIBILITY: Final = SHARED


@dataclass(frozen=True, slots=True)
class Standing:
    """What of a room's state decides whether one user sees an event."""

    visibility: str
    """The history visibility, one of `VISIBILITIES`; `visibility_of` gives it."""
    membership: str | None
    """The user's membership, `None` where they have no `m.room.member` event."""


def visibility_of(content: Mapping[str, object] | None) -> str:
    """The visibility that the content of an `m.room.history_visibility` event sets.

    A room without that event, or with a value that is not understood, is `shared`.
    """
    visibility = content.get("history_visibility") if content is not None else None
    return visibility if isinstance(visibility, str) and visibility in VISIBILITIES else DEFAULT_VISIBILITY


def is_event_visible(*, visibility: str, membership: str | None, joined_since: bool) -> bool:
    """Decide by the state of the room at the event: the five rules, in the specification's order.

    https://spec.matrix.org/v1.19/client-server-api/#server-behaviour-6

    Args:
        visibility: the history visibility in effect at the event.
        membership: the user's membership at the event, `None` if they had none.
        joined_since: whether the user joined the room at any point after the event. It does not matter whether they
            have left again: what they were allowed to see before, they may see still.
    """
    # 1. If the history_visibility was set to world_readable, allow.
    if visibility == WORLD_READABLE:
        return True
    # 2. If the user's membership was join, allow.
    if membership == "join":
        return True
    # 3. If history_visibility was set to shared, and the user joined at any point after the event was sent, allow.
    if visibility == SHARED and joined_since:
        return True
    # 4. If the user's membership was invite, and the history_visibility was set to invited, allow.
    # 5. Otherwise, deny.
    return visibility == INVITED and membership == "invite"


def may_see_event(
    event: Mapping[str, object], user_id: str, *, before: Standing, after: Standing, joined_since: bool
) -> bool:
    """Whether `user_id` may see `event`, given their standing in the state before it and in the state after it.

    The two differ for a change of the visibility and for the user's own membership events. There the user sees the
    event if either state would show it: one always sees oneself leave, and history being closed.

    Args:
        event: the event in client format; its `type` and `state_key` are read.
        user_id: who asks.
        before: the user's standing in the state before the event.
        after: the user's standing in the state after the event.
        joined_since: as in `is_event_visible`.
    """
    if is_event_visible(visibility=before.visibility, membership=before.membership, joined_since=joined_since):
        return True
    if not _shows_state_after(event, user_id):
        return False
    return is_event_visible(visibility=after.visibility, membership=after.membership, joined_since=joined_since)


def _shows_state_after(event: Mapping[str, object], user_id: str) -> bool:
    match event.get("type"):
        case "m.room.history_visibility":
            return event.get("state_key") == ""
        case "m.room.member":
            return event.get("state_key") == user_id
        case _:
            return False

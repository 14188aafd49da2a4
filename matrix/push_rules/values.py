"""What the evaluation of push rules takes and gives."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final


@dataclass(frozen=True, slots=True)
class Recipient:
    """The user who may be notified, as they are in the room."""

    user_id: str
    display_name: str | None


@dataclass(frozen=True, slots=True)
class RoomContext:
    """What push conditions ask about the room and about the sender's standing in it."""

    member_count: int
    """How many users are joined to the room."""
    sender_power_level: float
    """The sender's power level; `math.inf` for the creators of a room whose version gives them more than any number."""
    notification_levels: Mapping[str, int]
    """The `notifications` of the room's power levels: the level needed for each kind. `room` is 50 if absent."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one event does for one user.

    https://spec.matrix.org/v1.19/client-server-api/#actions
    """

    notify: bool
    """Whether the event counts as a notification and goes to the pushers."""
    highlight: bool
    """The `highlight` tweak; false where there is no notification."""
    sound: str | None
    """The `sound` tweak; `None` where there is no notification."""
    rule_id: str | None
    """The rule that matched, `None` if none did."""
    actions: tuple[object, ...] = field(default=(), hash=False)
    """The rule's actions as JSON, for pushers and `/notifications`, without those that have been abolished."""


NO_NOTIFICATION: Final = Outcome(notify=False, highlight=False, sound=None, rule_id=None)
"""The outcome when no rule matches."""

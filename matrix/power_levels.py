"""Power levels as the rules read them, whatever an m.room.power_levels event contains.

https://spec.matrix.org/v1.19/client-server-api/#mroompower_levels
"""

import math
import re
from collections.abc import Mapping
from typing import Any, Final, Literal

from matrix.pdu import Pdu
from matrix.room_versions import RoomVersion

LevelKey = Literal["ban", "kick", "invite", "redact", "users_default", "events_default", "state_default"]

DEFAULT_LEVELS: Final[Mapping[LevelKey, int]] = {
    "ban": 50,
    "kick": 50,
    "invite": 0,
    "redact": 50,
    "users_default": 0,
    "events_default": 0,
    "state_default": 50,
}
DEFAULT_NOTIFICATION_LEVEL: Final = 50
CREATOR_LEVEL_WITHOUT_EVENT: Final = 100

_is_integer_string = re.compile(r"\s*[+-]?[0-9]+\s*").fullmatch
_NOTHING: Final[Mapping[str, Any]] = {}


def parse_level(value: object, room_version: RoomVersion) -> int | None:
    """Return the level that the value stands for in the room version, None if it stands for none.

    Strings that hold an integer count until version 9, floats until version 5.
    https://spec.matrix.org/v1.19/rooms/v1/#deprecated-event-content-schemas
    """
    if type(value) is int:
        return value
    if room_version.integer_power_levels:
        return None
    if isinstance(value, str) and _is_integer_string(value):
        try:
            return int(value)
        except ValueError:  # thousands of digits, which the interpreter refuses to convert
            return None
    if isinstance(value, float) and room_version.float_power_levels and math.isfinite(value):
        return int(value)
    return None


def get_creators(room_version: RoomVersion, create: Pdu) -> frozenset[str]:
    """Return the user IDs of the room's creators.

    One, named by `content.creator` or by `sender`, until version 11; with the `additional_creators` from version 12.
    https://spec.matrix.org/v1.19/rooms/v12/#authorisation-rules
    """
    if room_version.create_has_creator:
        creator = create.content.get("creator")
        return frozenset((creator,)) if isinstance(creator, str) else frozenset()
    if not room_version.creators_have_infinite_power:
        return frozenset((create.sender,))
    additional = create.content.get("additional_creators")
    if not isinstance(additional, list):
        return frozenset((create.sender,))
    return frozenset((create.sender, *(user_id for user_id in additional if isinstance(user_id, str))))


class PowerLevels:
    """The power levels in force in a room. Values that are no levels in the room version count as absent."""

    __slots__ = (
        "_events",
        "_infinite",
        "_notifications",
        "_room_version",
        "_users",
        "ban",
        "events_default",
        "invite",
        "kick",
        "redact",
        "state_default",
        "users_default",
    )

    def __init__(self, room_version: RoomVersion, creators: frozenset[str], content: Mapping[str, Any] | None) -> None:
        """Read the content of m.room.power_levels, None if the room has no such event; see also `of`."""
        levels: Mapping[str, Any] = _NOTHING if content is None else content
        self._room_version: Final = room_version
        self._infinite: Final = creators if room_version.creators_have_infinite_power else frozenset()
        self._users = _get_object(levels, "users")
        self._events: Final = _get_object(levels, "events")
        self._notifications: Final = _get_object(levels, "notifications")
        if content is None and not room_version.creators_have_infinite_power:
            self._users = dict.fromkeys(creators, CREATOR_LEVEL_WITHOUT_EVENT)
        self.ban: Final = self._get_level(levels, "ban")
        self.kick: Final = self._get_level(levels, "kick")
        self.invite: Final = self._get_level(levels, "invite")
        self.redact: Final = self._get_level(levels, "redact")
        self.users_default: Final = self._get_level(levels, "users_default")
        self.events_default: Final = self._get_level(levels, "events_default")
        self.state_default: Final = self._get_level(levels, "state_default")

    @classmethod
    def of(cls, room_version: RoomVersion, create: Pdu, power_levels: Pdu | None) -> "PowerLevels":
        """Return the levels in a room with these m.room.create and m.room.power_levels events."""
        content = None if power_levels is None else power_levels.content
        return cls(room_version, get_creators(room_version, create), content)

    def user(self, user_id: str) -> float:
        """Return the user's level, infinite for creators from room version 12."""
        if user_id in self._infinite:
            return math.inf
        level = self._users.get(user_id)
        if type(level) is int:
            return level
        parsed = parse_level(level, self._room_version)
        return self.users_default if parsed is None else parsed

    def event(self, type: str, is_state: bool) -> int:
        """Return the level required to send events of the type.

        https://spec.matrix.org/v1.19/server-server-api/#definitions
        """
        parsed = parse_level(self._events.get(type), self._room_version)
        if parsed is not None:
            return parsed
        return self.state_default if is_state else self.events_default

    def notification(self, key: str) -> int:
        """Return the level required to notify by the key, such as "room" for @room."""
        parsed = parse_level(self._notifications.get(key), self._room_version)
        return DEFAULT_NOTIFICATION_LEVEL if parsed is None else parsed

    def _get_level(self, content: Mapping[str, Any], key: LevelKey) -> int:
        parsed = parse_level(content.get(key), self._room_version)
        return DEFAULT_LEVELS[key] if parsed is None else parsed


def _get_object(content: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = content.get(key)
    return value if isinstance(value, dict) else _NOTHING

"""The rules for m.room.power_levels, rule 10 (rule 9 of room versions 6 to 11)."""

from collections.abc import Mapping
from typing import Any

from matrix.event_auth.common import POWER_LEVELS_KEY, AuthContext, Rejection
from matrix.identifiers import is_user_id
from matrix.pdu import Pdu
from matrix.power_levels import DEFAULT_LEVELS, get_creators, parse_level
from matrix.room_versions import RoomVersion


def check_power_levels(pdu: Pdu, context: AuthContext) -> Rejection | None:
    """Apply rule 10, https://spec.matrix.org/v1.19/rooms/v12/#authorisation-rules."""
    room_version = pdu.room_version
    if rejection := _check_format(pdu.content, room_version):
        return rejection
    # 10.4. Creators must not be among the users. Version 12.
    if room_version.creators_have_infinite_power:
        users = pdu.content.get("users", {})
        if any(creator in users for creator in get_creators(room_version, context.create)):
            return Rejection("content.users contains a creator of the room")
    # 10.5. "If there is no previous m.room.power_levels event in the room, allow." All versions.
    previous = context.auth_state.get(POWER_LEVELS_KEY)
    if previous is None:
        return None
    return _check_changes(previous.content, pdu, context.levels.user(pdu.sender))


def _check_format(content: Mapping[str, Any], room_version: RoomVersion) -> Rejection | None:
    """Apply rules 10.1 to 10.3."""
    if room_version.integer_power_levels:
        # 10.1. The single levels, where present, must be integers. Versions 10 and later.
        for key in DEFAULT_LEVELS:
            if key in content and type(content[key]) is not int:
                return Rejection(f"content.{key} is not an integer")
        # 10.2. events and notifications, where present, must be objects of integers. Versions 10 and later.
        for name in ("events", "notifications"):
            levels = content.get(name, {})
            if not isinstance(levels, dict) or not all(type(level) is int for level in levels.values()):
                return Rejection(f"content.{name} is not an object of integers")
    # 10.3. users must be an object of user IDs and integers (strings of integers count until version 9, floats until
    # version 5). All versions.
    users = content.get("users", {})
    if not isinstance(users, dict):
        return Rejection("content.users is not an object")
    for user_id, level in users.items():
        if not is_user_id(user_id):
            return Rejection("content.users has a key that is not a user ID")
        if parse_level(level, room_version) is None:
            return Rejection("content.users has a value that is not an integer")
    return None


def _check_changes(previous: Mapping[str, Any], pdu: Pdu, sender_level: float) -> Rejection | None:
    """Apply rules 10.6 to 10.11. Values that are no levels in the room version count as absent."""
    room_version, content = pdu.room_version, pdu.content
    # 10.6. No single level may be altered that is, or becomes, higher than the sender's. All versions.
    for key in DEFAULT_LEVELS:
        old, new = parse_level(previous.get(key), room_version), parse_level(content.get(key), room_version)
        if old != new and _exceeds(old, new, sender_level):
            return Rejection(f"the sender may not change {key}")
    # 10.7 and 10.8. The same for each entry of events and, from version 6, of notifications.
    limited = ("events", "notifications") if room_version.limit_notifications_power_levels else ("events",)
    for property in limited:
        old_levels = _get_levels(previous, property, room_version)
        new_levels = _get_levels(content, property, room_version)
        for name in old_levels.keys() | new_levels.keys():
            old, new = old_levels.get(name), new_levels.get(name)
            if old != new and _exceeds(old, new, sender_level):
                return Rejection(f"the sender may not change {property}")
    old_users, new_users = _get_levels(previous, "users", room_version), _get_levels(content, "users", room_version)
    for user_id in old_users.keys() | new_users.keys():
        old, new = old_users.get(user_id), new_users.get(user_id)
        if old == new:
            continue
        # 10.9. Nobody changes the level of others who have as much power, or more. All versions.
        if old is not None and user_id != pdu.sender and old >= sender_level:
            return Rejection("the sender may not change the level of users with as much power")
        # 10.10. Nobody gives more power than they have. All versions.
        if new is not None and new > sender_level:
            return Rejection("the sender may not give a level above their own")
    # 10.11. "Otherwise, allow." All versions.
    return None


def _exceeds(old: int | None, new: int | None, sender_level: float) -> bool:
    return (old is not None and old > sender_level) or (new is not None and new > sender_level)


def _get_levels(content: Mapping[str, Any], key: str, room_version: RoomVersion) -> dict[str, int]:
    levels = content.get(key)
    if not isinstance(levels, dict):
        return {}
    parsed = ((name, parse_level(level, room_version)) for name, level in levels.items())
    return {name: level for name, level in parsed if level is not None}

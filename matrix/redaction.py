"""The redaction algorithm, https://spec.matrix.org/v1.19/client-server-api/#redactions."""

from collections.abc import Mapping
from typing import Any, Final

from matrix.room_versions import RoomVersion

_NO_KEYS: Final[frozenset[str]] = frozenset()


def redact_event(event_json: Mapping[str, Any], room_version: RoomVersion) -> dict[str, Any]:
    """Return the event without what a redaction strips in the room version; `unsigned` goes too.

    The values that stay are shared with the argument, not copied. Tolerates events of any shape, since signatures are
    checked on the redacted form before anything else is known of an event.
    """
    keeps = room_version.redaction_keeps
    redacted = {key: value for key, value in event_json.items() if key in keeps}
    if "content" in redacted:
        redacted["content"] = redact_content(redacted.get("type"), redacted["content"], room_version)
    return redacted


def redact_content(type: object, content: object, room_version: RoomVersion) -> dict[str, Any]:
    """Return what a redaction leaves of the content of an event of the type."""
    if not isinstance(content, dict) or not isinstance(type, str):
        return {}
    if room_version.redaction_keeps_create_content and type == "m.room.create":
        return content
    keeps = room_version.redaction_keeps_in_content.get(type, _NO_KEYS)
    redacted = {key: content[key] for key in content if key in keeps} if keeps else {}
    if room_version.redaction_keeps_third_party_invite_signed and type == "m.room.member":
        third_party_invite = content.get("third_party_invite")
        if isinstance(third_party_invite, dict):
            # The key itself "is no longer redacted" from version 11 on, so an object stays one, if empty.
            redacted["third_party_invite"] = {
                key: third_party_invite[key] for key in ("signed",) if key in third_party_invite
            }
    return redacted

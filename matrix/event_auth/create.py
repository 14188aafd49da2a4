"""The rules for m.room.create, rule 1 in every room version."""

from matrix.event_auth.common import Rejection
from matrix.identifiers import get_domain, is_user_id
from matrix.pdu import Pdu
from matrix.room_versions import ROOM_VERSIONS


def check_create(pdu: Pdu) -> Rejection | None:
    """Apply rule 1, https://spec.matrix.org/v1.19/rooms/v12/#authorisation-rules."""
    room_version = pdu.room_version
    # 1.1. "If it has any prev_events, reject." All versions.
    if pdu.prev_events:
        return Rejection("m.room.create has prev_events")
    if room_version.room_id_is_create_event_hash:
        # 1.2. "If the event has a room_id, reject." Version 12.
        if "room_id" in pdu.json:
            return Rejection("m.room.create has a room_id")
    # 1.2. The domains of room_id and sender must match. Versions 1 to 11.
    elif get_domain(pdu.room_id) != get_domain(pdu.sender):
        return Rejection("the domain of room_id is not that of sender")
    # 1.3. A room_version that is present must be a recognised one. All versions.
    if "room_version" in pdu.content:
        identifier = pdu.content["room_version"]
        if not isinstance(identifier, str) or identifier not in ROOM_VERSIONS:
            return Rejection("content.room_version is not a recognised room version")
    # 1.4. "If content has no creator property, reject." Versions 1 to 10.
    if room_version.create_has_creator and "creator" not in pdu.content:
        return Rejection("content has no creator")
    # 1.4. additional_creators, if present, must be an array of user IDs. Version 12.
    if room_version.creators_have_infinite_power and "additional_creators" in pdu.content:
        additional = pdu.content["additional_creators"]
        if not isinstance(additional, list) or not all(is_user_id(user_id) for user_id in additional):
            return Rejection("content.additional_creators is not an array of user IDs")
    # 1.5. "Otherwise, allow."
    return None

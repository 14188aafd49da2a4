"""Which state events go into `auth_events`, and whether those of an event are the right ones."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from matrix.event_auth.common import CREATE_KEY, JOIN_RULES_KEY, POWER_LEVELS_KEY, Rejection
from matrix.pdu import Pdu
from matrix.room_versions import RoomVersion


def auth_event_keys(
    room_version: RoomVersion, type: str, sender: str, state_key: str | None, content: Mapping[str, Any]
) -> list[tuple[str, str]]:
    """Return the (type, state_key) pairs of the state that an event's `auth_events` consist of, without repetitions.

    Those that the room's state lacks are left out of the event.
    https://spec.matrix.org/v1.19/server-server-api/#auth-events-selection
    """
    if type == "m.room.create":
        return []
    keys = [POWER_LEVELS_KEY, ("m.room.member", sender)]
    if not room_version.room_id_is_create_event_hash:
        keys.insert(0, CREATE_KEY)
    if type != "m.room.member":
        return keys
    if state_key is not None and state_key != sender:
        keys.append(("m.room.member", state_key))
    membership = content.get("membership")
    if membership in ("join", "invite", "knock"):
        keys.append(JOIN_RULES_KEY)
    if membership == "invite":
        token = _get_third_party_token(content)
        if token is not None:
            keys.append(("m.room.third_party_invite", token))
    elif membership == "join" and room_version.restricted_allowed:
        authoriser = content.get("join_authorised_via_users_server")
        if isinstance(authoriser, str) and ("m.room.member", authoriser) not in keys:
            keys.append(("m.room.member", authoriser))
    return keys


def _get_third_party_token(content: Mapping[str, Any]) -> str | None:
    third_party_invite = content.get("third_party_invite")
    signed = third_party_invite.get("signed") if isinstance(third_party_invite, dict) else None
    token = signed.get("token") if isinstance(signed, dict) else None
    return token if isinstance(token, str) else None


def check_auth_event_selection(
    pdu: Pdu, auth_events: Sequence[Pdu], rejected: Collection[str] = ()
) -> Rejection | None:
    """Apply rule 3 to the event and the events that its `auth_events` name; `rejected` are IDs among them.

    https://spec.matrix.org/v1.19/rooms/v12/#authorisation-rules
    """
    # Rule 1 has allowed or rejected m.room.create before this one.
    if pdu.type == "m.room.create":
        return None
    allowed = set(auth_event_keys(pdu.room_version, pdu.type, pdu.sender, pdu.state_key, pdu.content))
    seen: set[tuple[str, str]] = set()
    for auth_event in auth_events:
        key = None if auth_event.state_key is None else auth_event.state_key_pair
        # 3.1. No two entries for one type and state_key. All versions.
        if key in seen:
            return Rejection(f"auth_events has two entries for {key}")
        # 3.2. Only entries that the selection algorithm selects. All versions; m.room.create until version 11.
        if key is None or key not in allowed:
            return Rejection(f"auth_events has an entry that does not belong there: {auth_event.event_id}")
        # 3.3. No rejected entries. All versions.
        if auth_event.event_id in rejected:
            return Rejection(f"auth_events has a rejected entry: {auth_event.event_id}")
        seen.add(key)
    # 3.4. There must be an m.room.create among the entries. Versions 1 to 11.
    if not pdu.room_version.room_id_is_create_event_hash and CREATE_KEY not in seen:
        return Rejection("auth_events has no m.room.create")
    # 3.5. All entries must be of the same room. All versions.
    if any(auth_event.room_id != pdu.room_id for auth_event in auth_events):
        return Rejection("auth_events has an entry of another room")
    return None

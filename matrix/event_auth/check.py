"""The order of the rules, and those that concern every event."""

from collections.abc import Collection

from matrix.event_auth.aliases import check_aliases
from matrix.event_auth.common import CREATE_KEY, POWER_LEVELS_KEY, AuthContext, AuthState, Rejection
from matrix.event_auth.create import check_create
from matrix.event_auth.membership import check_membership
from matrix.event_auth.power_levels import check_power_levels
from matrix.event_auth.redaction import check_redaction
from matrix.event_auth.third_party_invite import check_third_party_invite
from matrix.identifiers import get_domain
from matrix.pdu import Pdu
from matrix.power_levels import PowerLevels


def check_event_auth(
    pdu: Pdu,
    auth_state: AuthState,
    *,
    power_levels: PowerLevels | None = None,
    verified_servers: Collection[str] | None = (),
) -> Rejection | None:
    """Tell whether the authorisation rules of the event's room version allow it in a room with this state.

    `auth_state` has at least those of the event's `auth_event_keys` that exist, and always m.room.create, also where
    that is not among `auth_events`; the create event must itself not be rejected. `power_levels` may be given if
    made of the same state before. `verified_servers` are those whose signatures on this event the caller has verified;
    None stands for all that it needs, for events whose signatures were checked when they were received.

    What the rules say of `auth_events` is checked by `check_auth_event_selection` instead.
    https://spec.matrix.org/v1.19/server-server-api/#authorisation-rules
    """
    # 1. m.room.create has all its rules in one. All versions.
    if pdu.type == "m.room.create":
        return check_create(pdu)
    create = auth_state.get(CREATE_KEY)
    if create is None:
        return Rejection("the room has no m.room.create")
    # 2. The room_id must be that of the create event. Version 12.
    if pdu.room_version.room_id_is_create_event_hash and pdu.room_id != create.room_id:
        return Rejection("room_id is not the hash of the create event")
    # 3. auth_events: see check_auth_event_selection. All versions.
    # 4. Other servers stay out of rooms that are not federated. All versions.
    if create.content.get("m.federate") is False and get_domain(pdu.sender) != get_domain(create.sender):
        return Rejection("the room is not federated")
    # Rule 4 of versions 1 to 5.
    if pdu.type == "m.room.aliases" and pdu.room_version.special_case_aliases:
        return check_aliases(pdu)
    levels = power_levels
    if levels is None:
        levels = PowerLevels.of(pdu.room_version, create, auth_state.get(POWER_LEVELS_KEY))
    # 5. Memberships. All versions.
    if pdu.type == "m.room.member":
        return check_membership(pdu, AuthContext(auth_state, create, levels, verified_servers))
    # 6. "If the sender's current membership state is not join, reject." All versions.
    member = auth_state.get(("m.room.member", pdu.sender))
    if member is None or member.content.get("membership") != "join":
        return Rejection("the sender is not in the room")
    # 7. Invitations to third parties. All versions.
    if pdu.type == "m.room.third_party_invite":
        return check_third_party_invite(pdu, levels)
    # 8. The sender must have the level required for the event's type. All versions.
    if levels.event(pdu.type, pdu.state_key is not None) > levels.user(pdu.sender):
        return Rejection(f"the sender may not send {pdu.type}")
    # 9. State keys that are user IDs belong to those users. All versions.
    if pdu.state_key is not None and pdu.state_key.startswith("@") and pdu.state_key != pdu.sender:
        return Rejection("the state_key is another user's ID")
    # 10. Changes of power levels. All versions.
    if pdu.type == "m.room.power_levels":
        return check_power_levels(pdu, AuthContext(auth_state, create, levels, verified_servers))
    # Rule 11 of versions 1 and 2.
    if pdu.type == "m.room.redaction" and pdu.room_version.authorise_redactions:
        return check_redaction(pdu, levels)
    # 11. "Otherwise, allow." All versions.
    return None

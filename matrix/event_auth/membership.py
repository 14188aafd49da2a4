"""The rules for m.room.member, rule 5 (rule 4 of room versions 6 to 11)."""

from matrix.event_auth.common import AuthContext, Rejection, get_join_rule, get_membership
from matrix.event_auth.third_party_invite import check_invite_by_third_party
from matrix.identifiers import get_domain, is_user_id
from matrix.pdu import Pdu


def check_membership(pdu: Pdu, context: AuthContext) -> Rejection | None:
    """Apply rule 5, https://spec.matrix.org/v1.19/rooms/v12/#authorisation-rules."""
    # 5.1. Without state_key, or membership in content, reject. All versions.
    if pdu.state_key is None:
        return Rejection("m.room.member has no state_key")
    if "membership" not in pdu.content:
        return Rejection("content has no membership")
    # 5.2. join_authorised_via_users_server needs a signature of that user's server. Versions 8 and later.
    if pdu.room_version.restricted_allowed and "join_authorised_via_users_server" in pdu.content:
        authoriser = pdu.content["join_authorised_via_users_server"]
        if not is_user_id(authoriser):
            return Rejection("content.join_authorised_via_users_server is not a user ID")
        if context.verified_servers is not None and get_domain(authoriser) not in context.verified_servers:
            return Rejection("the server of join_authorised_via_users_server has not signed the event")
    membership = pdu.content["membership"]
    if membership == "join":
        return _check_join(pdu, pdu.state_key, context)
    if membership == "invite":
        return _check_invite(pdu, pdu.state_key, context)
    if membership == "leave":
        return _check_leave(pdu, pdu.state_key, context)
    if membership == "ban":
        return _check_ban(pdu, pdu.state_key, context)
    if membership == "knock" and pdu.room_version.knock_allowed:
        return _check_knock(pdu, pdu.state_key, context)
    # 5.8. "Otherwise, the membership is unknown. Reject." All versions.
    return Rejection("unknown membership")


def _check_join(pdu: Pdu, target: str, context: AuthContext) -> Rejection | None:
    """Apply rule 5.3."""
    room_version, create = pdu.room_version, context.create
    # 5.3.1. The creator joins right after m.room.create. All versions.
    if pdu.prev_events == (create.event_id,):
        # "the creator" in versions 1 to 10, "the sender of the m.room.create" from version 11.
        creator = create.content.get("creator") if room_version.create_has_creator else create.sender
        if target == creator:
            return None
    # 5.3.2. "If the sender does not match state_key, reject." All versions.
    if pdu.sender != target:
        return Rejection("users can only join for themselves")
    current = get_membership(context.auth_state, target)
    # 5.3.3. "If the sender is banned, reject." All versions.
    if current == "ban":
        return Rejection("the sender is banned")
    join_rule = get_join_rule(context.auth_state)
    is_expected = current == "invite" or current == "join"
    # 5.3.4. With the join rule invite (and knock, from version 7), allow who is invited or joined. All versions.
    if join_rule == "invite" or (join_rule == "knock" and room_version.knock_allowed):
        return None if is_expected else Rejection("the room can be joined by invitation only")
    # 5.3.5. Restricted rooms: restricted from version 8, knock_restricted from version 10.
    if (join_rule == "restricted" and room_version.restricted_allowed) or (
        join_rule == "knock_restricted" and room_version.knock_restricted_allowed
    ):
        # 5.3.5.1. Who is joined or invited already may join.
        return None if is_expected else _check_authoriser(pdu, context)
    # 5.3.6. "If the join_rule is public, allow." All versions.
    if join_rule == "public":
        return None
    # 5.3.7. "Otherwise, reject." All versions.
    return Rejection("the join rule does not allow joining")


def _check_authoriser(pdu: Pdu, context: AuthContext) -> Rejection | None:
    """Apply rules 5.3.5.2 and 5.3.5.3."""
    # 5.3.5.2. The user who let them in must be joined and have the power to invite.
    authoriser = pdu.content.get("join_authorised_via_users_server")
    if not isinstance(authoriser, str):
        return Rejection("the join is not authorised by a user of the room")
    if get_membership(context.auth_state, authoriser) != "join":
        return Rejection("the user who authorised the join is not in the room")
    if context.levels.user(authoriser) < context.levels.invite:
        return Rejection("the user who authorised the join may not invite")
    # 5.3.5.3. "Otherwise, allow."
    return None


def _check_invite(pdu: Pdu, target: str, context: AuthContext) -> Rejection | None:
    """Apply rule 5.4. All versions."""
    # 5.4.1. Invites that redeem one by a third party have rules of their own.
    if "third_party_invite" in pdu.content:
        return check_invite_by_third_party(pdu, target, context)
    # 5.4.2. "If the sender's current membership state is not join, reject."
    if get_membership(context.auth_state, pdu.sender) != "join":
        return Rejection("the sender is not in the room")
    # 5.4.3. "If target user's current membership state is join or ban, reject."
    current = get_membership(context.auth_state, target)
    if current == "join" or current == "ban":
        return Rejection(f"the invited user's membership is {current}")
    # 5.4.4. "If the sender's power level is greater than or equal to the invite level, allow."
    if context.levels.user(pdu.sender) >= context.levels.invite:
        return None
    # 5.4.5. "Otherwise, reject."
    return Rejection("the sender may not invite")


def _check_leave(pdu: Pdu, target: str, context: AuthContext) -> Rejection | None:
    """Apply rule 5.5. All versions."""
    levels, current = context.levels, get_membership(context.auth_state, target)
    # 5.5.1. Users may leave who are invited or joined, or, from version 7, knocking.
    if pdu.sender == target:
        if current == "invite" or current == "join" or (current == "knock" and pdu.room_version.knock_allowed):
            return None
        return Rejection("the sender is not in the room")
    # 5.5.2. "If the sender's current membership state is not join, reject."
    if get_membership(context.auth_state, pdu.sender) != "join":
        return Rejection("the sender is not in the room")
    # 5.5.3. Who lifts a ban needs the ban level.
    sender_level = levels.user(pdu.sender)
    if current == "ban" and sender_level < levels.ban:
        return Rejection("the sender may not lift bans")
    # 5.5.4. Allow with the kick level, and more power than the target has.
    if sender_level >= levels.kick and levels.user(target) < sender_level:
        return None
    # 5.5.5. "Otherwise, reject."
    return Rejection("the sender may not kick the user")


def _check_ban(pdu: Pdu, target: str, context: AuthContext) -> Rejection | None:
    """Apply rule 5.6. All versions."""
    levels = context.levels
    # 5.6.1. "If the sender's current membership state is not join, reject."
    if get_membership(context.auth_state, pdu.sender) != "join":
        return Rejection("the sender is not in the room")
    # 5.6.2. Allow with the ban level, and more power than the target has.
    sender_level = levels.user(pdu.sender)
    if sender_level >= levels.ban and levels.user(target) < sender_level:
        return None
    # 5.6.3. "Otherwise, reject."
    return Rejection("the sender may not ban the user")


def _check_knock(pdu: Pdu, target: str, context: AuthContext) -> Rejection | None:
    """Apply rule 5.7. Versions 7 and later."""
    # 5.7.1. The join rule must be knock or, from version 10, knock_restricted.
    join_rule = get_join_rule(context.auth_state)
    if join_rule != "knock" and not (join_rule == "knock_restricted" and pdu.room_version.knock_restricted_allowed):
        return Rejection("the room does not accept knocks")
    # 5.7.2. "If sender does not match state_key, reject."
    if pdu.sender != target:
        return Rejection("users can only knock for themselves")
    # 5.7.3. "If the sender's current membership is not ban, invite, or join, allow."
    current = get_membership(context.auth_state, target)
    if current != "ban" and current != "invite" and current != "join":
        return None
    # 5.7.4. "Otherwise, reject."
    return Rejection(f"the sender's membership is {current}")

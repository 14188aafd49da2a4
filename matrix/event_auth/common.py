"""What the rule families share: the outcome, the state that rules read, and what they read in it."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

from matrix.pdu import Pdu
from matrix.power_levels import PowerLevels

AuthState = Mapping[tuple[str, str], Pdu]
"""State events by (type, state_key); keys that no rule asks for may be absent."""

CREATE_KEY: Final = ("m.room.create", "")
JOIN_RULES_KEY: Final = ("m.room.join_rules", "")
POWER_LEVELS_KEY: Final = ("m.room.power_levels", "")


@dataclass(frozen=True, slots=True)
class Rejection:
    """The event is not authorised."""

    reason: str
    """For logs and for the M_FORBIDDEN error of the user whose event it is."""


@dataclass(frozen=True, slots=True)
class AuthContext:
    """What the rules on membership and power levels read besides the event."""

    auth_state: AuthState
    create: Pdu
    levels: PowerLevels
    verified_servers: Collection[str] | None
    """Servers whose signatures on the event were verified; None if all that it needs were."""


def get_membership(auth_state: AuthState, user_id: str) -> str:
    """Return the user's membership; "leave" for users without one, "" for a value that is no string."""
    member = auth_state.get(("m.room.member", user_id))
    if member is None:
        return "leave"
    membership = member.content.get("membership")
    return membership if isinstance(membership, str) else ""


def get_join_rule(auth_state: AuthState) -> str:
    """Return the join rule; "invite" for rooms without one, "" for a value that is no string."""
    join_rules = auth_state.get(JOIN_RULES_KEY)
    if join_rules is None:
        return "invite"
    join_rule = join_rules.content.get("join_rule", "invite")
    return join_rule if isinstance(join_rule, str) else ""

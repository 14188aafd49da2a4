"""The authorisation rules of every room version, as pure functions over an event and a state.

Each module holds one family of rules, in the specification's order. Rules are cited by their names in the text; where
the number of a rule is given, it is that of room version 12, and other versions count differently.
https://spec.matrix.org/v1.19/rooms/v12/#authorisation-rules
"""

from matrix.event_auth.check import check_event_auth
from matrix.event_auth.common import AuthState, Rejection
from matrix.event_auth.redaction import redaction_applies
from matrix.event_auth.selection import auth_event_keys, check_auth_event_selection
from matrix.event_auth.third_party_invite import InviteKey, find_invite_key

__all__ = [
    "AuthState",
    "InviteKey",
    "Rejection",
    "auth_event_keys",
    "check_auth_event_selection",
    "check_event_auth",
    "find_invite_key",
    "redaction_applies",
]

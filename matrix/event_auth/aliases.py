"""The rules for m.room.aliases, rule 4 of room versions 1 to 5."""

from matrix.event_auth.common import Rejection
from matrix.identifiers import get_domain
from matrix.pdu import Pdu


def check_aliases(pdu: Pdu) -> Rejection | None:
    """Apply rule 4, https://spec.matrix.org/v1.19/rooms/v1/#authorisation-rules."""
    # 4.1. "If event has no state_key, reject."
    if pdu.state_key is None:
        return Rejection("m.room.aliases has no state_key")
    # 4.2. "If sender's domain doesn't match state_key, reject."
    if get_domain(pdu.sender) != pdu.state_key:
        return Rejection("the state_key of m.room.aliases is not the sender's domain")
    # 4.3. "Otherwise, allow."
    return None

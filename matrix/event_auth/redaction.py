"""The rules for m.room.redaction, rule 11 of room versions 1 and 2.

Later versions allow the event like any other, and decide on its effect when it is applied:
https://spec.matrix.org/v1.19/rooms/v3/#handling-redactions.
"""

from matrix.event_auth.common import Rejection
from matrix.identifiers import get_domain
from matrix.pdu import Pdu
from matrix.power_levels import PowerLevels


def check_redaction(pdu: Pdu, levels: PowerLevels) -> Rejection | None:
    """Apply rule 11, https://spec.matrix.org/v1.19/rooms/v1/#authorisation-rules."""
    # 11.1. "If the sender's power level is greater than or equal to the redact level, allow."
    if levels.user(pdu.sender) >= levels.redact:
        return None
    # 11.2. Allow if the redacted event's ID has the domain of the redaction's ID.
    if pdu.redacts is not None and get_domain(pdu.redacts) == get_domain(pdu.event_id):
        return None
    # 11.3. "Otherwise, reject."
    return Rejection("the sender may not redact events of other servers")

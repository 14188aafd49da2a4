"""The rules for m.room.redaction: rule 11 of room versions 1 and 2, and whether a redaction has an effect in others."""

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


def redaction_applies(redaction: Pdu, target: Pdu, levels: PowerLevels) -> bool:
    """Tell whether an accepted m.room.redaction redacts the event; `levels` are those in force at the redaction.

    Where the authorisation rules do not judge redactions, from version 3 on, this does, once both events are known.
    https://spec.matrix.org/v1.19/rooms/v3/#handling-redactions
    """
    if redaction.redacts != target.event_id or redaction.room_id != target.room_id:
        return False
    if redaction.room_version.authorise_redactions:
        return True
    # 1. The sender has the redact level; 2. or is of the same server as the sender of the redacted event.
    return levels.user(redaction.sender) >= levels.redact or get_domain(redaction.sender) == get_domain(target.sender)

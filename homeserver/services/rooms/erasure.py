"""What is left to newcomers of what erased accounts have written.

Who joins a room after the erasure is shown redacted copies; who was in it before goes on seeing what they saw. No event
is changed. https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3accountdeactivate
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from matrix.pdu import Pdu
from matrix.redaction import redact_event
from storage.events import StoredEvent


def is_erased(event: StoredEvent, erased: Collection[str]) -> bool:
    """Whether an event is shown redacted where these accounts are erased.

    State stays as it is, as it is the room's: without it the room would be another one for those who come later. But
    what users said of themselves as members goes.
    """
    if event.pdu.sender not in erased or event.redacted_by is not None:
        return False
    return event.pdu.state_key is None or event.pdu.state_key_pair == ("m.room.member", event.pdu.sender)


def served_json(event: StoredEvent, erased: Collection[str]) -> dict[str, Any]:
    """An event as another server is served it, which came into the room after these accounts were erased.

    Signatures and IDs hold for the redacted form as for the whole. A join that names who let it in stays as it is where
    the room version's redaction would take that away: without it the join would be none.
    """
    if not erased or not is_erased(event, erased):
        return event.pdu.json
    redacted = redact_event(event.pdu.json, event.pdu.room_version)
    authoriser = "join_authorised_via_users_server"
    is_needed = event.pdu.type == "m.room.member" and authoriser in event.pdu.content
    return event.pdu.json if is_needed and authoriser not in redacted["content"] else redacted


def as_redacted(event: StoredEvent) -> StoredEvent:
    """An event as it would be if it were redacted, for an answer that shows nothing of its content."""
    redacted = StoredEvent(
        position=event.position,
        room=event.room,
        pdu=Pdu(event.pdu.room_version, event.event_id, redact_event(event.pdu.json, event.pdu.room_version)),
        snapshot=event.snapshot,
    )
    redacted.children = event.children
    return redacted

"""The format that events must have to be valid, by room version.

https://spec.matrix.org/v1.19/rooms/v1/#event-format and the same section of the later versions;
https://spec.matrix.org/v1.19/client-server-api/#size-limits
"""

from typing import Any, Final

from matrix.canonical_json import JsonError, check_depth, check_event_value, encode_canonical_json
from matrix.identifiers import MAX_IDENTIFIER_BYTES, get_domain, is_event_id, is_room_id, is_user_id
from matrix.room_versions import EventIdFormat, RoomVersion

MAX_PDU_BYTES: Final = 65_536
MAX_PREV_EVENTS: Final = 20
MAX_AUTH_EVENTS: Final = 10
_INT64_MAX: Final = 2**63 - 1


class InvalidPdu(ValueError):
    """The event does not have the format of its room version, and must be dropped."""


class EventTooLarge(InvalidPdu):
    """The event, or one of its identifiers, exceeds the size limits (M_TOO_LARGE)."""


def check_size(size_bytes: int) -> None:
    """Raise EventTooLarge if an event of this size in Canonical JSON, signatures included, is too large."""
    if size_bytes > MAX_PDU_BYTES:
        raise EventTooLarge(f"the event has {size_bytes} bytes, of {MAX_PDU_BYTES} allowed")


def check_pdu_format(event: dict[str, Any], room_version: RoomVersion) -> None:
    """Raise InvalidPdu, or its subclass EventTooLarge, unless the event has the format of the room version."""
    try:
        if room_version.strict_canonical_json:
            check_event_value(event)
        else:
            check_depth(event)
        encoded = encode_canonical_json(event)
    except JsonError as error:
        raise InvalidPdu(str(error)) from error
    check_size(len(encoded))
    _check_identifiers(event, room_version)
    _check_integer(event, "depth", 0, room_version.max_depth)
    _check_integer(event, "origin_server_ts", -_INT64_MAX, _INT64_MAX)
    if not isinstance(event.get("content"), dict):
        raise InvalidPdu("content must be an object")
    if not isinstance(event.get("unsigned", {}), dict):
        raise InvalidPdu("unsigned must be an object")
    if not room_version.redacts_in_content and not isinstance(event.get("redacts", ""), str):
        raise InvalidPdu("redacts must be a string")
    _check_hashes_and_signatures(event)
    _check_references(event, "prev_events", MAX_PREV_EVENTS, room_version)
    _check_references(event, "auth_events", MAX_AUTH_EVENTS, room_version)


def _check_identifiers(event: dict[str, Any], room_version: RoomVersion) -> None:
    type = event.get("type")
    if not isinstance(type, str):
        raise InvalidPdu("type must be a string")
    state_key = event.get("state_key", "")
    if not isinstance(state_key, str):
        raise InvalidPdu("state_key must be a string")
    for key, value in (("type", type), ("state_key", state_key)):
        if len(value.encode()) > MAX_IDENTIFIER_BYTES:
            raise EventTooLarge(f"{key} is longer than {MAX_IDENTIFIER_BYTES} bytes")
        if "\0" in value:  # which the grammar of all other identifiers excludes, and PostgreSQL cannot store
            raise InvalidPdu(f"{key} has a NUL character")
    if not is_user_id(event.get("sender")):
        raise InvalidPdu("sender must be a user ID")
    # A create event that wrongly has a room_id is rejected by the authorisation rules, not dropped here.
    names_room = not (room_version.room_id_is_create_event_hash and type == "m.room.create")
    if names_room and not is_room_id(event.get("room_id")):
        raise InvalidPdu("room_id must be a room ID")
    if room_version.event_id_format is EventIdFormat.OPAQUE:
        event_id = event.get("event_id")
        if not is_event_id(event_id) or not get_domain(event_id):
            raise InvalidPdu("event_id must be an event ID with a domain")


def _check_integer(event: dict[str, Any], key: str, minimum: int, maximum: int) -> None:
    value = event.get(key)
    if type(value) is not int or not minimum <= value <= maximum:
        raise InvalidPdu(f"{key} must be an integer from {minimum} to {maximum}")


def _check_hashes_and_signatures(event: dict[str, Any]) -> None:
    hashes = event.get("hashes")
    if not isinstance(hashes, dict) or not isinstance(hashes.get("sha256"), str):
        raise InvalidPdu("hashes must be an object with a string sha256")
    signatures = event.get("signatures")
    if not isinstance(signatures, dict):
        raise InvalidPdu("signatures must be an object")
    for by_key in signatures.values():
        if not isinstance(by_key, dict) or not all(isinstance(signature, str) for signature in by_key.values()):
            raise InvalidPdu("signatures must hold objects of strings")


def _check_references(event: dict[str, Any], key: str, max_references: int, room_version: RoomVersion) -> None:
    references = event.get(key)
    if not isinstance(references, list):
        raise InvalidPdu(f"{key} must be an array")
    if len(references) > max_references:
        raise InvalidPdu(f"{key} must have at most {max_references} entries")
    for reference in references:
        if room_version.event_references_have_hashes:
            if not _is_hashed_reference(reference):
                raise InvalidPdu(f"{key} must consist of pairs of an event ID and a hash")
        elif not is_event_id(reference):
            raise InvalidPdu(f"{key} must consist of event IDs")


def _is_hashed_reference(reference: object) -> bool:
    # Rooms of these versions have events whose references lack the hash, as Synapse does not always state it.
    return (
        isinstance(reference, list)
        and len(reference) == 2
        and is_event_id(reference[0])
        and isinstance(reference[1], dict)
        and isinstance(reference[1].get("sha256", ""), str)
    )

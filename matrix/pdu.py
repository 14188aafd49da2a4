"""Persistent data units: events in the format in which servers exchange, sign and store them.

https://spec.matrix.org/v1.19/server-server-api/#pdus
"""

from collections.abc import Sequence
from hashlib import sha256
from typing import Any, Final, NamedTuple

from matrix.canonical_json import JsonError, check_event_value, encode_canonical_json, encode_checked_json
from matrix.hashes import format_event_id, reference_hash
from matrix.identifiers import MAX_IDENTIFIER_BYTES
from matrix.pdu_format import EventTooLarge, InvalidPdu, check_pdu_format, check_size
from matrix.redaction import redact_event
from matrix.room_versions import EventIdFormat, RoomVersion
from matrix.signatures import SigningKey
from matrix.unpadded_base64 import encode_base64

__all__ = ["EventReference", "EventTooLarge", "InvalidPdu", "Pdu", "build_pdu", "load_pdu", "parse_pdu"]

_OVERHEAD_BYTES: Final = len('"hashes":{"sha256":""},"signatures":{"":{"":""}},') + 43 + 86
"""What the hash and one signature add to the encoded event, besides the server's name and the key's ID."""


class EventReference(NamedTuple):
    """An event as `prev_events` and `auth_events` name it."""

    event_id: str
    sha256: str
    """The reference hash in unpadded Base64, which only room versions 1 and 2 need; "" in others."""


class Pdu:
    """One event with its ID. Neither the object nor its JSON may be changed."""

    __slots__ = (
        "auth_events",
        "content",
        "depth",
        "event_id",
        "json",
        "origin_server_ts",
        "prev_events",
        "redacts",
        "room_id",
        "room_version",
        "sender",
        "state_key",
        "type",
    )

    def __init__(self, room_version: RoomVersion, event_id: str, json: dict[str, Any]) -> None:
        """Take the properties out of JSON whose format is known to be right; see `parse_pdu` for all other."""
        content: dict[str, Any] = json["content"]
        type: str = json["type"]
        self.room_version: Final = room_version
        self.event_id: Final = event_id
        self.json: Final = json
        """The event as signed and stored; without `event_id` in room versions 3 and later."""
        self.type: Final = type
        self.sender: Final[str] = json["sender"]
        self.state_key: Final[str | None] = json.get("state_key")
        self.content: Final = content
        self.depth: Final[int] = json["depth"]
        self.origin_server_ts: Final[int] = json["origin_server_ts"]
        """In milliseconds, by the clock of the sender's server."""
        self.prev_events: Final = _get_event_ids(json["prev_events"], room_version)
        self.auth_events: Final = _get_event_ids(json["auth_events"], room_version)
        names_room = not (room_version.room_id_is_create_event_hash and type == "m.room.create")
        self.room_id: Final[str] = json["room_id"] if names_room else "!" + event_id[1:]
        self.redacts: Final[str | None] = (
            _get_redacts(json, content, room_version) if type == "m.room.redaction" else None
        )
        """The target of an m.room.redaction, wherever the room version has it; None in other events."""

    @property
    def is_state(self) -> bool:
        """Whether this is a state event."""
        return self.state_key is not None

    @property
    def state_key_pair(self) -> tuple[str, str]:
        """The key of this state event in a state map, (type, state_key)."""
        assert self.state_key is not None, f"{self.event_id} is not a state event"
        return (self.type, self.state_key)

    @property
    def reference(self) -> EventReference:
        """How later events refer to this one."""
        if not self.room_version.event_references_have_hashes:
            return EventReference(self.event_id, "")
        return EventReference(self.event_id, encode_base64(reference_hash(self.json, self.room_version)))

    def __repr__(self) -> str:
        return f"<Pdu {self.event_id} {self.type} {self.state_key!r} by {self.sender} in {self.room_id}>"


def _get_event_ids(references: list[Any], room_version: RoomVersion) -> tuple[str, ...]:
    if room_version.event_references_have_hashes:
        return tuple([reference[0] for reference in references])
    return tuple(references)


def _get_redacts(json: dict[str, Any], content: dict[str, Any], room_version: RoomVersion) -> str | None:
    redacts = content.get("redacts") if room_version.redacts_in_content else json.get("redacts")
    return redacts if isinstance(redacts, str) else None


def load_pdu(event_json: dict[str, Any], room_version: RoomVersion, event_id: str) -> Pdu:
    """Make a Pdu of what `parse_pdu` or `build_pdu` once made, without checking it again."""
    return Pdu(room_version, event_id, event_json)


def parse_pdu(event_json: object, room_version: RoomVersion, event_id: str | None = None) -> Pdu:
    """Check the format of an event of unknown origin and make a Pdu of it.

    This is the first of the checks performed on receipt of a PDU; signatures, hashes and authorisation are not looked
    at. A stray `event_id` is left out in room versions 3 and later, which have no such property. Give `event_id` only
    when it was computed from this event before. The JSON is kept, not copied.

    Raises InvalidPdu, or its subclass EventTooLarge.
    https://spec.matrix.org/v1.19/server-server-api/#checks-performed-on-receipt-of-a-pdu
    """
    if not isinstance(event_json, dict):
        raise InvalidPdu("an event must be an object")
    has_opaque_id = room_version.event_id_format is EventIdFormat.OPAQUE
    if not has_opaque_id and "event_id" in event_json:
        event_json = {key: value for key, value in event_json.items() if key != "event_id"}
    check_pdu_format(event_json, room_version)
    if has_opaque_id:
        if event_id is not None and event_id != event_json["event_id"]:
            raise InvalidPdu("event_id is not the expected one")
        event_id = event_json["event_id"]
    elif event_id is None:
        event_id = format_event_id(reference_hash(event_json, room_version), room_version)
    return Pdu(room_version, event_id, event_json)


def build_pdu(
    *,
    room_version: RoomVersion,
    room_id: str | None,
    type: str,
    sender: str,
    state_key: str | None,
    content: dict[str, Any],
    prev_events: Sequence[EventReference],
    auth_events: Sequence[EventReference],
    depth: int,
    origin_server_ts: int,
    server_name: str,
    signing_key: SigningKey,
    redacts: str | None = None,
    opaque_id: str = "",
    unsigned: dict[str, Any] | None = None,
) -> Pdu:
    """Make, hash and sign a new event of this server.

    `room_id` is None for the m.room.create of a room whose ID is that event's hash. `opaque_id` is the part before
    the ":" of event IDs in room versions 1 and 2, and must be unique. `redacts` goes where the room version has it.
    `depth` stays at the room version's limit. `content` is kept, not copied, unless `redacts` is added to it.

    Raises EventTooLarge beyond the size limits, and InvalidPdu for values that events cannot have.
    https://spec.matrix.org/v1.19/server-server-api/#adding-hashes-and-signatures-to-outgoing-events
    """
    if redacts is not None and room_version.redacts_in_content:
        content = {**content, "redacts": redacts}
    event: dict[str, Any] = {
        "content": content,
        "depth": depth if depth < room_version.max_depth else room_version.max_depth,
        "origin_server_ts": origin_server_ts,
        "sender": sender,
        "type": type,
    }
    if room_id is not None:
        event["room_id"] = room_id
    if state_key is not None:
        event["state_key"] = state_key
    if redacts is not None and not room_version.redacts_in_content:
        event["redacts"] = redacts
    if room_version.event_references_have_hashes:
        event["prev_events"] = [[event_id, {"sha256": hash}] for event_id, hash in prev_events]
        event["auth_events"] = [[event_id, {"sha256": hash}] for event_id, hash in auth_events]
    else:
        event["prev_events"] = [reference[0] for reference in prev_events]
        event["auth_events"] = [reference[0] for reference in auth_events]
    event_id = f"${opaque_id}:{server_name}" if room_version.event_id_format is EventIdFormat.OPAQUE else None
    if event_id is not None:
        event["event_id"] = event_id
    _check_identifier_sizes(event)
    return _hash_and_sign(event, event_id, room_version, server_name, signing_key, unsigned)


def _hash_and_sign(
    event: dict[str, Any],
    event_id: str | None,
    room_version: RoomVersion,
    server_name: str,
    signing_key: SigningKey,
    unsigned: dict[str, Any] | None,
) -> Pdu:
    """Complete the event in place, with two encodings: the second serves the signature and the event's ID alike."""
    encode = encode_canonical_json
    if room_version.strict_canonical_json:
        try:
            check_event_value(event)
        except JsonError as error:
            raise InvalidPdu(str(error)) from error
        encode = encode_checked_json
    try:
        hashed = encode(event)
        size = len(hashed) + _OVERHEAD_BYTES + len(server_name) + len(signing_key.key_id)
        if unsigned is not None:
            size += len(encode_canonical_json(unsigned)) + len('"unsigned":,')
    except JsonError as error:
        raise InvalidPdu(str(error)) from error
    check_size(size)
    event["hashes"] = {"sha256": encode_base64(sha256(hashed).digest())}
    signed = encode(redact_event(event, room_version))
    event["signatures"] = {server_name: {signing_key.key_id: signing_key.sign(signed)}}
    if unsigned is not None:
        event["unsigned"] = unsigned
    if event_id is None:
        event_id = format_event_id(sha256(signed).digest(), room_version)
    return Pdu(room_version, event_id, event)


def _check_identifier_sizes(event: dict[str, Any]) -> None:
    for key in ("type", "sender", "room_id", "state_key", "event_id"):
        value: str = event.get(key, "")
        # Four bytes a character at most, so that nearly every string is judged by its length alone.
        if len(value) * 4 > MAX_IDENTIFIER_BYTES and len(value.encode("utf-8", "replace")) > MAX_IDENTIFIER_BYTES:
            raise EventTooLarge(f"{key} is longer than {MAX_IDENTIFIER_BYTES} bytes")

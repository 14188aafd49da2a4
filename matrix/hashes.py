"""Content hashes, reference hashes and the event IDs made of them.

https://spec.matrix.org/v1.19/server-server-api/#signing-events
"""

from collections.abc import Mapping
from hashlib import sha256
from hmac import compare_digest
from typing import Any, Final

from matrix.canonical_json import encode_canonical_json
from matrix.redaction import redact_event
from matrix.room_versions import EventIdFormat, RoomVersion
from matrix.unpadded_base64 import decode_base64, encode_base64, encode_base64_url_safe

_NOT_IN_CONTENT_HASH: Final = frozenset({"unsigned", "signatures", "hashes"})


def content_hash(event_json: Mapping[str, Any]) -> str:
    """Return the content hash in unpadded Base64, the value of `hashes.sha256`.

    Raises JsonError if the event cannot be encoded.
    https://spec.matrix.org/v1.19/server-server-api/#calculating-the-content-hash-for-an-event
    """
    return encode_base64(_content_digest(event_json))


def content_hash_matches(event_json: Mapping[str, Any]) -> bool:
    """Tell whether the event bears its own content hash; if not, only its redacted form may be used.

    https://spec.matrix.org/v1.19/server-server-api/#validating-hashes-and-signatures-on-received-events
    """
    hashes = event_json.get("hashes")
    claimed = hashes.get("sha256") if isinstance(hashes, dict) else None
    if not isinstance(claimed, str):
        return False
    try:
        return compare_digest(decode_base64(claimed), _content_digest(event_json))
    except ValueError:
        return False


def _content_digest(event_json: Mapping[str, Any]) -> bytes:
    hashed = {key: value for key, value in event_json.items() if key not in _NOT_IN_CONTENT_HASH}
    return sha256(encode_canonical_json(hashed)).digest()


def reference_hash(event_json: Mapping[str, Any], room_version: RoomVersion) -> bytes:
    """Return the reference hash, 32 bytes. Raises JsonError if the event cannot be encoded.

    https://spec.matrix.org/v1.19/server-server-api/#calculating-the-reference-hash-for-an-event
    """
    redacted = redact_event(event_json, room_version)
    redacted.pop("signatures", None)
    redacted.pop("unsigned", None)
    return sha256(encode_canonical_json(redacted)).digest()


def compute_event_id(event_json: Mapping[str, Any], room_version: RoomVersion) -> str:
    """Return the ID of the event: its reference hash, or in room versions 1 and 2 its `event_id` property.

    Raises JsonError if the event cannot be encoded, and KeyError if a version 1 or 2 event has no `event_id`.
    """
    if room_version.event_id_format is EventIdFormat.OPAQUE:
        event_id: str = event_json["event_id"]
        return event_id
    return format_event_id(reference_hash(event_json, room_version), room_version)


def format_event_id(digest: bytes, room_version: RoomVersion) -> str:
    """Return the event ID that a reference hash makes in room versions 3 and later."""
    if room_version.event_id_format is EventIdFormat.HASH:
        return "$" + encode_base64(digest)
    return "$" + encode_base64_url_safe(digest)

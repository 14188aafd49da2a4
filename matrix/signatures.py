"""Signing keys, signed JSON and signed events.

https://spec.matrix.org/v1.19/appendices/#signing-json and
https://spec.matrix.org/v1.19/server-server-api/#signing-events
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from nacl.bindings import crypto_sign, crypto_sign_open, crypto_sign_seed_keypair
from nacl.exceptions import CryptoError

from matrix.canonical_json import encode_canonical_json
from matrix.hashes import content_hash
from matrix.redaction import redact_event
from matrix.room_versions import RoomVersion
from matrix.unpadded_base64 import decode_base64, encode_base64

_SEED_BYTES: Final = 32
_PUBLIC_KEY_BYTES: Final = 32
_SIGNATURE_BYTES: Final = 64
_ALGORITHM: Final = "ed25519"


class SigningKey:
    """An Ed25519 key of a server, with the version under which it is published."""

    __slots__ = ("_secret", "_seed", "key_id", "public_key", "version")

    def __init__(self, version: str, seed: bytes) -> None:
        """Raises ValueError unless the seed has 32 bytes and the version has the characters that key IDs may have."""
        if len(seed) != _SEED_BYTES:
            raise ValueError(f"the seed of a signing key has {_SEED_BYTES} bytes, not {len(seed)}")
        if not version or not version.isascii() or not version.replace("_", "a").isalnum():
            raise ValueError("the version of a signing key consists of letters, digits and underscores")
        self.version: Final = version
        self.key_id: Final = f"{_ALGORITHM}:{version}"
        self._seed: Final = seed
        public_key, secret = crypto_sign_seed_keypair(seed)
        self.public_key: Final[bytes] = public_key
        self._secret: Final[bytes] = secret

    @classmethod
    def from_seed(cls, version: str, seed: bytes) -> "SigningKey":
        """Make the key of a seed of 32 random bytes."""
        return cls(version, seed)

    @classmethod
    def from_line(cls, line: str) -> "SigningKey":
        """Read the usual file format, "ed25519 a_1 <seed in Base64>". Raises ValueError if the line is not that."""
        parts = line.split()
        if len(parts) != 3 or parts[0] != _ALGORITHM:
            raise ValueError('a signing key is written as "ed25519 <version> <seed in Base64>"')
        return cls(parts[1], decode_base64(parts[2]))

    def derive_key(self, purpose: str) -> bytes:
        """A secret key of 32 bytes for another purpose, from which nobody learns of this one, nor of other purposes."""
        return hashlib.blake2b(purpose.encode(), key=self._seed, digest_size=32).digest()

    def to_line(self) -> str:
        """Write the key in the format that `from_line` reads."""
        return f"{_ALGORITHM} {self.version} {encode_base64(self._seed)}"

    @property
    def public_key_base64(self) -> str:
        """The public key as published under `verify_keys`."""
        return encode_base64(self.public_key)

    def sign(self, message: bytes) -> str:
        """Return the signature of the bytes in unpadded Base64."""
        signed: bytes = crypto_sign(message, self._secret)
        return encode_base64(signed[:_SIGNATURE_BYTES])

    def __repr__(self) -> str:
        return f"SigningKey({self.key_id!r}, public_key={self.public_key_base64!r})"


@dataclass(frozen=True, slots=True)
class VerifyKey:
    """The public half of a server's Ed25519 key, `valid_until_ts` (ms since the epoch) being the last time it is good.

    For a key that the server no longer uses (`is_old`), that is when its use ended (`expired_ts`).
    https://spec.matrix.org/v1.19/server-server-api/#publishing-keys
    """

    key_id: str
    public_key: bytes
    valid_until_ts: int
    is_old: bool = False

    @classmethod
    def from_base64(cls, key_id: str, public_key: str, valid_until_ts: int, *, is_old: bool = False) -> "VerifyKey":
        """The key as it is published. Raises ValueError unless it is an Ed25519 key with an ID of the right form."""
        algorithm, _, version = key_id.partition(":")
        if algorithm != _ALGORITHM or not version.isascii() or not version.replace("_", "a").isalnum():
            raise ValueError(f"not the ID of an {_ALGORITHM} key: {key_id[:64]!r}")
        raw = decode_base64(public_key)
        if len(raw) != _PUBLIC_KEY_BYTES:
            raise ValueError(f"the public key of {key_id[:64]!r} has {len(raw)} bytes")
        return cls(key_id, raw, valid_until_ts, is_old)


def verify_signature(message: bytes, signature: str, public_key: bytes) -> bool:
    """Tell whether the signature, in Base64, is that of the bytes by the owner of the Ed25519 public key."""
    try:
        raw = decode_base64(signature)
    except ValueError:
        return False
    if len(raw) != _SIGNATURE_BYTES or len(public_key) != _PUBLIC_KEY_BYTES:
        return False
    try:
        crypto_sign_open(raw + message, public_key)
    except CryptoError:
        return False
    return True


def sign_json(obj: Mapping[str, Any], server_name: str, key: SigningKey) -> dict[str, Any]:
    """Return the object with the signature added to those that it has.

    Raises JsonError if it cannot be encoded. https://spec.matrix.org/v1.19/appendices/#signing-details
    """
    return _with_signature(obj, server_name, key.key_id, key.sign(encode_canonical_json(_signed_part(obj))))


def verify_json_signature(obj: Mapping[str, Any], server_name: str, key_id: str, public_key: bytes) -> bool:
    """Tell whether the object bears a valid signature of the server with the key.

    False for objects without one and for those that cannot be encoded.
    https://spec.matrix.org/v1.19/appendices/#checking-for-a-signature
    """
    signature = _get_signature(obj, server_name, key_id)
    if signature is None:
        return False
    try:
        message = encode_canonical_json(_signed_part(obj))
    except ValueError:
        return False
    return verify_signature(message, signature, public_key)


def signature_key_ids(obj: Mapping[str, Any], server_name: str) -> list[str]:
    """Return the IDs of the Ed25519 keys with which the server claims to have signed the object."""
    signatures = obj.get("signatures")
    by_key = signatures.get(server_name) if isinstance(signatures, dict) else None
    if not isinstance(by_key, dict):
        return []
    return [key_id for key_id in by_key if key_id.startswith(_ALGORITHM + ":")]


def sign_event(
    event_json: Mapping[str, Any], room_version: RoomVersion, server_name: str, key: SigningKey
) -> dict[str, Any]:
    """Return the event with a signature of its redacted form added; its content hash must be in it already."""
    message = encode_canonical_json(_signed_part(redact_event(event_json, room_version)))
    return _with_signature(event_json, server_name, key.key_id, key.sign(message))


def hash_and_sign_event(
    event_json: Mapping[str, Any], room_version: RoomVersion, server_name: str, key: SigningKey
) -> dict[str, Any]:
    """Return the event with its content hash and a signature added.

    https://spec.matrix.org/v1.19/server-server-api/#adding-hashes-and-signatures-to-outgoing-events
    """
    hashed = {**event_json, "hashes": {"sha256": content_hash(event_json)}}
    return sign_event(hashed, room_version, server_name, key)


def verify_event_signature(
    event_json: Mapping[str, Any], room_version: RoomVersion, server_name: str, key_id: str, public_key: bytes
) -> bool:
    """Tell whether the event, or its redacted form, bears a valid signature of the server with the key."""
    return verify_json_signature(redact_event(event_json, room_version), server_name, key_id, public_key)


def _signed_part(obj: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in obj.items() if key != "signatures" and key != "unsigned"}


def _get_signature(obj: Mapping[str, Any], server_name: str, key_id: str) -> str | None:
    signatures = obj.get("signatures")
    by_key = signatures.get(server_name) if isinstance(signatures, dict) else None
    signature = by_key.get(key_id) if isinstance(by_key, dict) else None
    return signature if isinstance(signature, str) else None


def _with_signature(obj: Mapping[str, Any], server_name: str, key_id: str, signature: str) -> dict[str, Any]:
    signatures = obj.get("signatures")
    others = signatures if isinstance(signatures, dict) else {}
    own = others.get(server_name)
    own_others = own if isinstance(own, dict) else {}
    return {**obj, "signatures": {**others, server_name: {**own_others, key_id: signature}}}

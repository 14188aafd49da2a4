"""The objects that carry public keys: of devices, one-time and fallback keys, cross-signing keys.

https://spec.matrix.org/v1.19/client-server-api/#key-algorithms. Servers check their form and whose they are; whether a
device's keys are well signed is for the clients that use them to judge.
"""

from collections.abc import Mapping
from typing import Any, Final

from matrix.canonical_json import contains_nul, encode_canonical_json
from matrix.signatures import verify_json_signature
from matrix.unpadded_base64 import decode_base64

MAX_KEY_BYTES: Final = 65_536
MAX_KEY_ID_BYTES: Final = 255
PUBLIC_KEY_BYTES: Final = 32
ED25519: Final = "ed25519"


class InvalidKey(ValueError):
    """The object cannot be stored as a key; the message can be shown to who sent it."""


def encode_key(key: object) -> bytes:
    """The form in which a key is stored: equal keys have equal bytes. Raises InvalidKey."""
    try:
        encoded = encode_canonical_json(key)
    except ValueError as error:
        raise InvalidKey(str(error)) from None
    if len(encoded) > MAX_KEY_BYTES:
        raise InvalidKey(f"A key must not have more than {MAX_KEY_BYTES} bytes")
    return encoded


def split_key_id(key_id: str) -> tuple[str, str]:
    """The algorithm and the name of `<algorithm>:<name>`. Raises InvalidKey."""
    algorithm, colon, name = key_id.partition(":")
    if not (algorithm and colon and name) or "\0" in key_id or len(key_id.encode()) > MAX_KEY_ID_BYTES:
        raise InvalidKey("A key ID has the form <algorithm>:<name>")
    return algorithm, name


def check_device_keys(keys: Mapping[str, Any], user_id: str, device_id: str) -> None:
    """Holds the identity keys of a device to their form and their owner. Raises InvalidKey.

    https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keysupload_request_devicekeys
    """
    if keys.get("user_id") != user_id or keys.get("device_id") != device_id:
        raise InvalidKey("user_id and device_id must be those of the device that uploads its keys")
    algorithms = keys.get("algorithms")
    if not isinstance(algorithms, list) or not all(isinstance(algorithm, str) for algorithm in algorithms):
        raise InvalidKey("algorithms must be an array of strings")
    if not _is_map_of_strings(keys.get("keys")):
        raise InvalidKey("keys must be an object of strings")
    check_signatures(keys)


def check_claimable_key(key: object) -> None:
    """Holds a one-time or fallback key to its form: a string, or an object with a key and signatures.

    Raises InvalidKey. https://spec.matrix.org/v1.19/client-server-api/#key-algorithms
    """
    if isinstance(key, str):
        return
    if not isinstance(key, dict) or not isinstance(key.get("key"), str):
        raise InvalidKey("A key must be a string, or an object with a key")
    check_signatures(key)


def check_signatures(signed: Mapping[str, Any]) -> None:
    """Raises InvalidKey unless `signatures` maps user IDs to maps from key IDs to signatures."""
    signatures = signed.get("signatures")
    if not isinstance(signatures, dict) or not all(_is_map_of_strings(by_key) for by_key in signatures.values()):
        raise InvalidKey("signatures must map user IDs to signatures by key ID")


def _is_map_of_strings(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(item, str) for item in value.values())


def public_key_of(key: Mapping[str, Any], user_id: str, usage: str) -> str:
    """The public key of a user's cross-signing key, in unpadded Base64. Raises InvalidKey.

    https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keysdevice_signingupload_request_crosssigningkey
    """
    if key.get("user_id") != user_id:
        raise InvalidKey("user_id must be your own")
    usages = key.get("usage")
    if not isinstance(usages, list) or usage not in usages:
        raise InvalidKey(f"usage must contain {usage}")
    keys = key.get("keys")
    if not isinstance(keys, dict) or not _is_map_of_strings(keys) or len(keys) != 1:
        raise InvalidKey("keys must have exactly one entry")
    key_id: str
    public_key: str
    [(key_id, public_key)] = keys.items()
    if key_id != f"{ED25519}:{public_key}":
        raise InvalidKey("A cross-signing key is named ed25519:<the key>")
    if decode_public_key(public_key) is None:
        raise InvalidKey("The public key is no Ed25519 key in unpadded Base64")
    if "signatures" in key:
        check_signatures(key)
    if contains_nul(key):
        raise InvalidKey("NUL characters have no place in a key")
    return public_key


def decode_public_key(text: object) -> bytes | None:
    """The bytes of an Ed25519 public key in Base64; None for what is none."""
    if not isinstance(text, str):
        return None
    try:
        raw = decode_base64(text)
    except ValueError:
        return None
    return raw if len(raw) == PUBLIC_KEY_BYTES else None


def is_signed_by(signed: Mapping[str, Any], signer: str, key_id: str, public_key: object) -> bool:
    """Tell whether an object bears a valid signature of a user by the key, which is in unpadded Base64."""
    raw = decode_public_key(public_key)
    return raw is not None and verify_json_signature(signed, signer, key_id, raw)


def without_signatures(key: Mapping[str, Any]) -> dict[str, Any]:
    """What is signed of a key."""
    return {name: value for name, value in key.items() if name not in ("signatures", "unsigned")}


def visible_key(
    key: dict[str, Any], owner: str, asker: str | None, more: Mapping[str, Mapping[str, str]]
) -> dict[str, Any]:
    """A key as `asker` (None: another server) may see it, with `more` signatures: signer -> key ID -> signature.

    Of signatures, everyone sees those by the key's owner, and the asker sees the asker's.
    https://spec.matrix.org/v1.19/client-server-api/#key-and-signature-security
    """
    signatures: dict[str, dict[str, str]] = {}
    for source in (key.get("signatures", {}), more):
        for signer, by_key in source.items():
            if signer in (owner, asker):
                signatures.setdefault(signer, {}).update(by_key)
    return {**key, "signatures": signatures} if signatures or "signatures" in key else key

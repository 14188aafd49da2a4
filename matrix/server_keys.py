"""What servers publish of their keys, https://spec.matrix.org/v1.19/server-server-api/#publishing-keys."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from matrix.canonical_json import MAX_INTEGER
from matrix.identifiers import is_server_name
from matrix.signatures import VerifyKey, verify_json_signature

MAX_KEYS: Final = 200
"""Most keys, old ones included, that this server takes in from another."""

MAX_VALIDITY_MS: Final = 7 * 24 * 3600 * 1000
"""How far ahead a key may be valid, whatever its server says."""


class ServerKeysError(ValueError):
    """Not what a server may publish; the message can be logged."""


@dataclass(frozen=True, slots=True)
class ServerKeys:
    """The keys of a server: those in use, and those of the past (`valid_until_ts` being when they expired)."""

    server_name: str
    valid_until_ts: int
    verify_keys: Mapping[str, VerifyKey]
    old_verify_keys: Mapping[str, VerifyKey]


def parse_server_keys(answer: object, server_name: str, *, fetched_ts: int) -> ServerKeys:
    """Read a server's answer about its keys, fetched at a time (ms since the epoch). Raises ServerKeysError.

    It has to name the server, and to bear a valid signature by one of the keys that are in use. Keys of other
    algorithms than Ed25519 are passed over.
    """
    if not isinstance(answer, dict):
        raise ServerKeysError("the keys are not an object")
    if answer.get("server_name") != server_name or not is_server_name(server_name):
        raise ServerKeysError("the keys are those of another server")
    valid_until_ts = min(_timestamp(answer.get("valid_until_ts")), fetched_ts + MAX_VALIDITY_MS)
    in_use = _objects(answer.get("verify_keys"))
    old = _objects(answer.get("old_verify_keys", {}))
    if len(in_use) + len(old) > MAX_KEYS:
        raise ServerKeysError(f"there are more than {MAX_KEYS} keys")
    verify_keys = {key_id: _key(key_id, entry, valid_until_ts) for key_id, entry in in_use.items() if _is_known(key_id)}
    old_verify_keys = {
        key_id: _key(key_id, entry, min(_timestamp(entry.get("expired_ts")), fetched_ts), is_old=True)
        for key_id, entry in old.items()
        if _is_known(key_id) and key_id not in verify_keys
    }
    if not any(verify_json_signature(answer, server_name, key.key_id, key.public_key) for key in verify_keys.values()):
        raise ServerKeysError("the keys are not signed by one of them")
    return ServerKeys(server_name, valid_until_ts, verify_keys, old_verify_keys)


def _is_known(key_id: str) -> bool:
    return key_id.startswith("ed25519:")


def _objects(value: Any) -> dict[str, dict[str, Any]]:
    if not isinstance(value, dict) or not all(isinstance(entry, dict) for entry in value.values()):
        raise ServerKeysError("keys are not an object of objects")
    return value


def _key(key_id: str, entry: dict[str, Any], valid_until_ts: int, *, is_old: bool = False) -> VerifyKey:
    encoded = entry.get("key")
    try:
        text = encoded if isinstance(encoded, str) else ""
        return VerifyKey.from_base64(key_id, text, valid_until_ts, is_old=is_old)
    except ValueError as error:
        raise ServerKeysError(str(error)) from None


def _timestamp(value: Any) -> int:
    if type(value) is not int or not 0 <= value <= MAX_INTEGER:
        raise ServerKeysError("a time is not a whole number of milliseconds")
    return value

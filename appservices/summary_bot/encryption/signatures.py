"""Signed JSON. Pure. https://spec.matrix.org/v1.19/appendices/#signing-json"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import vodozemac
from canonicaljson import encode_canonical_json

from appservices.summary_bot.events import mapping, text

UNSIGNED = ("signatures", "unsigned")


def signed_part(value: Mapping[str, Any]) -> bytes:
    """The bytes that are signed of an object: https://spec.matrix.org/v1.19/appendices/#canonical-json"""
    return encode_canonical_json({name: part for name, part in value.items() if name not in UNSIGNED})


def sign(value: Mapping[str, Any], user_id: str, key_id: str, account: vodozemac.Account) -> dict[str, Any]:
    """The object with one more signature."""
    signature = account.sign(signed_part(value)).to_base64()
    signatures = {user: dict(mapping(of_user)) for user, of_user in mapping(value.get("signatures")).items()}
    signatures.setdefault(user_id, {})[key_id] = signature
    return {**value, "signatures": signatures}


def is_signed(value: Mapping[str, Any], user_id: str, key_id: str, public_key: str) -> bool:
    """Whether the object has a signature of this key that is right."""
    signature = text(mapping(mapping(value.get("signatures")).get(user_id)).get(key_id))
    if signature is None:
        return False
    try:
        key = vodozemac.Ed25519PublicKey.from_base64(public_key)
        key.verify_signature(signed_part(value), vodozemac.Ed25519Signature.from_base64(signature))
    except (ValueError, TypeError, RecursionError):
        return False
    return True

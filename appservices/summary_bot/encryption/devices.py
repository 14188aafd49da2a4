"""Devices, as their owners describe and sign them. Pure.

https://spec.matrix.org/v1.19/client-server-api/#device-keys
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from appservices.summary_bot.encryption.signatures import is_signed
from appservices.summary_bot.events import mapping

OLM = "m.olm.v1.curve25519-aes-sha2"
MEGOLM = "m.megolm.v1.aes-sha2"
MAX_DEVICES_PER_USER = 200
MAX_DEVICE_ID_CHARACTERS = 255

_KEY = re.compile(r"[A-Za-z0-9+/]{43}")
"""https://spec.matrix.org/v1.19/appendices/#unpadded-base64, 32 bytes of it."""


@dataclass(frozen=True, slots=True)
class Device:
    """A device: `identity_key` (Curve25519) is what it encrypts with, `signing_key` (Ed25519) what it signs with."""

    user_id: str
    device_id: str
    identity_key: str
    signing_key: str
    is_trusted: bool = field(default=True, compare=False)
    """Whether its owner has signed it, or has nothing to sign it with."""


def read_key(value: object) -> str | None:
    """The value if it is a public key; a session is named after one, too."""
    return value if isinstance(value, str) and _KEY.fullmatch(value) else None


def read_device(user_id: str, device_id: str, given: object) -> Device | None:
    """A device out of an answer of /keys/query; None if it is not what it says, or not signed by itself."""
    keys = mapping(given)
    public = mapping(keys.get("keys"))
    identity_key, signing_key = (
        read_key(public.get(f"curve25519:{device_id}")),
        read_key(public.get(f"ed25519:{device_id}")),
    )
    if identity_key is None or signing_key is None:
        return None
    if not device_id.isprintable() or len(device_id) > MAX_DEVICE_ID_CHARACTERS:
        return None
    if keys.get("user_id") != user_id or keys.get("device_id") != device_id:
        return None
    if not is_signed(keys, user_id, f"ed25519:{device_id}", signing_key):
        return None
    return Device(user_id, device_id, identity_key, signing_key)


def read_identity(user_id: str, answer: Mapping[str, Any]) -> str | None:
    """The public key by which a user signs their devices, out of an answer of /keys/query; None if there is none.

    https://spec.matrix.org/v1.19/client-server-api/#cross-signing
    """
    master = mapping(mapping(answer.get("master_keys")).get(user_id))
    signer = mapping(mapping(answer.get("self_signing_keys")).get(user_id))
    master_key, signer_key = _public_key(user_id, "master", master), _public_key(user_id, "self_signing", signer)
    if master_key is None or signer_key is None:
        return None
    return signer_key if is_signed(signer, user_id, f"ed25519:{master_key}", master_key) else None


def _public_key(user_id: str, usage: str, given: Mapping[str, Any]) -> str | None:
    usages, keys = given.get("usage"), mapping(given.get("keys"))
    if given.get("user_id") != user_id or not isinstance(usages, list) or usage not in usages or len(keys) != 1:
        return None
    return read_key(next(iter(keys.values())))


def read_devices(user_id: str, given: object, signer_key: str | None = None) -> dict[str, Device]:
    """The devices of one user, by ID: those that are right, at most MAX_DEVICES_PER_USER. Trusted are those that
    `signer_key` has signed.

    A key stands for one device only: of two that claim the same, the second is left out.
    """
    devices: dict[str, Device] = {}
    seen: set[str] = set()
    for device_id, keys in sorted(mapping(given).items())[:MAX_DEVICES_PER_USER]:
        device = read_device(user_id, device_id, keys)
        if device is not None and device.identity_key not in seen:
            seen.add(device.identity_key)
            signer = f"ed25519:{signer_key}"
            is_trusted = signer_key is not None and is_signed(mapping(keys), user_id, signer, signer_key)
            devices[device_id] = replace(device, is_trusted=is_trusted)
    return devices


def read_one_time_key(device: Device, given: Mapping[str, Any]) -> str | None:
    """The one-time key that was claimed of a device; None if it is none, or not signed by it.

    https://spec.matrix.org/v1.19/client-server-api/#key-objects
    """
    for key_id, key in given.items():
        if key_id.startswith("signed_curve25519:") and isinstance(key, dict):
            public = read_key(key.get("key"))
            if public is not None and is_signed(key, device.user_id, f"ed25519:{device.device_id}", device.signing_key):
                return public
    return None

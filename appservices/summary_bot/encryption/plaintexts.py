"""What is inside of encrypted events, and whether it is what it has to be. Pure."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from appservices.summary_bot.encryption.devices import MEGOLM, Device, read_device, read_key
from appservices.summary_bot.events import RawEvent, mapping, matrix_id, text

MAX_CIPHERTEXT_CHARACTERS = 90_000
"""More than an event can carry."""

MAX_SESSION_KEY_CHARACTERS = 1000


class Unreadable(Exception):
    """Why something cannot be read, in a few words without anything of its contents.

    `key_is_missing`: the key may still come. `is_broken`: the session with the sender's device has to be replaced.
    """

    def __init__(self, reason: str, *, key_is_missing: bool = False, is_broken: bool = False) -> None:
        super().__init__(reason)
        self.key_is_missing = key_is_missing
        self.is_broken = is_broken


@dataclass(frozen=True, slots=True)
class RoomKey:
    """The key of a group session, as a device has sent it."""

    room_id: str
    session_id: str
    session_key: str


@dataclass(frozen=True, slots=True)
class Sealed:
    """An encrypted event of a room, before its key is looked for."""

    event: RawEvent
    session_id: str
    ciphertext: str


def decode(value: str) -> bytes:
    """https://spec.matrix.org/v1.19/appendices/#unpadded-base64. Raises Unreadable."""
    try:
        return base64.b64decode(value + "=" * (-len(value) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise Unreadable("no base64") from None


def encode(value: bytes) -> str:
    """Unpadded base64."""
    return base64.b64encode(value).rstrip(b"=").decode()


def read_plaintext(data: bytes) -> Mapping[str, Any]:
    """The JSON object in decrypted bytes. Raises Unreadable."""
    try:
        value = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Unreadable("no JSON inside") from None
    if not isinstance(value, dict):
        raise Unreadable("no object inside")
    return value


def check_olm_plaintext(plain: Mapping[str, Any], *, sender: Device, own: Device) -> None:
    """Checks what an Olm message says about itself, against the device that its session is with. Raises Unreadable.

    https://spec.matrix.org/v1.19/client-server-api/#validation-of-incoming-decrypted-events, in its steps.
    """
    # 1. The sender.
    if plain.get("sender") != sender.user_id:
        raise Unreadable("another sender inside")
    # 2. The signing key of the sender's device.
    if mapping(plain.get("keys")).get("ed25519") != sender.signing_key:
        raise Unreadable("another device's key inside")
    # 3. The recipient.
    if plain.get("recipient") != own.user_id:
        raise Unreadable("another recipient inside")
    # 4. The signing key of the recipient's device.
    if mapping(plain.get("recipient_keys")).get("ed25519") != own.signing_key:
        raise Unreadable("another recipient's key inside")
    # 5. The sender's device, where it describes itself.
    if "sender_device_keys" in plain:
        described = mapping(plain["sender_device_keys"])
        if read_device(sender.user_id, text(described.get("device_id")) or "", described) != sender:
            raise Unreadable("another device inside")


def olm_plaintext(
    own: Device, own_keys: Mapping[str, Any], to: Device, event_type: str, content: Mapping[str, Any]
) -> bytes:
    """What is encrypted for a device."""
    return msgspec.json.encode(
        {
            "type": event_type,
            "content": content,
            "sender": own.user_id,
            "recipient": to.user_id,
            "recipient_keys": {"ed25519": to.signing_key},
            "keys": {"ed25519": own.signing_key},
            "sender_device_keys": own_keys,
        }
    )


def read_room_key(content: Mapping[str, Any]) -> RoomKey:
    """https://spec.matrix.org/v1.19/client-server-api/#mroom_key. Raises Unreadable."""
    room_id, session_id = matrix_id(content.get("room_id"), "!"), read_key(content.get("session_id"))
    session_key = text(content.get("session_key"))
    if content.get("algorithm") != MEGOLM or room_id is None or session_id is None or session_key is None:
        raise Unreadable("no key of a room")
    if len(session_key) > MAX_SESSION_KEY_CHARACTERS:
        raise Unreadable("too long")
    return RoomKey(room_id, session_id, session_key)


def is_sealed(event: RawEvent) -> bool:
    """Whether an event is encrypted, and has not been redacted."""
    return event["type"] == "m.room.encrypted" and "ciphertext" in event["content"] and "state_key" not in event


def read_sealed(event: RawEvent) -> Sealed:
    """The parts of an encrypted event. Raises Unreadable.

    `sender_key` and `device_id` are not looked at: https://spec.matrix.org/v1.19/client-server-api/#mmegolmv1aes-sha2
    """
    content = event["content"]
    session_id, ciphertext = read_key(content.get("session_id")), text(content.get("ciphertext"))
    if content.get("algorithm") != MEGOLM or session_id is None or ciphertext is None:
        raise Unreadable("an algorithm that is not known")
    if len(ciphertext) > MAX_CIPHERTEXT_CHARACTERS:
        raise Unreadable("too long")
    return Sealed(event, session_id, ciphertext)


def unsealed(event: RawEvent, room_id: str, data: bytes) -> RawEvent:
    """The event with what was inside in the place of the ciphertext. Raises Unreadable.

    What it relates to stands outside, and is believed there alone:
    https://spec.matrix.org/v1.19/client-server-api/#forming-relationships-between-events
    """
    plain = read_plaintext(data)
    if plain.get("room_id") != room_id:
        raise Unreadable("another room inside")
    kind, content = text(plain.get("type")), plain.get("content")
    if kind is None or not isinstance(content, dict):
        raise Unreadable("no event inside")
    relation = event["content"].get("m.relates_to")
    inner = {name: value for name, value in content.items() if name != "m.relates_to"}
    if relation is not None:
        inner["m.relates_to"] = relation
    return {**event, "type": kind, "content": inner}


def megolm_plaintext(room_id: str, event_type: str, content: Mapping[str, Any]) -> bytes:
    """What is encrypted for a room."""
    inner = {name: value for name, value in content.items() if name != "m.relates_to"}
    return msgspec.json.encode({"room_id": room_id, "type": event_type, "content": inner})

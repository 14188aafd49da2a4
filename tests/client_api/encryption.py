"""What the tests of encryption share: devices with real keys, and what a /sync says of them."""

from __future__ import annotations

import itertools
import secrets
from typing import Any

from matrix.signatures import SigningKey, sign_json
from matrix.unpadded_base64 import encode_base64
from tests.client import Homeserver, User

_numbers = itertools.count(1)


def password_auth(user: User) -> dict[str, Any]:
    """What proves who a user is."""
    localpart = user.user_id[1:].partition(":")[0]
    return {
        "type": "m.login.password",
        "identifier": {"type": "m.id.user", "user": localpart},
        "password": f"password of {localpart}",
    }


async def log_in(user: User, device_id: str) -> User:
    """The user on another device."""
    body = {**password_auth(user), "device_id": device_id}
    answer = (await user.homeserver.request("POST", "/_matrix/client/v3/login", body)).ok()
    return User(user.homeserver, user.user_id, answer["access_token"], device_id)


def new_signing_key(version: str) -> SigningKey:
    """An Ed25519 key."""
    return SigningKey.from_seed(version, secrets.token_bytes(32))


class Device:
    """A user's device, with the Ed25519 key that it signs with."""

    def __init__(self, user: User) -> None:
        self.user = user
        self.signing_key = new_signing_key("device")
        self.keys = self.sign(
            {
                "user_id": user.user_id,
                "device_id": user.device_id,
                "algorithms": ["m.olm.v1.curve25519-aes-sha2", "m.megolm.v1.aes-sha2"],
                "keys": {
                    f"curve25519:{user.device_id}": encode_base64(secrets.token_bytes(32)),
                    f"ed25519:{user.device_id}": self.signing_key.public_key_base64,
                },
            }
        )

    @property
    def key_id(self) -> str:
        return f"ed25519:{self.user.device_id}"

    def sign(self, value: dict[str, Any]) -> dict[str, Any]:
        """The object with the device's signature."""
        return sign_as(self.user.user_id, self.key_id, self.signing_key, value)

    def one_time_keys(self, count: int, *, algorithm: str = "signed_curve25519") -> dict[str, Any]:
        """New one-time keys by key ID."""
        return {
            f"{algorithm}:{next(_numbers):06d}": self.sign({"key": encode_base64(secrets.token_bytes(32))})
            for _ in range(count)
        }

    def fallback_key(self, *, algorithm: str = "signed_curve25519") -> dict[str, Any]:
        """A new fallback key by key ID."""
        key = {"key": encode_base64(secrets.token_bytes(32)), "fallback": True}
        return {f"{algorithm}:F{next(_numbers):06d}": self.sign(key)}

    async def upload(self, **keys: Any) -> dict[str, int]:
        """Uploads keys; how many one-time keys there are then."""
        answer = (await self.user.request("POST", "keys/upload", keys)).ok()
        counts: dict[str, int] = answer["one_time_key_counts"]
        return counts


def sign_as(user_id: str, key_id: str, key: SigningKey, value: dict[str, Any]) -> dict[str, Any]:
    """The object with a signature of a user by a key that goes by any ID."""
    signature = sign_json({**value, "signatures": {}}, user_id, key)["signatures"][user_id][key.key_id]
    signatures = {signer: dict(by_key) for signer, by_key in value.get("signatures", {}).items()}
    signatures.setdefault(user_id, {})[key_id] = signature
    return {**value, "signatures": signatures}


async def new_device(homeserver: Homeserver, *, one_time_keys: int = 0) -> Device:
    """A new user's device, its keys uploaded."""
    device = Device(await homeserver.register())
    await device.upload(device_keys=device.keys, one_time_keys=device.one_time_keys(one_time_keys))
    return device


async def claim(user: User, *devices: User, algorithm: str = "signed_curve25519") -> dict[str, dict[str, Any]]:
    """Claims a key of each device: device ID -> what was given."""
    wanted: dict[str, dict[str, str]] = {}
    for device in devices:
        wanted.setdefault(device.user_id, {})[device.device_id] = algorithm
    answer = (await user.request("POST", "keys/claim", {"one_time_keys": wanted})).ok()
    assert answer["failures"] == {}
    return {device_id: keys for by_device in answer["one_time_keys"].values() for device_id, keys in by_device.items()}


async def query(user: User, *users: User) -> dict[str, Any]:
    """Looks up the keys of users."""
    body = {"device_keys": {other.user_id: [] for other in users}}
    answer: dict[str, Any] = (await user.request("POST", "keys/query", body)).ok()
    assert answer["failures"] == {}
    return answer


class Follower:
    """A device that syncs on and on, and takes note of what it is told."""

    def __init__(self, user: User) -> None:
        self.user = user
        self.token: str | None = None
        self.changed: list[str] = []
        self.left: list[str] = []
        self.messages: list[dict[str, Any]] = []
        self.counts: dict[str, int] = {}
        self.unused_fallback: list[str] = []

    async def sync(self, *, timeout: int = 0) -> dict[str, Any]:
        """One sync; `changed` and `left` are those of this sync, messages are gathered."""
        answer = await self.user.sync(self.token, timeout=timeout)
        self.token = answer["next_batch"]
        lists = answer.get("device_lists", {"changed": [], "left": []})
        self.changed, self.left = lists["changed"], lists["left"]
        self.messages += answer["to_device"]["events"]
        self.counts = answer["device_one_time_keys_count"]
        self.unused_fallback = answer["device_unused_fallback_key_types"]
        return answer


async def follow(user: User) -> Follower:
    """A device that has made its first sync."""
    follower = Follower(user)
    await follower.sync()
    return follower

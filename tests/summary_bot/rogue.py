"""A device that says whatever a test wants it to, in the cryptography of vodozemac."""

from __future__ import annotations

import itertools
import json
from typing import Any

import vodozemac

from appservices.summary_bot.encryption.devices import MEGOLM, OLM
from appservices.summary_bot.encryption.plaintexts import encode
from appservices.summary_bot.encryption.signatures import sign
from tests.client import User

_numbers = itertools.count(1)


class Rogue:
    """A user's device, and its session with one of the bot's."""

    def __init__(self, user: User) -> None:
        self.user = user
        self.account = vodozemac.Account()
        self.identity_key = self.account.curve25519_key.to_base64()
        self.signing_key = self.account.ed25519_key.to_base64()
        self._session: vodozemac.Session | None = None
        self._bot: dict[str, Any] = {}
        self._keys: dict[str, dict[str, Any]] = {}

    async def meet(self, bot: str) -> None:
        """Publishes the device, and begins a session with the bot's."""
        device_id, user_id = self.user.device_id, self.user.user_id
        names = {f"curve25519:{device_id}": self.identity_key, f"ed25519:{device_id}": self.signing_key}
        keys = {"user_id": user_id, "device_id": device_id, "algorithms": [OLM, MEGOLM], "keys": names}
        self.account.generate_one_time_keys(1)
        ((key_id, key),) = self.account.one_time_keys.items()
        one_time = {f"signed_curve25519:{key_id}": self._sign({"key": key.to_base64()})}
        body = {"device_keys": self._sign(keys), "one_time_keys": one_time}
        (await self.user.request("POST", "keys/upload", body)).ok()
        answer = (await self.user.request("POST", "keys/query", {"device_keys": {bot: []}})).ok()
        ((self.bot_device, self._bot),) = answer["device_keys"][bot].items()
        wanted = {bot: {self.bot_device: "signed_curve25519"}}
        claimed = (await self.user.request("POST", "keys/claim", {"one_time_keys": wanted})).ok()
        (one_time_key,) = claimed["one_time_keys"][bot][self.bot_device].values()
        self._session = self.account.create_outbound_session(
            vodozemac.Curve25519PublicKey.from_base64(self.bot_key("curve25519")),
            vodozemac.Curve25519PublicKey.from_base64(one_time_key["key"]),
        )

    def bot_key(self, kind: str) -> str:
        """A key of the bot's device."""
        return str(self._bot["keys"][f"{kind}:{self.bot_device}"])

    def _sign(self, value: dict[str, Any]) -> dict[str, Any]:
        return sign(value, self.user.user_id, f"ed25519:{self.user.device_id}", self.account)

    async def send(self, event_type: str, content: dict[str, Any], **lies: Any) -> None:
        """Sends the bot's device a message that says of itself what it should, but for the lies."""
        assert self._session is not None
        truth = {
            "type": event_type,
            "content": content,
            "sender": self.user.user_id,
            "recipient": self._bot["user_id"],
            "recipient_keys": {"ed25519": self.bot_key("ed25519")},
            "keys": {"ed25519": self.signing_key},
        }
        kind, ciphertext = self._session.encrypt(json.dumps(truth | lies).encode()).to_parts()
        await self.send_parcel({"type": kind, "body": encode(ciphertext)})

    async def send_parcel(self, parcel: dict[str, Any]) -> None:
        """Sends the bot's device what looks like an Olm message."""
        content = {"algorithm": OLM, "sender_key": self.identity_key}
        content["ciphertext"] = {self.bot_key("curve25519"): parcel}
        messages = {self._bot["user_id"]: {self.bot_device: content}}
        path = f"sendToDevice/m.room.encrypted/rogue{next(_numbers)}"
        (await self.user.request("PUT", path, {"messages": messages})).ok()

    async def send_key(self, room_id: str, kind: str = "m.room_key", **lies: Any) -> vodozemac.GroupSession:
        """Sends the key of a new session."""
        session = self.new_session(room_id)
        await self.send(kind, self.key_of(session), **lies)
        return session

    def new_session(self, room_id: str) -> vodozemac.GroupSession:
        """A session whose key is remembered as it is now."""
        session = vodozemac.GroupSession()
        key = {"algorithm": MEGOLM, "room_id": room_id, "session_id": session.session_id}
        self._keys[session.session_id] = key | {"session_key": session.session_key.to_base64()}
        return session

    def key_of(self, session: vodozemac.GroupSession) -> dict[str, Any]:
        """The content of `m.room_key`."""
        return self._keys[session.session_id]

    async def sign_nothing(self) -> None:
        """Publishes cross-signing keys, and signs no device with them."""
        master, signer = vodozemac.Account(), vodozemac.Account()
        keys = {}
        for usage, account in (("master", master), ("self_signing", signer)):
            public = account.ed25519_key.to_base64()
            body = {"user_id": self.user.user_id, "usage": [usage], "keys": {f"ed25519:{public}": public}}
            by = f"ed25519:{master.ed25519_key.to_base64()}"
            keys[f"{usage}_key"] = sign(body, self.user.user_id, by, master)
        (await self.user.request("POST", "keys/device_signing/upload", keys)).ok()

    def event(self, session: vodozemac.GroupSession, room_id: str, body: str) -> dict[str, Any]:
        """An event as the homeserver would deliver it."""
        inner = {"room_id": room_id, "type": "m.room.message", "content": {"msgtype": "m.text", "body": body}}
        ciphertext = session.encrypt(json.dumps(inner).encode()).to_base64()
        return {
            "event_id": f"$rogue{next(_numbers)}",
            "sender": self.user.user_id,
            "type": "m.room.encrypted",
            "origin_server_ts": next(_numbers),
            "content": {"algorithm": MEGOLM, "session_id": session.session_id, "ciphertext": ciphertext},
        }

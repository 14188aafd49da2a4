"""The bot's own device: made without a login, signed by the bot itself, and never short of one-time keys.

1. A device of its own, with keys that only it has: https://spec.matrix.org/v1.19/application-service-api/#device-management
2. Its keys are published, with one-time keys and a fallback key.
3. A master key and a self-signing key sign it, so that clients can tell it from a device that somebody slips in. These
   two only ever sign: each is the signing key of an account that does nothing else, and is kept as an account is.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

import vodozemac

from appservices.summary_bot.encryption.devices import MEGOLM, OLM, Device
from appservices.summary_bot.encryption.signatures import is_signed, sign
from appservices.summary_bot.encryption.vault import Vault
from appservices.summary_bot.events import mapping
from appservices.summary_bot.matrix.client import MatrixFailure
from appservices.summary_bot.matrix.keys import KeysClient
from appservices.summary_bot.storage.database import StorageError
from appservices.summary_bot.storage.devices import DeviceRepository, OwnRow

KEY_KIND = "signed_curve25519"

log = logging.getLogger(__name__)


class OwnDevice:
    """`lock` is held by whoever changes the account or a session with a device, from reading it to storing it."""

    def __init__(
        self, user_id: str, display_name: str, keys: KeysClient, repository: DeviceRepository, vault: Vault
    ) -> None:
        self._user_id = user_id
        self._display_name = display_name
        self._keys = keys
        self._repository = repository
        self._vault = vault
        self._left: int | None = None
        self._has_fallback = False
        self._has_enough = False
        self.lock = asyncio.Lock()
        self.device: Device | None = None
        """What the others see of it; None before `open`."""
        self.keys: dict[str, Any] = {}
        """The same, signed, as it is published."""

    async def open(self) -> None:
        """Loads the device, or makes one up. Raises StorageError where its key has been changed."""
        row = await self._repository.load_own()
        if row is None:
            account, master, self_signing = vodozemac.Account(), vodozemac.Account(), vodozemac.Account()
            pickles = [self._vault.seal(each) for each in (account, master, self_signing)]
            await self._repository.persist_own(OwnRow(f"SUMMARY{secrets.token_hex(5).upper()}", *pickles))
            row = await self._repository.load_own()
        assert row is not None
        try:
            account = self._vault.open_account(row.account_pickle)
        except vodozemac.PickleException:
            raise StorageError(
                "encryption.key is not the key that the bot's device is kept under: bring back the right one"
            ) from None
        self.device = Device(
            self._user_id, row.device_id, account.curve25519_key.to_base64(), account.ed25519_key.to_base64()
        )
        self.keys = sign(_device_keys(self.device), self._user_id, f"ed25519:{row.device_id}", account)

    async def publish(self) -> None:
        """Has the homeserver know the device, its keys and its signatures. Raises MatrixFailure."""
        assert self.device is not None
        await self._keys.put_device(self.device.device_id, self._display_name)
        answer = await self._keys.query_keys([self._user_id])
        published = mapping(mapping(mapping(answer.get("device_keys")).get(self._user_id)).get(self.device.device_id))
        self._has_fallback = mapping(published.get("keys")) == self.keys["keys"]
        if not self._has_fallback:
            await self._keys.upload_keys(self.device.device_id, {"device_keys": self.keys})
        others = mapping(mapping(answer.get("device_keys")).get(self._user_id)).keys() - {self.device.device_id}
        if others:  # whose keys are lost: nobody is to send them anything
            await self._keys.delete_devices(sorted(others))
        counts = await self._keys.upload_keys(self.device.device_id, {})
        self.note_counts(counts, None)
        await self.replenish()
        try:
            await self._cross_sign(answer, published)
        except MatrixFailure as failure:
            if failure.is_temporary:
                raise
            log.warning("the bot's device is not signed: the homeserver refuses its keys: %s", failure)

    # One-time keys ----------------------------------------------------------------------------------------------------

    def note_counts(self, one_time: Mapping[str, Any], fallback: Sequence[Any] | None) -> None:
        """Takes in how many keys are left, and which fallback keys have not been used."""
        count = one_time.get(KEY_KIND, 0)
        self._left = count if type(count) is int else 0
        self._has_enough = False
        if fallback is not None:
            self._has_fallback = KEY_KIND in fallback

    async def replenish(self) -> None:
        """Publishes as many one-time keys as are missing, and a fallback key where the last one was used.

        New keys are stored before they are published: what was published and forgotten could never be read.
        https://spec.matrix.org/v1.19/client-server-api/#uploading-keys
        """
        assert self.device is not None
        if self._has_enough:
            return
        async with self.lock:
            account = await self.load_account()
            wanted = account.max_number_of_one_time_keys // 2
            missing = max(0, wanted - self._left) if self._left is not None else 0
            missing = max(0, missing - len(account.one_time_keys))
            waiting = bool(account.one_time_keys or fallback_keys(account))
            if not missing and self._has_fallback and not waiting:
                self._has_enough = True
                return
            if missing:
                account.generate_one_time_keys(missing)
            if not self._has_fallback and not fallback_keys(account):
                generate_fallback_key(account)
            await self.persist_account(account)
            counts = await self._keys.upload_keys(
                self.device.device_id,
                {
                    "one_time_keys": self._signed(account, account.one_time_keys, {}),
                    "fallback_keys": self._signed(account, fallback_keys(account), {"fallback": True}),
                },
            )
            account.mark_keys_as_published()
            await self.persist_account(account)
            self.note_counts(counts, [KEY_KIND])
            self._has_enough = True

    def _signed(
        self, account: vodozemac.Account, keys: Mapping[str, vodozemac.Curve25519PublicKey], more: Mapping[str, Any]
    ) -> dict[str, Any]:
        assert self.device is not None
        signer = f"ed25519:{self.device.device_id}"
        return {
            f"{KEY_KIND}:{key_id}": sign({"key": key.to_base64(), **more}, self._user_id, signer, account)
            for key_id, key in keys.items()
        }

    async def load_account(self) -> vodozemac.Account:
        """The account, for whoever holds the lock."""
        row = await self._repository.load_own()
        assert row is not None, "OwnDevice.open() comes first"
        return self._vault.open_account(row.account_pickle)

    async def persist_account(self, account: vodozemac.Account) -> None:
        """Stores the account, for whoever holds the lock."""
        await self._repository.set_account(self._vault.seal(account))

    # Cross-signing ----------------------------------------------------------------------------------------------------

    async def _cross_sign(self, answer: Mapping[str, Any], published: Mapping[str, Any]) -> None:
        """https://spec.matrix.org/v1.19/client-server-api/#cross-signing: what is there already is left as it is."""
        assert self.device is not None
        row = await self._repository.load_own()
        assert row is not None
        master = self._vault.open_account(row.master_pickle)
        self_signing = self._vault.open_account(row.self_signing_pickle)
        master_key, self_signing_key = master.ed25519_key.to_base64(), self_signing.ed25519_key.to_base64()
        known = mapping(mapping(mapping(answer.get("master_keys")).get(self._user_id)).get("keys"))
        known_signer = mapping(mapping(mapping(answer.get("self_signing_keys")).get(self._user_id)).get("keys"))
        is_there = master_key in known.values() and self_signing_key in known_signer.values()
        if not is_there:
            await self._keys.upload_cross_signing(
                sign(_signing_key(self._user_id, "master", master_key), self._user_id, f"ed25519:{master_key}", master),
                sign(
                    _signing_key(self._user_id, "self_signing", self_signing_key),
                    self._user_id,
                    f"ed25519:{master_key}",
                    master,
                ),
            )
        signer = f"ed25519:{self_signing_key}"
        if not is_there or not is_signed(published, self._user_id, signer, self_signing_key):
            signed = sign(_device_keys(self.device), self._user_id, signer, self_signing)
            await self._keys.upload_signatures(self._user_id, {self.device.device_id: signed})


def fallback_keys(account: vodozemac.Account) -> dict[str, vodozemac.Curve25519PublicKey]:
    """The fallback key that has not been published yet, by its ID. vodozemac's type stubs lack these two."""
    return dict(account.fallback_key)  # type: ignore[attr-defined]


def generate_fallback_key(account: vodozemac.Account) -> None:
    """Makes a fallback key; the one before it is good for a while yet."""
    account.generate_fallback_key()  # type: ignore[attr-defined]


def _device_keys(device: Device) -> dict[str, Any]:
    return {
        "user_id": device.user_id,
        "device_id": device.device_id,
        "algorithms": [OLM, MEGOLM],
        "keys": {
            f"curve25519:{device.device_id}": device.identity_key,
            f"ed25519:{device.device_id}": device.signing_key,
        },
    }


def _signing_key(user_id: str, usage: str, public_key: str) -> dict[str, Any]:
    return {"user_id": user_id, "usage": [usage], "keys": {f"ed25519:{public_key}": public_key}}

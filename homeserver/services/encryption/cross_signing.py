"""Cross-signing: users' own keys, with which they sign their devices and each other.

https://spec.matrix.org/v1.19/client-server-api/#cross-signing
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import orjson

from homeserver.services.encryption.device_keys import DeviceKeys
from homeserver.services.encryption.device_lists import DeviceLists
from homeserver.services.errors import Forbidden, InvalidParam, MatrixError, MissingParam, NotFound
from matrix.key_objects import (
    ED25519,
    InvalidKey,
    check_signatures,
    encode_key,
    is_signed_by,
    public_key_of,
    without_signatures,
)
from storage.cross_signing import (
    MASTER,
    SELF_SIGNING,
    USER_SIGNING,
    CrossSigningKeyRow,
    CrossSigningRepository,
    KeyIsADevice,
)
from storage.device_keys import DeviceKeyRepository
from storage.device_lists import SignatureRow

MAX_SIGNED_KEYS = 1_000
"""Most keys that one request brings signatures of."""

SignedKeys = Mapping[str, Mapping[str, dict[str, Any]]]
"""User ID -> device ID or public key -> the key with its signatures."""


class InvalidSignature(MatrixError):
    """400 M_INVALID_SIGNATURE."""

    def __init__(self, message: str) -> None:
        super().__init__(400, "M_INVALID_SIGNATURE", message)


class NewKeys(NamedTuple):
    """Keys to be stored: those that the user does not have already, and whether the user has to prove who they are."""

    rows: list[CrossSigningKeyRow]
    needs_auth: bool


class Signable(NamedTuple):
    """A key that the user may sign, as it is stored, and with what: key ID -> public key."""

    key: dict[str, Any]
    signing_keys: dict[str, str]


class CrossSigning:
    """Stores users' keys, and signatures of keys."""

    def __init__(
        self,
        repository: CrossSigningRepository,
        device_key_rows: DeviceKeyRepository,
        device_keys: DeviceKeys,
        device_lists: DeviceLists,
    ) -> None:
        self._repository = repository
        self._device_key_rows = device_key_rows
        self._device_keys = device_keys
        self._device_lists = device_lists

    async def check_keys(self, user_id: str, keys: Mapping[str, dict[str, Any]]) -> NewKeys:
        """Judges keys (usage -> key) that a user uploads. Raises InvalidParam, InvalidSignature, MissingParam.

        The first set needs no further proof of who the user is, and nor does one that is there already.
        https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keysdevice_signingupload
        """
        stored = {row.usage: row for row in await self._repository.load_keys([user_id])}
        try:
            rows = {
                usage: CrossSigningKeyRow(user_id, usage, public_key_of(key, user_id, usage), encode_key(key))
                for usage, key in keys.items()
            }
        except InvalidKey as error:
            raise InvalidParam(str(error)) from None
        master = rows.get(MASTER) or stored.get(MASTER)
        if master is None:
            raise MissingParam("There is no master key")
        for usage, key in keys.items():
            key_id = f"{ED25519}:{master.public_key}"
            if usage != MASTER and not is_signed_by(key, user_id, key_id, master.public_key):
                raise InvalidSignature(f"The {usage} key is not signed by the master key")
        new = [row for row in rows.values() if row.usage not in stored or _signed(row) != _signed(stored[row.usage])]
        return NewKeys(new, needs_auth=bool(new) and MASTER in stored)

    async def store_keys(self, user_id: str, keys: NewKeys) -> bool:
        """Stores keys that `check_keys` has let pass; False if it would not any more: others were stored since.

        Raises Forbidden.
        """
        if not keys.rows:
            return True
        try:
            if not await self._repository.replace_keys(user_id, keys.rows, only_first=not keys.needs_auth):
                return False
        except KeyIsADevice:
            raise Forbidden("Key ID in use") from None
        await self._device_lists.announce(user_id)
        return True

    async def add_signatures(self, user_id: str, signed: SignedKeys) -> dict[str, dict[str, Any]]:
        """Stores what a user has signed; returns what was not: user ID -> key -> the body of an error.

        Raises InvalidParam. https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keyssignaturesupload
        """
        if sum(map(len, signed.values())) > MAX_SIGNED_KEYS:
            raise InvalidParam(f"Signatures of no more than {MAX_SIGNED_KEYS} keys can be uploaded at once")
        signable = await self._signable(user_id, signed)
        rows: list[SignatureRow] = []
        failures: dict[str, dict[str, Any]] = {}
        for owner, keys in signed.items():
            for name, key in keys.items():
                try:
                    found = signable.get((owner, name))
                    if found is None:
                        raise NotFound("There is no such key, or it is not yours to sign")
                    new = _new_signatures(user_id, key, found)
                except MatrixError as error:
                    failures.setdefault(owner, {})[name] = error.body()
                else:
                    rows += [SignatureRow(owner, name, user_id, key_id, 0, text) for key_id, text in new.items()]
        if rows:
            await self._device_lists.announce_signatures(user_id, rows)
        return failures

    async def _signable(self, user_id: str, wanted: SignedKeys) -> dict[tuple[str, str], Signable]:
        """The keys (by owner, and device ID or public key) that a user may sign.

        With the self-signing key their own devices, with their devices their master key, with the user-signing key
        those of others. https://spec.matrix.org/v1.19/client-server-api/#cross-signing
        """
        own = {row.usage: row.public_key for row in await self._repository.load_keys([user_id])}
        found: dict[tuple[str, str], Signable] = {}
        answer = await self._device_keys.query(user_id, {owner: [] for owner in (user_id, *wanted)}, timeout_ms=10_000)
        devices = answer["device_keys"].get(user_id, {})
        self_signing = {f"{ED25519}:{own[SELF_SIGNING]}": own[SELF_SIGNING]} if SELF_SIGNING in own else {}
        user_signing = {f"{ED25519}:{own[USER_SIGNING]}": own[USER_SIGNING]} if USER_SIGNING in own else {}
        of_devices = {}
        for device_id, device in devices.items():
            found[user_id, device_id] = Signable(device, self_signing)
            key_id = f"{ED25519}:{device_id}"
            if key_id in device["keys"]:
                of_devices[key_id] = device["keys"][key_id]
        for owner, key in answer["master_keys"].items():
            for public_key in key["keys"].values():
                if isinstance(public_key, str):
                    found[owner, public_key] = Signable(key, of_devices if owner == user_id else user_signing)
        return found


def _signed(row: CrossSigningKeyRow) -> dict[str, Any]:
    return without_signatures(orjson.loads(row.json))


def _new_signatures(user_id: str, key: dict[str, Any], signable: Signable) -> dict[str, str]:
    """The user's signatures of a key that are not known yet: key ID -> signature. Raises InvalidSignature.

    What comes along with them from the key as the client got it is passed over.
    """
    try:
        check_signatures(key)
    except InvalidKey as error:
        raise InvalidSignature(str(error)) from None
    if without_signatures(key) != without_signatures(signable.key):
        raise InvalidSignature("This is not the key that was uploaded")
    own = key["signatures"].get(user_id, {})
    known = signable.key.get("signatures", {}).get(user_id, {})
    new: dict[str, str] = {key_id: text for key_id, text in own.items() if known.get(key_id) != text}
    if not own:
        raise InvalidSignature("There is no signature of yours")
    for key_id in new:
        if not is_signed_by(key, user_id, key_id, signable.signing_keys.get(key_id)):
            raise InvalidSignature("The signature is invalid, or not by a key that may sign this one")
    return new

"""Messages from device to device. https://spec.matrix.org/v1.19/client-server-api/#molmv1curve25519-aes-sha2"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import vodozemac

from appservices.summary_bot.clock import HOUR_MS, Clock
from appservices.summary_bot.encryption.device_list import DeviceList
from appservices.summary_bot.encryption.devices import MEGOLM, OLM, Device, read_key, read_one_time_key
from appservices.summary_bot.encryption.own_device import KEY_KIND, OwnDevice
from appservices.summary_bot.encryption.plaintexts import (
    MAX_CIPHERTEXT_CHARACTERS,
    Unreadable,
    check_olm_plaintext,
    decode,
    encode,
    olm_plaintext,
    read_plaintext,
)
from appservices.summary_bot.encryption.vault import Vault
from appservices.summary_bot.events import mapping, text
from appservices.summary_bot.matrix.keys import KeysClient
from appservices.summary_bot.storage.devices import DeviceRepository, SessionRow

DEVICES_PER_REQUEST = 100
REPAIR_INTERVAL_MS = HOUR_MS
"""https://spec.matrix.org/v1.19/client-server-api/#recovering-from-undecryptable-messages"""

PRE_KEY, NORMAL = 0, 1
WITHHELD = "m.room_key.withheld"
NO_OLM = "m.no_olm"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Opened:
    """A message that could be read, from whose device it is, and what has to be stored once it is dealt with."""

    event_type: str
    content: Mapping[str, Any]
    device: Device
    session: SessionRow
    account_pickle: str | None
    """The account without the one-time key that the message has used up."""


@dataclass(frozen=True, slots=True)
class _Decrypted:
    data: bytes
    session: vodozemac.Session
    account: vodozemac.Account | None = None


class Olm:
    """Reads and writes messages of devices."""

    def __init__(
        self,
        own: OwnDevice,
        device_list: DeviceList,
        keys: KeysClient,
        repository: DeviceRepository,
        vault: Vault,
        clock: Clock,
    ) -> None:
        self._own = own
        self._device_list = device_list
        self._keys = keys
        self._repository = repository
        self._vault = vault
        self._clock = clock

    # Reading ----------------------------------------------------------------------------------------------------------

    async def find_sender(self, sender: str, content: Mapping[str, Any]) -> Device:
        """The device that a message says it comes from, if the sender has such a one. Raises Unreadable, and
        MatrixFailure."""
        identity_key = read_key(content.get("sender_key"))
        if identity_key is None:
            raise Unreadable("no key of the sender")
        device = await self._device_list.find(sender, identity_key)
        if device is None:
            raise Unreadable("from a device that is not its sender's")
        return device

    async def open(self, device: Device, content: Mapping[str, Any]) -> Opened:
        """Reads a message, for whoever holds the lock of the bot's own device and stores what comes of it.

        Nothing of a message is believed before all of it was checked. Raises Unreadable.
        """
        own = self._own.device
        assert own is not None
        parcel = mapping(mapping(content.get("ciphertext")).get(own.identity_key))
        kind, body = parcel.get("type"), text(parcel.get("body"))
        if content.get("algorithm") != OLM or body is None or len(body) > MAX_CIPHERTEXT_CHARACTERS:
            raise Unreadable("no message to this device")
        if type(kind) is not int or kind not in (PRE_KEY, NORMAL):
            raise Unreadable("no kind of Olm message that is known")
        decrypted = await self._decrypt(device, kind, body)
        plain = read_plaintext(decrypted.data)
        check_olm_plaintext(plain, sender=device, own=own)
        event_type = text(plain.get("type"))
        if event_type is None:
            raise Unreadable("no event inside")
        session = self._row(device, decrypted.session)
        account_pickle = None if decrypted.account is None else self._vault.seal(decrypted.account)
        return Opened(event_type, mapping(plain.get("content")), device, session, account_pickle)

    async def _decrypt(self, device: Device, kind: int, body: str) -> _Decrypted:
        sessions = await self._repository.load_sessions(device.user_id, device.identity_key)
        opened = [self._vault.open_session(pickle) for _, pickle in sessions]
        try:
            if kind == NORMAL:
                return _decrypt_normal(opened, body)
            first = vodozemac.PreKeyMessage.from_base64(body)
            for session in opened:
                if session.session_matches(first):
                    return _Decrypted(session.decrypt(first.to_any()), session)
            account = await self._own.load_account()
            key = vodozemac.Curve25519PublicKey.from_base64(device.identity_key)
            session, data = account.create_inbound_session(key, first)
        except ValueError as error:  # all of vodozemac's are
            raise Unreadable(type(error).__name__, is_broken=True) from None
        return _Decrypted(data, session, account)

    # Writing ----------------------------------------------------------------------------------------------------------

    async def send(
        self, devices: Iterable[Device], event_type: str, content: Mapping[str, Any], *, renew: bool = False
    ) -> list[Device]:
        """Sends the same to each device; those of them that could be reached. `renew`: in a new session with each.

        Raises MatrixFailure.
        """
        wanted = list(devices)
        reached: list[Device] = []
        for start in range(0, len(wanted), DEVICES_PER_REQUEST):
            batch = wanted[start : start + DEVICES_PER_REQUEST]
            known = {} if renew else await self._repository.load_newest_sessions(batch)
            missing = [device for device in batch if (device.user_id, device.identity_key) not in known]
            one_time_keys = await self._claim(missing)
            parcels = await self._encrypt(batch, one_time_keys, lambda to: self._plaintext(to, event_type, content))
            await self._post(parcels)
            reached += parcels
        return reached

    async def load_in_session(self, devices: Sequence[Device]) -> list[Device]:
        """Those of the devices with which there is a session."""
        known = await self._repository.load_newest_sessions(devices)
        return [device for device in devices if (device.user_id, device.identity_key) in known]

    async def tell_unreachable(self, devices: Sequence[Device]) -> None:
        """Tells devices once that no session with them could be made: they may make one. Raises MatrixFailure.

        https://spec.matrix.org/v1.19/client-server-api/#mroom_keywithheld
        """
        assert self._own.device is not None
        new = await self._repository.note_told(devices, was_told=True)
        content = {
            "algorithm": MEGOLM,
            "code": NO_OLM,
            "reason": "No one-time key of the device was to be had",
            "sender_key": self._own.device.identity_key,
        }
        await self.send_plain([d for d in devices if (d.user_id, d.device_id) in new], WITHHELD, content)

    async def send_plain(self, devices: Iterable[Device], event_type: str, content: Mapping[str, Any]) -> None:
        """Sends the same to each device, unencrypted. Raises MatrixFailure."""
        wanted = list(devices)
        for start in range(0, len(wanted), DEVICES_PER_REQUEST):
            batch = wanted[start : start + DEVICES_PER_REQUEST]
            await self._keys.send_to_devices(event_type, _by_user((device, content) for device in batch))

    async def repair(self, device: Device) -> None:
        """Begins a new session with a device whose messages can no longer be read, once in a while.

        https://spec.matrix.org/v1.19/client-server-api/#recovering-from-undecryptable-messages. Raises MatrixFailure.
        """
        now = self._clock()
        if await self._repository.note_repair(device, now=now, before=now - REPAIR_INTERVAL_MS):
            log.info("a session with a device is replaced")
            await self.send([device], "m.dummy", {}, renew=True)

    def _plaintext(self, to: Device, event_type: str, content: Mapping[str, Any]) -> bytes:
        assert self._own.device is not None
        return olm_plaintext(self._own.device, self._own.keys, to, event_type, content)

    async def _claim(self, devices: Sequence[Device]) -> dict[Device, str]:
        """One-time keys of these devices, of as many as have one. Each has to be signed by its device."""
        if not devices:
            return {}
        wanted: dict[str, dict[str, str]] = {}
        for device in devices:
            wanted.setdefault(device.user_id, {})[device.device_id] = KEY_KIND
        claimed = await self._keys.claim_keys(wanted)
        found = {}
        for device in devices:
            key = read_one_time_key(device, mapping(mapping(claimed.get(device.user_id)).get(device.device_id)))
            if key is not None:
                found[device] = key
        return found

    async def _encrypt(
        self, devices: Sequence[Device], one_time_keys: Mapping[Device, str], plaintext: Callable[[Device], bytes]
    ) -> dict[Device, dict[str, Any]]:
        """The message for each device that there is a session with, or can be. Stored before anything is sent."""
        async with self._own.lock:
            known = await self._repository.load_newest_sessions(devices)
            account = await self._own.load_account() if one_time_keys else None
            parcels, rows = {}, []
            for device in devices:
                row = known.get((device.user_id, device.identity_key))
                if device in one_time_keys and account is not None:
                    session = _new_session(account, device, one_time_keys[device])
                    used_ts = self._clock()
                elif row is not None:
                    session, used_ts = self._vault.open_session(row.pickle), row.used_ts
                else:
                    continue
                if session is None:
                    continue
                kind, ciphertext = session.encrypt(plaintext(device)).to_parts()
                parcels[device] = {"type": kind, "body": encode(ciphertext)}
                rows.append(self._row(device, session, used_ts))
            await self._repository.persist_sessions(rows)
        await self._repository.note_told(list(parcels), was_told=False)
        return parcels

    async def _post(self, parcels: Mapping[Device, Mapping[str, Any]]) -> None:
        own = self._own.device
        assert own is not None
        if parcels:
            contents = (
                (
                    device,
                    {
                        "algorithm": OLM,
                        "sender_key": own.identity_key,
                        "ciphertext": {device.identity_key: parcel},
                    },
                )
                for device, parcel in parcels.items()
            )
            await self._keys.send_to_devices("m.room.encrypted", _by_user(contents))

    def _row(self, device: Device, session: vodozemac.Session, used_ts: int | None = None) -> SessionRow:
        """`used_ts`: by default, now."""
        used_ts = self._clock() if used_ts is None else used_ts
        return SessionRow(session.session_id, device.user_id, device.identity_key, self._vault.seal(session), used_ts)


def _decrypt_normal(sessions: Sequence[vodozemac.Session], body: str) -> _Decrypted:
    """Reads a message in whichever session opens it. Raises Unreadable, and vodozemac's DecodeException."""
    message = vodozemac.AnyOlmMessage.from_parts(NORMAL, decode(body))
    for session in sessions:
        try:
            return _Decrypted(session.decrypt(message), session)
        except vodozemac.OlmDecryptionException:
            continue
    raise Unreadable("no session that opens it", is_broken=True)


def _new_session(account: vodozemac.Account, device: Device, one_time_key: str) -> vodozemac.Session | None:
    """A session with a device; None if its keys are none."""
    try:
        return account.create_outbound_session(
            vodozemac.Curve25519PublicKey.from_base64(device.identity_key),
            vodozemac.Curve25519PublicKey.from_base64(one_time_key),
        )
    except ValueError:
        return None


def _by_user(contents: Iterable[tuple[Device, Mapping[str, Any]]]) -> dict[str, dict[str, Any]]:
    messages: dict[str, dict[str, Any]] = {}
    for device, content in contents:
        messages.setdefault(device.user_id, {})[device.device_id] = dict(content)
    return messages

"""Encrypts what the bot says in encrypted rooms.

1. The room: who is in it, how long a session may be used, who may see its history.
2. The devices of all who may read along.
3. The session: a new one where the old has been used for long enough, or somebody has its key who is not to read on.
4. Its key goes to every device that does not have it. A device that is not to have it, or cannot be reached, is told.
5. The message is encrypted, and the session stored, before anything is sent: no place in it is used twice.

https://spec.matrix.org/v1.19/client-server-api/#mmegolmv1aes-sha2
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import vodozemac

from appservices.summary_bot.clock import DAY_MS, HOUR_MS, Clock
from appservices.summary_bot.encryption.device_list import DeviceList
from appservices.summary_bot.encryption.devices import MEGOLM, Device
from appservices.summary_bot.encryption.olm import NO_OLM, WITHHELD, Olm
from appservices.summary_bot.encryption.own_device import OwnDevice
from appservices.summary_bot.encryption.plaintexts import megolm_plaintext
from appservices.summary_bot.encryption.vault import Vault
from appservices.summary_bot.matrix.client import MatrixClient, MatrixFailure
from appservices.summary_bot.storage.room_keys import OutboundRow, RoomKeyRepository, Share
from appservices.summary_bot.visibility import DEFAULT_VISIBILITY

ENCRYPTION = "m.room.encryption"
DEFAULT_ROTATION_MS = 7 * DAY_MS
DEFAULT_ROTATION_MESSAGES = 100
MIN_ROTATION_MS = HOUR_MS
"""A room may not make the bot send its keys anew to everybody all the time."""

MAX_TRIES = 5
UNVERIFIED = "m.unverified"


@dataclass(frozen=True, slots=True)
class _Rules:
    """What a room says about its encryption."""

    rotation_ms: int
    rotation_messages: int
    shared_history: bool
    readers: frozenset[str]


class RoomSender:
    """Encrypts for rooms."""

    def __init__(
        self,
        client: MatrixClient,
        own: OwnDevice,
        olm: Olm,
        device_list: DeviceList,
        repository: RoomKeyRepository,
        vault: Vault,
        clock: Clock,
    ) -> None:
        self._client = client
        self._own = own
        self._olm = olm
        self._device_list = device_list
        self._repository = repository
        self._vault = vault
        self._clock = clock
        self._locks: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()

    async def is_encrypted(self, room_id: str) -> bool:
        """Whether a room is encrypted. One that was once stays so, whatever the homeserver says. Raises
        MatrixFailure."""
        if await self._repository.load_encrypted(room_id):
            return True
        if await self._client.load_state(room_id, ENCRYPTION) is None:
            return False
        await self._repository.note_encrypted(room_id)
        return True

    async def encrypt(self, room_id: str, event_type: str, content: Mapping[str, Any]) -> dict[str, Any]:
        """The content of an `m.room.encrypted` event that everybody in the room can read. Raises MatrixFailure."""
        own = self._own.device
        assert own is not None
        lock = self._locks.setdefault(room_id, asyncio.Lock())
        async with lock:
            for _ in range(MAX_TRIES):
                rules = await self._load_rules(room_id)
                devices = await self._device_list.load(rules.readers - {own.user_id})
                session = await self._session(room_id, rules, devices)
                await self._share(session, devices)
                outbound = self._vault.open_outbound(session.pickle)
                message = outbound.encrypt(megolm_plaintext(room_id, event_type, content))
                # Somebody may have left meanwhile: then this session is gone, and the next one is without them.
                if await self._repository.use_outbound(session, self._vault.seal(outbound)):
                    return _sealed(own, session.session_id, message, content)
        raise MatrixFailure("people leave the room faster than keys can be shared", is_temporary=True)

    async def _load_rules(self, room_id: str) -> _Rules:
        state = await self._client.load_state(room_id, ENCRYPTION) or {}
        if state.get("algorithm", MEGOLM) != MEGOLM:
            raise MatrixFailure("the room is encrypted in a way that the bot does not know")
        visibility = await self._client.load_state(room_id, "m.room.history_visibility") or {}
        visible = visibility.get("history_visibility", DEFAULT_VISIBILITY)
        memberships = await self._client.load_memberships(room_id)
        read_along = ("join",) if visible == "joined" else ("join", "invite")
        return _Rules(
            max(MIN_ROTATION_MS, _positive(state.get("rotation_period_ms"), DEFAULT_ROTATION_MS)),
            _positive(state.get("rotation_period_msgs"), DEFAULT_ROTATION_MESSAGES),
            visible in ("shared", "world_readable"),
            frozenset(user for user, membership in memberships.items() if membership in read_along),
        )

    async def _session(self, room_id: str, rules: _Rules, devices: Sequence[Device]) -> OutboundRow:
        """The session to use: the one there is, or a new one."""
        row = await self._repository.load_outbound(room_id)
        if row is not None and not await self._is_used_up(row, rules, devices):
            return row
        session = vodozemac.GroupSession()
        row = OutboundRow(
            room_id, session.session_id, self._vault.seal(session), self._clock(), 0, rules.shared_history
        )
        await self._repository.replace_outbound(row)
        return row

    async def _is_used_up(self, row: OutboundRow, rules: _Rules, devices: Sequence[Device]) -> bool:
        if row.messages >= rules.rotation_messages or self._clock() - row.created_ts >= rules.rotation_ms:
            return True
        if row.shared_history != rules.shared_history:
            return True
        present = {_key(device) for device in devices if device.is_trusted}
        shares = await self._repository.load_shares(row.session_id)
        return any(share.withheld is None and _key(share) not in present for share in shares)

    async def _share(self, row: OutboundRow, devices: Sequence[Device]) -> None:
        """Sends the session's key to every device that does not have it and may. Devices that their owners have not
        signed, although they could, may not: the homeserver may have made them up.

        https://spec.matrix.org/v1.19/client-server-api/#recommended-client-behaviour
        """
        shares = {_key(share): share.withheld for share in await self._repository.load_shares(row.session_id)}
        wanted = [device for device in devices if device.is_trusted and shares.get(_key(device), "") is not None]
        # Those that could not be reached are tried again once they have made a session themselves.
        unreached = [device for device in wanted if shares.get(_key(device)) == NO_OLM]
        again = await self._olm.load_in_session(unreached)
        await self._send_key(row, [device for device in wanted if device not in unreached or device in again])
        strangers = [d for d in devices if not d.is_trusted and shares.get(_key(d)) != UNVERIFIED]
        if strangers:
            await self._olm.send_plain(strangers, WITHHELD, self._unverified(row))
            await self._repository.add_shares(row.session_id, strangers, UNVERIFIED)

    async def _send_key(self, row: OutboundRow, devices: Sequence[Device]) -> None:
        """https://spec.matrix.org/v1.19/client-server-api/#mroom_key"""
        if not devices:
            return
        key = {
            "algorithm": MEGOLM,
            "room_id": row.room_id,
            "session_id": row.session_id,
            "session_key": self._vault.open_outbound(row.pickle).session_key.to_base64(),
            "shared_history": row.shared_history,
        }
        reached = await self._olm.send(devices, "m.room_key", key)
        await self._repository.add_shares(row.session_id, reached, None)
        unreached = [device for device in devices if device not in set(reached)]
        if unreached:
            await self._olm.tell_unreachable(unreached)
            await self._repository.add_shares(row.session_id, unreached, NO_OLM)

    def _unverified(self, row: OutboundRow) -> dict[str, Any]:
        """https://spec.matrix.org/v1.19/client-server-api/#mroom_keywithheld"""
        assert self._own.device is not None
        return {
            "algorithm": MEGOLM,
            "code": UNVERIFIED,
            "reason": "The device is not signed by its owner",
            "room_id": row.room_id,
            "session_id": row.session_id,
            "sender_key": self._own.device.identity_key,
        }


def _sealed(
    own: Device, session_id: str, message: vodozemac.MegolmMessage, content: Mapping[str, Any]
) -> dict[str, Any]:
    """What an event relates to stands outside, for the homeserver to see:
    https://spec.matrix.org/v1.19/client-server-api/#forming-relationships-between-events"""
    sealed: dict[str, Any] = {
        "algorithm": MEGOLM,
        "sender_key": own.identity_key,
        "device_id": own.device_id,
        "session_id": session_id,
        "ciphertext": message.to_base64(),
    }
    if "m.relates_to" in content:
        sealed["m.relates_to"] = content["m.relates_to"]
    return sealed


def _key(of: Share | Device) -> tuple[str, str, str]:
    return of.user_id, of.device_id, of.identity_key


def _positive(value: object, default: int) -> int:
    return value if type(value) is int and value > 0 else default

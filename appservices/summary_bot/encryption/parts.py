"""Puts the encryption together: what the rest of the bot sees of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from appservices.summary_bot.clock import DAY_MS, HOUR_MS, Clock
from appservices.summary_bot.config import Encryption as Options
from appservices.summary_bot.encryption.device_list import DeviceList
from appservices.summary_bot.encryption.incoming import Incoming
from appservices.summary_bot.encryption.olm import Olm
from appservices.summary_bot.encryption.own_device import OwnDevice
from appservices.summary_bot.encryption.plaintexts import Unreadable
from appservices.summary_bot.encryption.reading import RoomReader
from appservices.summary_bot.encryption.sending import RoomSender
from appservices.summary_bot.encryption.vault import Vault
from appservices.summary_bot.events import RawEvent
from appservices.summary_bot.matrix.client import Api, MatrixClient, MatrixFailure
from appservices.summary_bot.matrix.keys import KeysClient
from appservices.summary_bot.storage.database import Database
from appservices.summary_bot.storage.devices import DeviceRepository
from appservices.summary_bot.storage.room_keys import RoomKeyRepository
from appservices.summary_bot.storage.sealed import SealedRepository

KEEP_WAITING_MS = 6 * HOUR_MS
"""How long an event waits for its key: questions that are older are not answered any more."""


class Encryption:
    """Reads and writes in encrypted rooms, once `publish` has been done."""

    def __init__(self, options: Options, api: Api, client: MatrixClient, database: Database, clock: Clock) -> None:
        vault, keys = Vault(options.key), KeysClient(api)
        self._devices = DeviceRepository(database)
        self._room_keys, self._sealed = RoomKeyRepository(database), SealedRepository(database)
        device_list = DeviceList(keys, self._devices)
        self._keep_ms = options.keep_keys_days * DAY_MS
        self._is_published = False
        self._reader = RoomReader(self._room_keys, vault)
        self.own = OwnDevice(client.user_id, options.device_name, keys, self._devices, vault)
        olm = Olm(self.own, device_list, keys, self._devices, vault, clock)
        self._sender = RoomSender(client, self.own, olm, device_list, self._room_keys, vault, clock)
        self.incoming = Incoming(self.own, olm, self._reader, self._sealed, vault, clock)
        self.any_models = options.any_models
        """Whether what stands in encrypted rooms may be given to models elsewhere."""

    async def open(self) -> None:
        """Loads the bot's device. Raises StorageError where its key has been changed."""
        await self.own.open()

    async def publish(self) -> None:
        """Has the homeserver know the bot's device. Raises MatrixFailure."""
        await self.own.publish()
        self._is_published = True

    async def is_encrypted(self, room_id: str) -> bool:
        """Whether a room is encrypted. Raises MatrixFailure."""
        return await self._sender.is_encrypted(room_id)

    async def encrypt(self, room_id: str, event_type: str, content: Mapping[str, Any]) -> dict[str, Any]:
        """The content of an `m.room.encrypted` event. Raises MatrixFailure."""
        if not self._is_published:
            raise MatrixFailure("the bot has no device yet", is_temporary=True)
        return await self._sender.encrypt(room_id, event_type, content)

    async def open_events(self, room_id: str, events: Sequence[RawEvent]) -> list[RawEvent]:
        """The events, each that can be read in the place of its encrypted form."""
        return await self._reader.open_events(room_id, events)

    async def open_event(self, room_id: str, event: RawEvent) -> RawEvent:
        """The event, as it reads if it can be read."""
        try:
            return await self._reader.open_event(room_id, event)
        except Unreadable:
            return event

    async def is_full(self) -> bool:
        """Whether so much waits to be looked at that more has to wait at the homeserver."""
        return await self._sealed.is_full()

    async def forget_room(self, room_id: str) -> None:
        """Drops the keys of a room that the bot is no longer in. That it is encrypted is not forgotten."""
        await self._room_keys.forget_room(room_id)
        await self._sealed.forget_room(room_id)

    async def purge(self, now: int) -> None:
        """Drops keys that have been kept for long enough, and events that have waited for too long."""
        await self._devices.purge(now - self._keep_ms)
        await self._room_keys.purge(now - self._keep_ms)
        await self._sealed.purge(now - KEEP_WAITING_MS)

"""Dehydrated devices: kept here alone, to receive messages for a user until another device fetches them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import asyncpg

from storage.cross_signing import IS_SIGNING_KEY, LOCK_USER
from storage.device_keys import UPSERT_DEVICE_KEYS, UploadedKey, store_keys
from storage.device_lists import mark_pending
from storage.devices import remove_devices


class DehydratedDeviceRow(NamedTuple):
    """A user's dehydrated device; `device_data` is JSON that only the user's clients understand."""

    device: int
    device_id: str
    device_data: bytes


class DeviceIdTaken(Exception):
    """The user has another device by this ID, or a cross-signing key."""


DEHYDRATED_DEVICE = """
SELECT h.device, d.device_id, h.device_data FROM dehydrated_devices h JOIN devices d USING (device)
WHERE h.user_id = $1
"""
INSERT_DEVICE = """
INSERT INTO devices (user_id, device_id, display_name) VALUES ($1, $2, $3)
ON CONFLICT (user_id, device_id) DO NOTHING RETURNING device
"""
INSERT_DEHYDRATED_DEVICE = "INSERT INTO dehydrated_devices (user_id, device, device_data) VALUES ($1, $2, $3)"


class DehydratedDeviceRepository:
    """Stores dehydrated devices. Each method is one transaction."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def load(self, user_id: str) -> DehydratedDeviceRow | None:
        """A user's dehydrated device."""
        row = await self._pool.fetchrow(DEHYDRATED_DEVICE, user_id)
        return None if row is None else DehydratedDeviceRow(*row)

    async def replace(
        self,
        user_id: str,
        device_id: str,
        *,
        display_name: str | None,
        device_data: bytes,
        device_keys: bytes,
        one_time_keys: Sequence[UploadedKey],
        fallback_keys: Sequence[UploadedKey],
    ) -> None:
        """Puts a dehydrated device in place of any that the user has. The device list is pending then.

        Raises DeviceIdTaken.
        """
        async with self._pool.acquire() as connection, connection.transaction():
            await connection.fetchrow(LOCK_USER, user_id)
            await _remove(connection, user_id)
            device = await connection.fetchval(INSERT_DEVICE, user_id, device_id, display_name)
            if device is None or await connection.fetchval(IS_SIGNING_KEY, user_id, device_id):
                raise DeviceIdTaken
            await connection.execute(UPSERT_DEVICE_KEYS, device, device_keys)
            await store_keys(connection, device, one_time_keys, fallback_keys)
            await connection.execute(INSERT_DEHYDRATED_DEVICE, user_id, device, device_data)
            await mark_pending(connection, user_id)

    async def remove(self, user_id: str) -> DehydratedDeviceRow | None:
        """Removes a user's dehydrated device, with all that was sent to it; returns what it was."""
        async with self._pool.acquire() as connection, connection.transaction():
            await connection.fetchrow(LOCK_USER, user_id)
            return await _remove(connection, user_id)


async def _remove(connection: asyncpg.Connection, user_id: str) -> DehydratedDeviceRow | None:
    row = await connection.fetchrow(DEHYDRATED_DEVICE, user_id)
    if row is None:
        return None
    await remove_devices(connection, user_id, [row["device"]])
    return DehydratedDeviceRow(*row)

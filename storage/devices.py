"""The end of devices: the one place where they are removed, with all that was theirs."""

from __future__ import annotations

from collections.abc import Sequence

import asyncpg

from storage.cross_signing import USAGES, delete_keys
from storage.device_lists import mark_pending
from storage.key_backup import DELETE_ALL_BACKUPS
from storage.to_device import DELETE_ALL_MESSAGES

WITH_KEYS = """
SELECT d.device_id FROM devices d JOIN device_keys USING (device) WHERE d.device = ANY($1::int[])
"""
# Tokens and keys go with their device.
DELETE_DEVICES = "DELETE FROM devices WHERE device = ANY($1::int[])"
# Also what the devices have signed: another device may come to have the ID.
DELETE_SIGNATURES = """
DELETE FROM key_signatures
WHERE (user_id = $1 AND key = ANY($2::text[])) OR (signer = $1 AND signing_key = ANY($3::text[]))
"""


async def remove_devices(connection: asyncpg.Connection, user_id: str, devices: Sequence[int]) -> None:
    """Removes devices of a user, in a transaction: their tokens, keys, signatures, and what was sent to them.

    Where one of them had keys, the user's device list is pending from then on.
    https://spec.matrix.org/v1.19/client-server-api/#relationship-between-access-tokens-and-devices
    """
    device_ids = [row["device_id"] for row in await connection.fetch(WITH_KEYS, list(devices))]
    await connection.execute(DELETE_DEVICES, list(devices))
    await connection.execute(DELETE_ALL_MESSAGES, list(devices))
    if device_ids:
        key_ids = [f"ed25519:{device_id}" for device_id in device_ids]
        await connection.execute(DELETE_SIGNATURES, user_id, device_ids, key_ids)
        await mark_pending(connection, user_id)


async def remove_identity(connection: asyncpg.Connection, user_id: str) -> None:
    """Removes a user's cross-signing keys and key backups, in the transaction that closes the account."""
    await connection.execute(DELETE_ALL_BACKUPS, user_id)
    if await delete_keys(connection, user_id, USAGES):
        await mark_pending(connection, user_id)

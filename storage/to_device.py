"""Messages from device to device, until they are delivered."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

import asyncpg


class ToDeviceRow(NamedTuple):
    """A message for a device, by number; `json` is the event as the device gets it."""

    device: int
    position: int
    json: bytes


class ToDeviceTransactionRow(NamedTuple):
    """That a source has used a transaction ID, when (ms)."""

    source: str
    txn_id: str
    sent_ts: int


INSERT_MESSAGES = """
INSERT INTO to_device_messages (device, position, json) SELECT * FROM unnest($1::int[], $2::bigint[], $3::bytea[])
"""
INSERT_TRANSACTIONS = """
INSERT INTO to_device_transactions (source, txn_id, sent_ts) SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[])
ON CONFLICT DO NOTHING
"""
HAS_TRANSACTION = "SELECT EXISTS (SELECT FROM to_device_transactions WHERE source = $1 AND txn_id = $2)"
DELETE_OLD_TRANSACTIONS = "DELETE FROM to_device_transactions WHERE sent_ts < $1"
MESSAGES = """
SELECT position, json FROM to_device_messages WHERE device = $1 AND position > $2 AND position <= $3
ORDER BY position LIMIT $4
"""
INBOX = "SELECT coalesce(min(position), 0), coalesce(max(position), 0) FROM to_device_messages WHERE device = $1"
DELETE_MESSAGES = "DELETE FROM to_device_messages WHERE device = $1 AND position <= $2"
DELETE_ALL_MESSAGES = "DELETE FROM to_device_messages WHERE device = ANY($1::int[])"
DELETE_ORPHANS = "DELETE FROM to_device_messages m WHERE NOT EXISTS (SELECT FROM devices d WHERE d.device = m.device)"
DELETE_OVERFLOW = """
DELETE FROM to_device_messages m USING (
    SELECT device, (SELECT position FROM to_device_messages k WHERE k.device = c.device
        ORDER BY position DESC OFFSET $1 LIMIT 1) AS last
    FROM (SELECT device FROM to_device_messages GROUP BY device HAVING count(*) > $1) c
) full_inbox WHERE m.device = full_inbox.device AND m.position <= full_inbox.last
"""
DEVICES = "SELECT user_id, device_id, device FROM devices WHERE user_id = ANY($1::text[])"


async def insert_messages(connection: asyncpg.Connection, rows: Sequence[ToDeviceRow]) -> None:
    """Writes messages in one statement."""
    await connection.execute(INSERT_MESSAGES, *map(list, zip(*rows, strict=True)))


async def insert_transactions(connection: asyncpg.Connection, rows: Sequence[ToDeviceTransactionRow]) -> None:
    """Writes used transaction IDs in one statement."""
    await connection.execute(INSERT_TRANSACTIONS, *map(list, zip(*rows, strict=True)))


class InboxRow(NamedTuple):
    """The positions of a device's oldest and newest message, 0 without any."""

    oldest: int
    newest: int


class ToDeviceRepository:
    """Reads messages, and removes them."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def load_devices(self, user_ids: Collection[str]) -> dict[str, dict[str, int]]:
        """User ID -> device ID -> the device's number."""
        found: dict[str, dict[str, int]] = {}
        for row in await self._pool.fetch(DEVICES, list(user_ids)):
            found.setdefault(row["user_id"], {})[row["device_id"]] = row["device"]
        return found

    async def load_inbox(self, device: int) -> InboxRow:
        """What waits for a device."""
        return InboxRow(*await self._pool.fetchrow(INBOX, device))

    async def load_messages(self, device: int, *, after: int, up_to: int, limit: int) -> list[tuple[int, bytes]]:
        """(position, JSON) of a device's oldest messages in after < position <= up_to, in order."""
        return [(row["position"], row["json"]) for row in await self._pool.fetch(MESSAGES, device, after, up_to, limit)]

    async def delete_messages(self, device: int, up_to: int) -> None:
        """Removes what was delivered."""
        await self._pool.execute(DELETE_MESSAGES, device, up_to)

    async def is_used(self, source: str, txn_id: str) -> bool:
        """Whether a source has used a transaction ID."""
        return bool(await self._pool.fetchval(HAS_TRANSACTION, source, txn_id))

    async def clean(self, *, before_ts: int, max_messages: int) -> None:
        """Removes transaction IDs from before a time (ms), and messages: for devices that are gone, and the oldest
        of those that have more than so many."""
        await self._pool.execute(DELETE_OLD_TRANSACTIONS, before_ts)
        await self._pool.execute(DELETE_ORPHANS)
        await self._pool.execute(DELETE_OVERFLOW, max_messages)

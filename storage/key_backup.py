"""Backups of room keys: versions of a user, and the keys in them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import asyncpg


class BackupRow(NamedTuple):
    """A backup: `backup` is its number here, `version` the user's; `auth_data` is JSON."""

    backup: int
    version: int
    algorithm: str
    auth_data: bytes
    etag: int
    key_count: int
    deleted: bool


class BackedUpKeyRow(NamedTuple):
    """A key in a backup; `session_data` is JSON that only the user's clients can decrypt."""

    room_id: str
    session_id: str
    first_message_index: int
    forwarded_count: int
    is_verified: bool
    session_data: bytes


class BackupState(NamedTuple):
    """What a backup's keys are by now, for clients to compare, and how many."""

    etag: int
    key_count: int


class NotCurrent(Exception):
    """Keys can be stored in the current backup alone; `current` is its version."""

    def __init__(self, current: int) -> None:
        super().__init__(current)
        self.current = current


class TooManyBackedUpKeys(Exception):
    """The backup has as many keys as it may have."""


_COLUMNS = "backup, version, algorithm, auth_data, etag, key_count, deleted"
LOCK_USER = "SELECT FROM users WHERE user_id = $1 FOR NO KEY UPDATE"
INSERT_BACKUP = """
INSERT INTO key_backups (user_id, version, algorithm, auth_data)
SELECT $1, coalesce(max(version), 0) + 1, $2, $3 FROM key_backups WHERE user_id = $1
RETURNING version
"""
CURRENT = f"SELECT {_COLUMNS} FROM key_backups WHERE user_id = $1 AND NOT deleted ORDER BY version DESC LIMIT 1"
BACKUP = f"SELECT {_COLUMNS} FROM key_backups WHERE user_id = $1 AND version = $2"
LOCK_BACKUP = f"{BACKUP} AND NOT deleted FOR UPDATE"
SET_AUTH_DATA = "UPDATE key_backups SET auth_data = $3 WHERE user_id = $1 AND version = $2 AND NOT deleted"
DELETE_BACKUP = """
UPDATE key_backups SET deleted = true, auth_data = '{}', key_count = 0 WHERE user_id = $1 AND version = $2
RETURNING backup
"""
DELETE_KEYS_OF_BACKUP = "DELETE FROM backed_up_keys WHERE backup = $1"
# Of two keys of a session the one stays that is verified, then that which decrypts more, then that which came over
# fewer devices: https://spec.matrix.org/v1.19/client-server-api/#server-side-key-backups
UPSERT_KEYS = """
INSERT INTO backed_up_keys AS k (
    backup, room_id, session_id, first_message_index, forwarded_count, is_verified, session_data)
SELECT $1, * FROM unnest($2::text[], $3::text[], $4::bigint[], $5::bigint[], $6::bool[], $7::bytea[])
ON CONFLICT (backup, room_id, session_id) DO UPDATE SET
    first_message_index = excluded.first_message_index, forwarded_count = excluded.forwarded_count,
    is_verified = excluded.is_verified, session_data = excluded.session_data
WHERE (NOT excluded.is_verified, excluded.first_message_index, excluded.forwarded_count)
    < (NOT k.is_verified, k.first_message_index, k.forwarded_count)
RETURNING xmax = 0 AS is_new
"""
KEYS = """
SELECT room_id, session_id, first_message_index, forwarded_count, is_verified, session_data FROM backed_up_keys
WHERE backup = $1 AND ($2::text IS NULL OR room_id = $2) AND ($3::text IS NULL OR session_id = $3)
    AND ($4::text IS NULL OR (room_id, session_id) > ($4, $5)) ORDER BY room_id, session_id LIMIT $6
"""
DELETE_KEYS = """
DELETE FROM backed_up_keys
WHERE backup = $1 AND ($2::text IS NULL OR room_id = $2) AND ($3::text IS NULL OR session_id = $3)
"""
CHANGE = """
UPDATE key_backups SET etag = etag + 1, key_count = key_count + $2 WHERE backup = $1 RETURNING etag, key_count
"""
DELETE_ALL_BACKUPS = "DELETE FROM key_backups WHERE user_id = $1"


class KeyBackupRepository:
    """Stores backups. Each method is one transaction: when it returns, it is durable."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def create(self, user_id: str, algorithm: str, auth_data: bytes) -> int:
        """Makes a backup, the user's current one from now on; its version."""
        async with self._pool.acquire() as connection, connection.transaction():
            await connection.fetchrow(LOCK_USER, user_id)
            return int(await connection.fetchval(INSERT_BACKUP, user_id, algorithm, auth_data))

    async def load_current(self, user_id: str) -> BackupRow | None:
        """A user's newest backup that is not deleted."""
        row = await self._pool.fetchrow(CURRENT, user_id)
        return None if row is None else BackupRow(*row)

    async def load(self, user_id: str, version: int) -> BackupRow | None:
        """One of a user's backups, deleted or not."""
        row = await self._pool.fetchrow(BACKUP, user_id, version)
        return None if row is None else BackupRow(*row)

    async def set_auth_data(self, user_id: str, version: int, auth_data: bytes) -> bool:
        """Replaces the data of a backup; False when there is none."""
        return bool(await self._pool.execute(SET_AUTH_DATA, user_id, version, auth_data) != "UPDATE 0")

    async def delete(self, user_id: str, version: int) -> bool:
        """Deletes a backup with its keys, also once more; False when there never was one."""
        async with self._pool.acquire() as connection, connection.transaction():
            backup = await connection.fetchval(DELETE_BACKUP, user_id, version)
            if backup is not None:
                await connection.execute(DELETE_KEYS_OF_BACKUP, backup)
            return backup is not None

    async def put_keys(
        self, user_id: str, version: int, keys: Sequence[BackedUpKeyRow], *, max_keys: int
    ) -> BackupState | None:
        """Adds keys to the current backup, where they are better than what it has; None when there is no such backup.

        Raises NotCurrent, TooManyBackedUpKeys.
        """
        async with self._pool.acquire() as connection, connection.transaction():
            current = await connection.fetchrow(CURRENT, user_id)
            if current is not None and current["version"] != version:
                raise NotCurrent(current["version"])
            row = await connection.fetchrow(LOCK_BACKUP, user_id, version)
            if row is None:
                return None
            found = BackupRow(*row)
            stored = []
            if keys:
                columns = list(map(list, zip(*keys, strict=True)))
                stored = [row["is_new"] for row in await connection.fetch(UPSERT_KEYS, found.backup, *columns)]
            if found.key_count + sum(stored) > max_keys:
                raise TooManyBackedUpKeys
            if not stored:
                return BackupState(found.etag, found.key_count)
            return BackupState(*await connection.fetchrow(CHANGE, found.backup, sum(stored)))

    async def load_keys(
        self,
        backup: int,
        room_id: str | None = None,
        session_id: str | None = None,
        *,
        after: tuple[str, str] | None = None,
        limit: int,
    ) -> list[BackedUpKeyRow]:
        """Up to `limit` keys of a backup, of one room or of one session in it, `after` (room ID, session ID)."""
        rows = await self._pool.fetch(KEYS, backup, room_id, session_id, *(after or (None, None)), limit)
        return [BackedUpKeyRow(*row) for row in rows]

    async def delete_keys(
        self, user_id: str, version: int, room_id: str | None = None, session_id: str | None = None
    ) -> BackupState | None:
        """Removes keys of a backup, of one room or of one session in it; None when there is no such backup."""
        async with self._pool.acquire() as connection, connection.transaction():
            row = await connection.fetchrow(LOCK_BACKUP, user_id, version)
            if row is None:
                return None
            found = BackupRow(*row)
            deleted = await connection.execute(DELETE_KEYS, found.backup, room_id, session_id)
            count = int(deleted.removeprefix("DELETE "))
            if not count:
                return BackupState(found.etag, found.key_count)
            return BackupState(*await connection.fetchrow(CHANGE, found.backup, -count))

"""Cross-signing keys of users, and the signatures that were uploaded after the keys they sign."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

import asyncpg

from storage.device_lists import mark_pending

MASTER = "master"
SELF_SIGNING = "self_signing"
USER_SIGNING = "user_signing"
USAGES = (MASTER, SELF_SIGNING, USER_SIGNING)


class CrossSigningKeyRow(NamedTuple):
    """A user's key for one of the usages; `public_key` is in unpadded Base64."""

    user_id: str
    usage: str
    public_key: str
    json: bytes


class KeyIsADevice(Exception):
    """A device of the user has the public key as its ID."""


KEYS = "SELECT user_id, usage, public_key, json FROM cross_signing_keys WHERE user_id = ANY($1::text[])"
SIGNATURES = """
SELECT user_id, key, signer, signing_key, signature FROM key_signatures
WHERE user_id = ANY($1::text[]) AND (signer = user_id OR signer = $2)
"""
# As strong as it has to be for a device that is being made to wait for it, and the other way round.
LOCK_USER = "SELECT FROM users WHERE user_id = $1 FOR UPDATE"
IS_SIGNING_KEY = "SELECT EXISTS (SELECT FROM cross_signing_keys WHERE user_id = $1 AND public_key = $2)"
HAS_MASTER_KEY = f"SELECT EXISTS (SELECT FROM cross_signing_keys WHERE user_id = $1 AND usage = '{MASTER}')"
IS_DEVICE = "SELECT EXISTS (SELECT FROM devices WHERE user_id = $1 AND device_id = ANY($2::text[]))"
UPSERT_KEYS = """
INSERT INTO cross_signing_keys (user_id, usage, public_key, json)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::bytea[])
ON CONFLICT (user_id, usage) DO UPDATE SET public_key = excluded.public_key, json = excluded.json
"""
DELETE_KEYS = "DELETE FROM cross_signing_keys WHERE user_id = $1 AND usage = ANY($2::text[]) RETURNING public_key"
# What was said of a key that is gone, and what it said of others.
DELETE_SIGNATURES = """
DELETE FROM key_signatures
WHERE (user_id = $1 AND key = ANY($2::text[])) OR (signer = $1 AND signing_key = ANY($3::text[]))
"""


class CrossSigningRepository:
    """Stores and finds cross-signing keys. Each method is one transaction."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def load_keys(self, user_ids: Collection[str]) -> list[CrossSigningKeyRow]:
        """The cross-signing keys of these users."""
        return [CrossSigningKeyRow(*row) for row in await self._pool.fetch(KEYS, list(user_ids))]

    async def load_signatures(
        self, user_ids: Collection[str], asker: str | None
    ) -> dict[tuple[str, str], dict[str, dict[str, str]]]:
        """Signatures of these users' keys by themselves and by the asker.

        (user ID, device ID or public key) -> signer -> key ID -> signature.
        """
        found: dict[tuple[str, str], dict[str, dict[str, str]]] = {}
        for row in await self._pool.fetch(SIGNATURES, list(user_ids), asker):
            of_key = found.setdefault((row["user_id"], row["key"]), {})
            of_key.setdefault(row["signer"], {})[row["signing_key"]] = row["signature"]
        return found

    async def replace_keys(self, user_id: str, keys: Sequence[CrossSigningKeyRow], *, only_first: bool) -> bool:
        """Puts keys in place of those that the user has for their usages. The user's device list is pending then.

        A new master key takes all earlier keys with it, as it has not signed them. Returns False, having done nothing,
        where the keys may be the `only_first` and the user has a master key already. Raises KeyIsADevice.
        """
        async with self._pool.acquire() as connection, connection.transaction():
            await connection.fetchrow(LOCK_USER, user_id)
            if only_first and await connection.fetchval(HAS_MASTER_KEY, user_id):
                return False
            if await connection.fetchval(IS_DEVICE, user_id, [key.public_key for key in keys]):
                raise KeyIsADevice
            usages = [key.usage for key in keys]
            replaced = list(USAGES) if MASTER in usages else usages
            await delete_keys(connection, user_id, replaced)
            await connection.execute(UPSERT_KEYS, *map(list, zip(*keys, strict=True)))
            await mark_pending(connection, user_id)
            return True


async def delete_keys(connection: asyncpg.Connection, user_id: str, usages: Sequence[str]) -> bool:
    """Removes a user's keys for these usages with all signatures by and of them; says whether there were any."""
    gone = [row["public_key"] for row in await connection.fetch(DELETE_KEYS, user_id, list(usages))]
    if gone:
        await connection.execute(DELETE_SIGNATURES, user_id, gone, [f"ed25519:{key}" for key in gone])
    return bool(gone)

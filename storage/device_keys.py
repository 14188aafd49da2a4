"""Keys of devices: identity keys, and the one-time and fallback keys that others claim."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

import asyncpg
import orjson

from matrix.key_objects import without_signatures
from storage.device_lists import mark_pending


class UploadedKey(NamedTuple):
    """A one-time or fallback key; `json` is its canonical form."""

    algorithm: str
    key_id: str
    json: bytes


class DeviceKeysRow(NamedTuple):
    """The identity keys of a device as JSON, and the name that its user gave it.

    A user who has no such device has one row, where all else is None.
    """

    user_id: str
    device_id: str | None
    display_name: str | None
    json: bytes | None


class ClaimedRow(NamedTuple):
    """A key that was given out. `device` is the number of whose it is."""

    user_id: str
    device_id: str
    device: int
    algorithm: str
    key_id: str
    json: bytes


class KeyCountsRow(NamedTuple):
    """What a device has to give: keys by algorithm, and the algorithms of fallback keys that nobody was given."""

    one_time: dict[str, int]
    unused_fallback: list[str]


class KeyIdTaken(Exception):
    """The device has another key by this ID."""


class TooManyKeys(Exception):
    """The device has as many one-time keys as it may have."""


# A device's uploads come one after another, and none once it is gone.
LOCK_DEVICE = "SELECT FROM devices WHERE device = $1 FOR NO KEY UPDATE"
DEVICE_KEYS = "SELECT json FROM device_keys WHERE device = $1"
UPSERT_DEVICE_KEYS = """
INSERT INTO device_keys (device, json) VALUES ($1, $2) ON CONFLICT (device) DO UPDATE SET json = excluded.json
"""
INSERT_ONE_TIME_KEYS = """
INSERT INTO one_time_keys (device, algorithm, key_id, json)
SELECT $1, n.* FROM unnest($2::text[], $3::text[], $4::bytea[]) AS n (algorithm, key_id, json)
WHERE NOT EXISTS (SELECT FROM spent_keys s WHERE s.device = $1 AND s.hash = sha256(n.json))
ON CONFLICT DO NOTHING
"""
DIFFERENT_KEYS = """
SELECT count(*) FROM unnest($2::text[], $3::text[], $4::bytea[]) AS n (algorithm, key_id, json)
JOIN one_time_keys o USING (algorithm, key_id) WHERE o.device = $1 AND o.json <> n.json
"""
DELETE_OLD_SPENT = "DELETE FROM spent_keys WHERE spent_ts < $1"
UPSERT_FALLBACK_KEYS = """
INSERT INTO fallback_keys (device, algorithm, key_id, json)
SELECT $1, * FROM unnest($2::text[], $3::text[], $4::bytea[])
ON CONFLICT (device, algorithm) DO UPDATE SET key_id = excluded.key_id, json = excluded.json, used = false
WHERE fallback_keys.json <> excluded.json OR fallback_keys.key_id <> excluded.key_id
"""
DELETE_ONE_TIME_KEYS = "DELETE FROM one_time_keys WHERE device = $1"
DELETE_FALLBACK_KEYS = "DELETE FROM fallback_keys WHERE device = $1"
ONE_TIME_COUNTS = "SELECT algorithm, count(*) FROM one_time_keys WHERE device = $1 GROUP BY algorithm"
UNUSED_FALLBACK = "SELECT algorithm FROM fallback_keys WHERE device = $1 AND NOT used ORDER BY algorithm"

DEVICE_KEYS_OF_USERS = """
SELECT u.user_id, k.device_id, k.display_name, k.json
FROM users u LEFT JOIN (devices JOIN device_keys USING (device)) k USING (user_id)
WHERE u.user_id = ANY($1::text[]) ORDER BY k.device
"""
DELETE_SIGNATURES = """
DELETE FROM key_signatures s USING devices d WHERE d.device = $1 AND s.user_id = d.user_id AND s.key = d.device_id
"""
# One statement takes all that is asked for. A key that another claim is taking is passed over, so nobody waits and
# nobody gets it twice; rows that have to be marked are locked in one order, so no two claims wait for each other.
CLAIM = """
WITH wanted AS MATERIALIZED (
    SELECT d.device, w.user_id, w.device_id, w.algorithm
    FROM unnest($1::text[], $2::text[], $3::text[]) AS w (user_id, device_id, algorithm)
    JOIN devices d USING (user_id, device_id)
), picked AS MATERIALIZED (
    SELECT k.device, k.algorithm, k.key_id FROM wanted w CROSS JOIN LATERAL (
        SELECT o.device, o.algorithm, o.key_id FROM one_time_keys o
        WHERE o.device = w.device AND o.algorithm = w.algorithm
        ORDER BY o.upload LIMIT 1 FOR UPDATE SKIP LOCKED
    ) k
), taken AS (
    DELETE FROM one_time_keys o USING picked p
    WHERE o.device = p.device AND o.algorithm = p.algorithm AND o.key_id = p.key_id
    RETURNING o.device, o.algorithm, o.key_id, o.json
), spent AS (
    INSERT INTO spent_keys (device, hash, spent_ts) SELECT device, sha256(json), $4 FROM taken ON CONFLICT DO NOTHING
), fallback AS MATERIALIZED (
    SELECT f.device, f.algorithm, f.key_id, f.json, f.used FROM fallback_keys f JOIN wanted w USING (device, algorithm)
    WHERE NOT EXISTS (SELECT FROM taken t WHERE t.device = f.device AND t.algorithm = f.algorithm)
), marked AS (
    UPDATE fallback_keys f SET used = true FROM (
        SELECT device, algorithm FROM fallback_keys
        WHERE NOT used AND (device, algorithm) IN (SELECT device, algorithm FROM fallback WHERE NOT used)
        ORDER BY device, algorithm FOR UPDATE
    ) u WHERE f.device = u.device AND f.algorithm = u.algorithm
)
SELECT w.user_id, w.device_id, g.device, g.algorithm, g.key_id, g.json
FROM wanted w JOIN (
    SELECT device, algorithm, key_id, json FROM taken UNION ALL SELECT device, algorithm, key_id, json FROM fallback
) g USING (device, algorithm)
"""


class DeviceKeyRepository:
    """Stores and gives out keys. Each method is one transaction: when it returns, it is durable."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def upload(
        self,
        user_id: str,
        device: int,
        *,
        device_keys: bytes | None,
        one_time_keys: Sequence[UploadedKey],
        fallback_keys: Sequence[UploadedKey],
        max_one_time_keys: int,
    ) -> tuple[KeyCountsRow, bool] | None:
        """Stores what a device uploads, all or nothing.

        Returns what the device has then, and whether its identity keys are others than before, so that the user's
        device list has to be announced; None when the device is gone. Raises KeyIdTaken, TooManyKeys.
        """
        async with self._pool.acquire() as connection, connection.transaction():
            if await connection.fetchrow(LOCK_DEVICE, device) is None:
                return None
            is_new = device_keys is not None and await _replace_device_keys(connection, device, device_keys)
            counts = await store_keys(connection, device, one_time_keys, fallback_keys)
            if one_time_keys and sum(counts.one_time.values()) > max_one_time_keys:
                raise TooManyKeys
            if is_new:
                await mark_pending(connection, user_id)
            return counts, is_new

    async def load_counts(self, device: int) -> KeyCountsRow:
        """What a device has to give."""
        async with self._pool.acquire() as connection:
            return await load_counts(connection, device)

    async def load_device_keys(self, user_ids: Collection[str]) -> list[DeviceKeysRow]:
        """The identity keys of all devices of these users, of those who have an account here."""
        return [DeviceKeysRow(*row) for row in await self._pool.fetch(DEVICE_KEYS_OF_USERS, list(user_ids))]

    async def claim(self, wanted: Sequence[tuple[str, str, str]], *, now_ms: int) -> list[ClaimedRow]:
        """Takes a key for each (user ID, device ID, algorithm), which are distinct; none where there is none."""
        user_ids, device_ids, algorithms = zip(*wanted, strict=True)
        rows = await self._pool.fetch(CLAIM, list(user_ids), list(device_ids), list(algorithms), now_ms)
        return [ClaimedRow(*row) for row in rows]

    async def forget_spent(self, *, before_ts: int) -> None:
        """Forgets which keys were given out before a time (ms)."""
        await self._pool.execute(DELETE_OLD_SPENT, before_ts)


async def _replace_device_keys(connection: asyncpg.Connection, device: int, device_keys: bytes) -> bool:
    """Stores identity keys unless they are there; with keys that are replaced goes what was said of them, and what
    they have signed."""
    before = await connection.fetchval(DEVICE_KEYS, device)
    if before == device_keys:
        return False
    if before is not None:
        old, new = without_signatures(orjson.loads(before)), without_signatures(orjson.loads(device_keys))
        if old != new:
            await connection.execute(DELETE_SIGNATURES, device)
        if old["keys"] != new["keys"]:  # what the old ones have signed nobody would take any more
            await connection.execute(DELETE_ONE_TIME_KEYS, device)
            await connection.execute(DELETE_FALLBACK_KEYS, device)
    await connection.execute(UPSERT_DEVICE_KEYS, device, device_keys)
    return True


async def store_keys(
    connection: asyncpg.Connection,
    device: int,
    one_time_keys: Sequence[UploadedKey],
    fallback_keys: Sequence[UploadedKey],
) -> KeyCountsRow:
    """Adds one-time keys and replaces fallback keys in a transaction that has the device; returns what there is then.

    Raises KeyIdTaken.
    """
    if one_time_keys:
        columns = list(map(list, zip(*one_time_keys, strict=True)))
        await connection.execute(INSERT_ONE_TIME_KEYS, device, *columns)
        if await connection.fetchval(DIFFERENT_KEYS, device, *columns):
            raise KeyIdTaken
    if fallback_keys:
        await connection.execute(UPSERT_FALLBACK_KEYS, device, *map(list, zip(*fallback_keys, strict=True)))
    return await load_counts(connection, device)


async def load_counts(connection: asyncpg.Connection, device: int) -> KeyCountsRow:
    """What a device has to give."""
    one_time = {row["algorithm"]: row["count"] for row in await connection.fetch(ONE_TIME_COUNTS, device)}
    return KeyCountsRow(one_time, [row["algorithm"] for row in await connection.fetch(UNUSED_FALLBACK, device)])

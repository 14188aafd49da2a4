"""Device lists: when a user's devices or their keys changed last, and who shares rooms with whom.

A change is made in a transaction of its own, which marks the user's list as *pending*; the stream's writer gives it a
position afterwards. What was not given one when the server died is found by its mark.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

import asyncpg


class DeviceListRow(NamedTuple):
    """A user's device list, and the position at which it changed."""

    user_id: str
    position: int


class AnnouncedDeviceRow(NamedTuple):
    """What other servers were told last of a device, as a hash; None for one that is gone. "" has the user's keys."""

    user_id: str
    device_id: str
    hash: bytes | None


class SignatureRow(NamedTuple):
    """A signature of somebody's key: `key` is a device ID or a public key, `signing_key` a key ID of the signer."""

    user_id: str
    key: str
    signer: str
    signing_key: str
    position: int
    signature: str


MARK_PENDING = """
INSERT INTO device_lists (user_id, pending) VALUES ($1, true) ON CONFLICT (user_id) DO UPDATE SET pending = true
"""
PENDING = "SELECT user_id FROM device_lists WHERE pending"
IS_PENDING = "SELECT EXISTS (SELECT FROM device_lists WHERE user_id = $1 AND pending)"
UPSERT_DEVICE_LISTS = """
INSERT INTO device_lists (user_id, position) SELECT * FROM unnest($1::text[], $2::bigint[])
ON CONFLICT (user_id) DO UPDATE SET position = excluded.position, pending = false
"""
HAS_DEVICE_LIST = "SELECT EXISTS (SELECT FROM device_lists WHERE user_id = $1 AND position = $2)"
POSITION = "SELECT position FROM device_lists WHERE user_id = $1"
UPSERT_SIGNATURES = """
INSERT INTO key_signatures (user_id, key, signer, signing_key, position, signature)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::text[])
ON CONFLICT (user_id, key, signer, signing_key)
DO UPDATE SET position = excluded.position, signature = excluded.signature
"""
HAS_SIGNATURE = """
SELECT EXISTS (SELECT FROM key_signatures
    WHERE user_id = $1 AND key = $2 AND signer = $3 AND signing_key = $4 AND position = $5)
"""
# Of the users whose lists changed, and of those whom the user has signed, who concerns the user.
CHANGED = """
SELECT d.user_id FROM device_lists d WHERE d.position > $2 AND (d.user_id = $1 OR EXISTS (
    SELECT FROM memberships m JOIN memberships o USING (room)
    WHERE m.user_id = $1 AND m.membership = 'join' AND o.user_id = d.user_id AND o.membership = 'join'))
UNION SELECT s.user_id FROM key_signatures s WHERE s.signer = $1 AND s.position > $2
"""
# Memberships say what is, not what was: who left and came back after the position is among them, too.
COME = """
SELECT o.user_id FROM memberships m JOIN memberships o USING (room)
WHERE m.user_id = $1 AND m.membership = 'join' AND m.position > $2 AND o.membership = 'join' AND o.user_id <> $1
UNION SELECT o.user_id FROM memberships m JOIN memberships o USING (room)
WHERE m.user_id = $1 AND m.membership = 'join' AND o.position > $2 AND o.membership = 'join' AND o.user_id <> $1
"""
GONE = """
SELECT o.user_id FROM memberships m JOIN memberships o USING (room)
WHERE m.user_id = $1 AND m.membership IN ('leave', 'ban') AND m.position > $2 AND o.user_id <> $1
    AND (o.membership = 'join' OR (o.membership IN ('leave', 'ban') AND o.position > $2))
UNION SELECT o.user_id FROM memberships m JOIN memberships o USING (room)
WHERE m.user_id = $1 AND m.membership = 'join' AND o.position > $2 AND o.membership IN ('leave', 'ban')
    AND o.user_id <> $1
"""
# What became so after the position is for the caller to know.
IN_ROOMS = """
SELECT r.room_id, m.user_id FROM memberships m JOIN rooms r USING (room)
WHERE m.room = ANY($1::int[]) AND m.user_id = ANY($2::text[]) AND m.membership = 'join' AND m.position <= $3
"""
SERVERS = """
SELECT DISTINCT substr(user_id, strpos(user_id, ':') + 1) AS server FROM memberships
WHERE room = ANY($1::int[]) AND membership = 'join'
"""
ANNOUNCED = "SELECT device_id, hash FROM announced_devices WHERE user_id = $1"
UPSERT_ANNOUNCED = """
INSERT INTO announced_devices (user_id, device_id, hash) SELECT * FROM unnest($1::text[], $2::text[], $3::bytea[])
ON CONFLICT (user_id, device_id) DO UPDATE SET hash = excluded.hash
"""
DELETE_ANNOUNCED = """
DELETE FROM announced_devices WHERE (user_id, device_id) IN (SELECT * FROM unnest($1::text[], $2::text[]))
"""
MEMBERS = "SELECT DISTINCT user_id FROM memberships WHERE room = ANY($1::int[]) AND membership = 'join'"


async def mark_pending(connection: asyncpg.Connection, user_id: str) -> None:
    """Notes, last in the transaction that changes it, that a user's device list has to be announced."""
    await connection.execute(MARK_PENDING, user_id)


async def upsert_device_lists(connection: asyncpg.Connection, rows: Sequence[DeviceListRow]) -> None:
    """Writes when lists changed, in one statement; of several of one user the last counts."""
    newest = {row.user_id: row for row in rows}
    await connection.execute(UPSERT_DEVICE_LISTS, *map(list, zip(*sorted(newest.values()), strict=True)))


async def upsert_signatures(connection: asyncpg.Connection, rows: Sequence[SignatureRow]) -> None:
    """Writes signatures in one statement; of several by one key for another the last counts."""
    newest = {row[:4]: row for row in rows}
    await connection.execute(UPSERT_SIGNATURES, *map(list, zip(*newest.values(), strict=True)))


async def upsert_announced_devices(connection: asyncpg.Connection, rows: Sequence[AnnouncedDeviceRow]) -> None:
    """Notes what other servers were told; of several rows for one device the last counts."""
    newest = {row[:2]: row for row in rows}.values()
    kept = [row for row in newest if row.hash is not None]
    gone = [row for row in newest if row.hash is None]
    columns = zip(*kept, strict=True) if kept else ((), (), ())
    await connection.execute(UPSERT_ANNOUNCED, *map(list, columns))
    await connection.execute(DELETE_ANNOUNCED, [row.user_id for row in gone], [row.device_id for row in gone])


class DeviceListRepository:
    """Reads of device lists and of who is in rooms with whom."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def load_pending(self) -> list[str]:
        """The users whose lists have changed and were not announced."""
        return [row["user_id"] for row in await self._pool.fetch(PENDING)]

    async def is_pending(self, user_id: str) -> bool:
        """Whether a user's list has changed and was not announced."""
        return bool(await self._pool.fetchval(IS_PENDING, user_id))

    async def load_position(self, user_id: str) -> int:
        """When a user's list changed last; 0 for never."""
        return int(await self._pool.fetchval(POSITION, user_id) or 0)

    async def load_changed(self, user_id: str, after: int) -> set[str]:
        """Whose lists changed after a position, of those in rooms with a user, of the user, and of whom they signed."""
        return {row["user_id"] for row in await self._pool.fetch(CHANGED, user_id, after)}

    async def load_come(self, user_id: str, after: int) -> set[str]:
        """Who is in rooms with a user, one of them having come after a position."""
        return {row["user_id"] for row in await self._pool.fetch(COME, user_id, after)}

    async def load_gone(self, user_id: str, after: int) -> set[str]:
        """With whom a user may have shared a room that one of them left after a position."""
        return {row["user_id"] for row in await self._pool.fetch(GONE, user_id, after)}

    async def load_in_rooms(
        self, rooms: Sequence[int], user_ids: Collection[str], *, up_to: int
    ) -> set[tuple[str, str]]:
        """(room ID, user ID) of those of the users who are in the rooms since a position or longer."""
        rows = await self._pool.fetch(IN_ROOMS, list(rooms), list(user_ids), up_to)
        return {(row["room_id"], row["user_id"]) for row in rows}

    async def load_servers(self, rooms: Sequence[int]) -> set[str]:
        """The servers of those who are joined to one of the rooms."""
        return {row["server"] for row in await self._pool.fetch(SERVERS, list(rooms))}

    async def load_announced(self, user_id: str) -> dict[str, bytes]:
        """Device ID -> hash of what other servers were told last of a user's devices."""
        return {row["device_id"]: row["hash"] for row in await self._pool.fetch(ANNOUNCED, user_id)}

    async def load_members(self, rooms: Sequence[int]) -> set[str]:
        """Everyone who is joined to one of the rooms."""
        return {row["user_id"] for row in await self._pool.fetch(MEMBERS, list(rooms))}

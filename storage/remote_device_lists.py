"""Devices and keys of other servers' users, as their servers told last."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import asyncpg

LISTS = "SELECT user_id, stream_id, position, stale, json FROM remote_device_lists WHERE user_id = ANY($1::text[])"
UPSERT_LISTS = """
INSERT INTO remote_device_lists (user_id, stream_id, position, stale, json)
SELECT * FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::boolean[], $5::bytea[])
ON CONFLICT (user_id) DO UPDATE
SET stream_id = excluded.stream_id, position = excluded.position, stale = excluded.stale, json = excluded.json
"""
# Since when users have been in rooms with somebody of this server ($2) without a break.
SHARED_SINCE = """
WITH theirs AS (
    SELECT user_id, room, position FROM memberships WHERE user_id = ANY($1::text[]) AND membership = 'join'),
ours AS (
    SELECT room, min(position) AS position FROM memberships
    WHERE membership = 'join' AND substr(user_id, strpos(user_id, ':') + 1) = $2 AND room IN (SELECT room FROM theirs)
    GROUP BY room)
SELECT t.user_id, min(greatest(t.position, o.position)) AS since FROM theirs t JOIN ours o USING (room)
GROUP BY t.user_id
"""
# Of users who are in no room that is known here nothing is heard any more.
DELETE_UNSHARED = """
DELETE FROM remote_device_lists r
WHERE NOT EXISTS (SELECT FROM memberships m WHERE m.user_id = r.user_id AND m.membership = 'join')
"""


class RemoteListRow(NamedTuple):
    """A user's devices and keys: `json` has `device_keys` (device ID -> keys), `master_key` and `self_signing_key`.

    `stream_id` is that of the last change in it, 0 for unknown; `position` the stream's when it was asked for; `stale`:
    there was a change that is not in it.
    """

    user_id: str
    stream_id: int
    position: int
    stale: bool
    json: bytes


class RemoteDeviceListRepository:
    """Reads and writes of what is kept of other servers' users' devices."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def load(self, user_ids: Iterable[str]) -> dict[str, RemoteListRow]:
        """What is kept of these users."""
        return {row["user_id"]: RemoteListRow(*row) for row in await self._pool.fetch(LISTS, list(user_ids))}

    async def load_shared_since(self, user_ids: Iterable[str], server_name: str) -> dict[str, int]:
        """From which position on each of the users has shared a room with somebody here; without those who do not."""
        rows = await self._pool.fetch(SHARED_SINCE, list(user_ids), server_name)
        return {row["user_id"]: row["since"] for row in rows}

    async def persist(self, rows: Iterable[RemoteListRow]) -> None:
        """Keeps users' devices, in one statement; each of them once."""
        if columns := list(zip(*rows, strict=True)):
            await self._pool.execute(UPSERT_LISTS, *columns)

    async def delete_unshared(self) -> None:
        """Forgets those who are in no room any more."""
        await self._pool.execute(DELETE_UNSHARED)

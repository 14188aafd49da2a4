"""Pushers, and how far each of them has come."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import asyncpg


class PusherRow(NamedTuple):
    """A pusher. `pusher` is its number, `device` the one that made it (None: no device's), `data` JSON.

    `pushed_up_to` is the position up to which everything has been pushed, None if it does not lag behind the others;
    `set_ts` (ms) is when it was set last. `mail_due_ts` (ms): when one of kind `email` is to look at what is unread,
    `mail_failures`: how many of its mails have failed.
    """

    pusher: int
    user_id: str
    device: int | None
    app_id: str
    pushkey: str
    kind: str
    app_display_name: str
    device_display_name: str
    profile_tag: str | None
    lang: str
    data: bytes
    set_ts: int
    pushed_up_to: int | None
    mail_due_ts: int | None = None
    mail_failures: int = 0


_COLUMNS = """
pusher, user_id, device, app_id, pushkey, kind, app_display_name, device_display_name, profile_tag, lang, data, set_ts,
pushed_up_to, mail_due_ts, mail_failures
"""
USERS_WITH_PUSHERS = "SELECT DISTINCT user_id FROM pushers"
PUSHERS_OF_USER = f"SELECT {_COLUMNS} FROM pushers WHERE user_id = $1 ORDER BY pusher"
LAGGING_USERS = "SELECT DISTINCT user_id FROM pushers WHERE pushed_up_to IS NOT NULL ORDER BY user_id"
LOCK_USER = "SELECT FROM users WHERE user_id = $1 FOR NO KEY UPDATE"
COUNT_OTHERS = "SELECT count(*) FROM pushers WHERE user_id = $1 AND NOT (app_id = $2 AND pushkey = $3)"
# What it is to be told stays where it was: who sets a pusher again has missed nothing.
UPSERT_PUSHER = f"""
INSERT INTO pushers (
    user_id, device, app_id, pushkey, kind, app_display_name, device_display_name, profile_tag, lang, data, set_ts
) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
ON CONFLICT (user_id, app_id, pushkey) DO UPDATE
SET device = excluded.device, kind = excluded.kind, app_display_name = excluded.app_display_name,
    device_display_name = excluded.device_display_name, profile_tag = excluded.profile_tag, lang = excluded.lang,
    data = excluded.data, set_ts = excluded.set_ts
RETURNING {_COLUMNS}
"""
DELETE_OF_OTHERS = "DELETE FROM pushers WHERE app_id = $2 AND pushkey = $3 AND user_id <> $1 RETURNING user_id"
DELETE_PUSHER = "DELETE FROM pushers WHERE user_id = $1 AND app_id = $2 AND pushkey = $3"

PROGRESS = "SELECT position FROM push_progress"
SAVE_PROGRESS = """
INSERT INTO push_progress (position) VALUES ($1) ON CONFLICT (only_row) DO UPDATE SET position = excluded.position
"""
SAVE_LAGS = """
UPDATE pushers SET pushed_up_to = lag.position
FROM unnest($1::bigint[], $2::bigint[]) AS lag (pusher, position) WHERE pushers.pusher = lag.pusher
"""
# What may concern somebody who has pushers: the newest events after a position. Invitations to rooms that nobody here
# is in are outliers that notify.
EVENTS_AFTER = """
SELECT e.position FROM events e
WHERE e.position > $1 AND e.position <= $2 AND (e.kind = 0 OR e.kind = 1 AND e.notifies) AND EXISTS (
    SELECT FROM memberships m JOIN pushers p USING (user_id)
    WHERE m.room = e.room AND m.membership IN ('join', 'invite'))
ORDER BY e.position DESC LIMIT $3
"""
# The rooms in which something has happened that a member has not read: all others have an unread count of 0.
ROOMS_WITH_NEWS = """
SELECT r.room_id FROM memberships m JOIN rooms r USING (room)
CROSS JOIN LATERAL (
    SELECT position FROM events e WHERE e.room = m.room AND e.kind = 0 ORDER BY position DESC LIMIT 1) newest
WHERE m.user_id = $1 AND m.membership = 'join' AND newest.position > m.position AND newest.position > coalesce((
    SELECT max(event_position) FROM receipts
    WHERE receipts.room = m.room AND receipts.user_id = $1 AND thread_id = ''), 0)
"""


class PusherRepository:
    """Reads and writes pushers. When a write returns, it is durable."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def load_users(self) -> set[str]:
        """Everybody who has pushers."""
        return {row["user_id"] for row in await self._pool.fetch(USERS_WITH_PUSHERS)}

    async def load_lagging_users(self) -> list[str]:
        """Those of them who have pushers that lag behind."""
        return [row["user_id"] for row in await self._pool.fetch(LAGGING_USERS)]

    async def load_of_user(self, user_id: str) -> list[PusherRow]:
        """A user's pushers, oldest first."""
        return [PusherRow(*row) for row in await self._pool.fetch(PUSHERS_OF_USER, user_id)]

    async def upsert(self, row: PusherRow, *, append: bool, max_per_user: int) -> tuple[PusherRow | None, list[str]]:
        """Makes or changes a pusher (its number and progress are the database's); without `append`, others lose theirs.

        Returns it as it is now, None if the user would have too many, and which other users lost theirs.
        """
        key = (row.user_id, row.app_id, row.pushkey)
        async with self._pool.acquire() as connection, connection.transaction():
            await connection.execute(LOCK_USER, row.user_id)
            if await connection.fetchval(COUNT_OTHERS, *key) >= max_per_user:
                return None, []
            others = [] if append else await connection.fetch(DELETE_OF_OTHERS, *key)
            made = await connection.fetchrow(UPSERT_PUSHER, row.user_id, row.device, *row[3:12])
            return PusherRow(*made), [other["user_id"] for other in others]

    async def delete(self, user_id: str, app_id: str, pushkey: str) -> None:
        """Removes a pusher, if it is there."""
        await self._pool.execute(DELETE_PUSHER, user_id, app_id, pushkey)

    async def load_progress(self) -> int | None:
        """How far all have come that do not lag behind; None if that was never written."""
        position = await self._pool.fetchval(PROGRESS)
        return None if position is None else int(position)

    async def save_progress(self, position: int, lags: Mapping[int, int | None]) -> None:
        """Notes how far all have come but some; `lags`: pusher -> how far it has come, None if it lags no more."""
        async with self._pool.acquire() as connection, connection.transaction():
            await connection.execute(SAVE_PROGRESS, position)
            if lags:
                await connection.execute(SAVE_LAGS, list(lags), list(lags.values()))

    async def load_events_after(self, position: int, *, up_to: int, limit: int) -> list[int]:
        """The positions of the newest events after one that may concern somebody who has pushers, in order."""
        rows = await self._pool.fetch(EVENTS_AFTER, position, up_to, limit)
        return [row["position"] for row in reversed(rows)]

    async def load_rooms_with_news(self, user_id: str) -> list[str]:
        """The joined rooms in which there is something that a user has not read."""
        return [row["room_id"] for row in await self._pool.fetch(ROOMS_WITH_NEWS, user_id)]

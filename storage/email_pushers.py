"""Pushers of kind `email`: when each is to look at what is unread, and what it has told of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import asyncpg


class DuePusher(NamedTuple):
    """A pusher that is to look: its number, the user, since when (ms) it is due, and how many mails have failed."""

    pusher: int
    user_id: str
    due_ts: int
    failures: int


class MailedRoom(NamedTuple):
    """What a pusher has told of a room: up to which position, when, and how long (ms) it then waits for the user."""

    room: int
    up_to: int
    mailed_ts: int
    interval_ms: int


DUE = """
SELECT pusher, user_id, mail_due_ts, mail_failures FROM pushers
WHERE mail_due_ts <= $1 AND kind = 'email' ORDER BY mail_due_ts LIMIT $2
"""
NEXT_DUE_TS = "SELECT min(mail_due_ts) FROM pushers WHERE kind = 'email'"
ARM = """
UPDATE pushers SET mail_due_ts = $2, mail_after = coalesce(mail_after, $3) WHERE pusher = $1
"""
MAIL_AFTER = "SELECT coalesce(mail_after, 0) FROM pushers WHERE pusher = $1"
MAILED_ROOMS = "SELECT room, up_to, mailed_ts, interval_ms FROM mailed_rooms WHERE pusher = $1"
# Unless it was set to look again meanwhile.
FINISH = """
UPDATE pushers SET mail_due_ts = $3, mail_failures = $4 WHERE pusher = $1 AND mail_due_ts = $2
"""
UPSERT_MAILED = """
INSERT INTO mailed_rooms (pusher, room, up_to, mailed_ts, interval_ms)
SELECT $1, * FROM unnest($2::int[], $3::bigint[], $4::bigint[], $5::bigint[])
ON CONFLICT (pusher, room) DO UPDATE
SET up_to = excluded.up_to, mailed_ts = excluded.mailed_ts, interval_ms = excluded.interval_ms
"""
EXISTS = "SELECT FROM pushers WHERE pusher = $1 FOR UPDATE"
DELETE = "DELETE FROM pushers WHERE pusher = $1 AND kind = 'email' RETURNING user_id, app_id, pushkey"


class EmailPusherRepository:
    """Reads and writes them. Each method is one transaction."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def load_due(self, now_ms: int, *, limit: int) -> list[DuePusher]:
        """The pushers that are to look now, the oldest first."""
        return [DuePusher(*row) for row in await self._pool.fetch(DUE, now_ms, limit)]

    async def load_next_due_ts(self) -> int | None:
        """When (ms) the next is to look; None if none is."""
        due_ts = await self._pool.fetchval(NEXT_DUE_TS)
        return None if due_ts is None else int(due_ts)

    async def arm(self, pusher: int, due_ts: int, *, after: int) -> None:
        """Has a pusher look at a time; one that never had to has nothing to tell of what is at `after` or before."""
        await self._pool.execute(ARM, pusher, due_ts, after)

    async def load_told(self, pusher: int) -> tuple[int, list[MailedRoom]]:
        """Up to which position nothing is told of, and what has been told of rooms."""
        after = await self._pool.fetchval(MAIL_AFTER, pusher)
        return int(after or 0), [MailedRoom(*row) for row in await self._pool.fetch(MAILED_ROOMS, pusher)]

    async def finish(
        self, pusher: int, due_ts: int, next_due_ts: int | None, told: Sequence[MailedRoom], *, failures: int
    ) -> None:
        """Notes what a pusher that was due at `due_ts` has told of, and when it is to look again."""
        async with self._pool.acquire() as connection, connection.transaction():
            if await connection.execute(EXISTS, pusher) == "SELECT 0":
                return
            await connection.execute(FINISH, pusher, due_ts, next_due_ts, failures)
            if told:
                columns = [list(column) for column in zip(*told, strict=True)]
                await connection.execute(UPSERT_MAILED, pusher, *columns)

    async def delete(self, pusher: int) -> tuple[str, str, str] | None:
        """Removes a pusher; returns whose it was, its app ID and pushkey. None if there is none any more."""
        row = await self._pool.fetchrow(DELETE, pusher)
        return None if row is None else (row["user_id"], row["app_id"], row["pushkey"])

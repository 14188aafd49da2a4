"""What users say of themselves in their presence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import asyncpg


class StatusRow(NamedTuple):
    """A user's status message as UTF-8, None for none; `position` is when it changed."""

    user_id: str
    status_msg: bytes | None
    position: int


UPSERT_STATUSES = """
INSERT INTO presence (user_id, status_msg, position) SELECT * FROM unnest($1::text[], $2::bytea[], $3::bigint[])
ON CONFLICT (user_id) DO UPDATE SET status_msg = excluded.status_msg, position = excluded.position
"""
STATUSES = "SELECT user_id, status_msg FROM presence WHERE user_id = ANY($1::text[]) AND status_msg IS NOT NULL"
HAS_STATUS = "SELECT EXISTS (SELECT FROM presence WHERE user_id = $1 AND position = $2)"


async def upsert_statuses(connection: asyncpg.Connection, rows: Sequence[StatusRow]) -> None:
    """Writes status messages in one statement; of several of one user the last counts."""
    newest = {row.user_id: row for row in rows}
    await connection.execute(UPSERT_STATUSES, *map(list, zip(*newest.values(), strict=True)))


class PresenceRepository:
    """Reads status messages."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def load_statuses(self, user_ids: Sequence[str]) -> dict[str, str]:
        """User ID -> status message, of those who have one."""
        rows = await self._pool.fetch(STATUSES, list(user_ids))
        return {row["user_id"]: bytes(row["status_msg"]).decode() for row in rows}

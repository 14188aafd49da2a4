"""Which servers do not answer, and when to try them again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import asyncpg


class DestinationRow(NamedTuple):
    """A server that fails, since when (ms since the epoch), the last wait in ms, and when to try it next."""

    destination: str
    failing_since_ts: int
    retry_after_ms: int
    retry_ts: int


UPSERT_FAILING = """
INSERT INTO destinations (destination, failing_since_ts, retry_after_ms, retry_ts)
SELECT * FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::bigint[])
ON CONFLICT (destination) DO UPDATE SET failing_since_ts = excluded.failing_since_ts,
    retry_after_ms = excluded.retry_after_ms, retry_ts = excluded.retry_ts
"""
DELETE_RECOVERED = "DELETE FROM destinations WHERE destination = ANY($1::text[])"
# Those that failed last are the ones worth knowing of.
FAILING = """
SELECT destination, failing_since_ts, retry_after_ms, retry_ts FROM destinations ORDER BY retry_ts DESC LIMIT $1
"""


class DestinationRepository:
    """Keeps the servers that fail. Each method is one transaction."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def load_failing(self, limit: int) -> list[DestinationRow]:
        """Up to `limit` servers that failed when last tried, the last ones to be tried again first."""
        return [DestinationRow(*row) for row in await self._pool.fetch(FAILING, limit)]

    async def persist(self, failing: Sequence[DestinationRow], recovered: Sequence[str]) -> None:
        """Writes what changed."""
        async with self._pool.acquire() as connection, connection.transaction():
            if recovered:
                await connection.execute(DELETE_RECOVERED, list(recovered))
            if failing:
                await connection.execute(UPSERT_FAILING, *map(list, zip(*failing, strict=True)))

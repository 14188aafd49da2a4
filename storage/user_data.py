"""What belongs to a user beside rooms and devices: account data, filters, receipts, personal counts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import asyncpg

GLOBAL = 0  # the `room` of account data that belongs to no room


class AccountDataRow(NamedTuple):
    """One piece of account data; `content` is its JSON."""

    user_id: str
    room: int
    type: str
    content: bytes
    position: int


class ReceiptRow(NamedTuple):
    """Where a user has read to; the counts are the room's running counts at that event. `ts` is in milliseconds."""

    room: int
    user_id: str
    type: str
    thread_id: str
    position: int
    event_id: str
    event_position: int
    ts: int
    notify_count: int
    highlight_count: int


class PersonalCountRow(NamedTuple):
    """What an event adds to one member's counts beyond what it adds to everyone's."""

    room: int
    user_id: str
    position: int
    notify: int
    highlight: int


UPSERT_ACCOUNT_DATA = """
INSERT INTO account_data (user_id, room, type, content, position)
SELECT * FROM unnest($1::text[], $2::int[], $3::text[], $4::bytea[], $5::bigint[])
ON CONFLICT (user_id, room, type) DO UPDATE SET content = excluded.content, position = excluded.position
"""
ACCOUNT_DATA = "SELECT user_id, room, type, content, position FROM account_data WHERE user_id = $1"

UPSERT_RECEIPTS = """
INSERT INTO receipts
SELECT * FROM unnest($1::int[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::text[], $7::bigint[],
    $8::bigint[], $9::int[], $10::int[])
ON CONFLICT (room, user_id, type, thread_id) DO UPDATE
SET position = excluded.position, event_id = excluded.event_id, event_position = excluded.event_position,
    ts = excluded.ts, notify_count = excluded.notify_count, highlight_count = excluded.highlight_count
"""
RECEIPTS_OF_ROOM = """
SELECT room, user_id, type, thread_id, position, event_id, event_position, ts, notify_count, highlight_count
FROM receipts WHERE room = $1 ORDER BY position
"""

INSERT_PERSONAL_COUNTS = """
INSERT INTO personal_counts SELECT * FROM unnest($1::int[], $2::text[], $3::bigint[], $4::smallint[], $5::smallint[])
"""
DELETE_PERSONAL_COUNTS = "DELETE FROM personal_counts WHERE room = $1 AND position = ANY($2::bigint[])"

FILTER = "SELECT filter FROM filters WHERE user_id = $1 AND filter_id = $2"
FILTERS = "SELECT filter_id, filter FROM filters WHERE user_id = $1 FOR UPDATE"
LOCK_USER = "SELECT 1 FROM users WHERE user_id = $1 FOR UPDATE"
INSERT_FILTER = "INSERT INTO filters (user_id, filter_id, filter) VALUES ($1, $2, $3)"


async def upsert_account_data(connection: asyncpg.Connection, rows: Sequence[AccountDataRow]) -> None:
    """Writes account data in one statement; of several for one key the last counts."""
    newest = {row[:3]: row for row in rows}
    await connection.execute(UPSERT_ACCOUNT_DATA, *map(list, zip(*newest.values(), strict=True)))


async def upsert_receipts(connection: asyncpg.Connection, rows: Sequence[ReceiptRow]) -> None:
    """Writes receipts in one statement; of several for one key the last counts."""
    newest = {row[:4]: row for row in rows}
    await connection.execute(UPSERT_RECEIPTS, *map(list, zip(*newest.values(), strict=True)))


async def insert_personal_counts(connection: asyncpg.Connection, rows: Sequence[PersonalCountRow]) -> None:
    """Writes personal counts in one statement."""
    await connection.execute(INSERT_PERSONAL_COUNTS, *map(list, zip(*rows, strict=True)))


async def delete_personal_counts(connection: asyncpg.Connection, room: int, positions: Sequence[int]) -> None:
    """Takes back what events (now redacted) added to members' counts."""
    await connection.execute(DELETE_PERSONAL_COUNTS, room, list(positions))


class UserDataRepository:
    """Reads of account data, receipts and counts; filters."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def load_account_data(self, user_id: str) -> list[AccountDataRow]:
        """All of a user's account data, global and per room."""
        return [AccountDataRow(*row) for row in await self._pool.fetch(ACCOUNT_DATA, user_id)]

    async def load_receipts(self, room: int) -> list[ReceiptRow]:
        """All receipts of a room, oldest change first."""
        return [ReceiptRow(*row) for row in await self._pool.fetch(RECEIPTS_OF_ROOM, room)]

    async def load_filter(self, user_id: str, filter_id: int) -> bytes | None:
        """The JSON of a stored filter."""
        found = await self._pool.fetchval(FILTER, user_id, filter_id)
        return None if found is None else bytes(found)

    async def insert_filter(self, user_id: str, filter_json: bytes, *, max_filters: int) -> int | None:
        """Stores a filter, or finds the same one stored earlier; returns its number, None when there are too many."""
        async with self._pool.acquire() as connection, connection.transaction():
            await connection.execute(LOCK_USER, user_id)
            stored = {bytes(row["filter"]): row["filter_id"] for row in await connection.fetch(FILTERS, user_id)}
            if (known := stored.get(filter_json)) is not None:
                return int(known)
            if len(stored) >= max_filters:
                return None
            await connection.execute(INSERT_FILTER, user_id, len(stored), filter_json)
            return len(stored)

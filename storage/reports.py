"""What users have reported to the administrators."""

from __future__ import annotations

from typing import NamedTuple

import asyncpg


class ReportRow(NamedTuple):
    """A report, of a room, of an event in it, or of a user; what it is not about is None."""

    report: int
    received_ts: int
    reporter: str
    room_id: str | None
    event_id: str | None
    user_id: str | None
    reason: str


INSERT_REPORT = """
INSERT INTO reports (received_ts, reporter, room_id, event_id, user_id, reason) VALUES ($1, $2, $3, $4, $5, $6)
"""
REPORTS = """
SELECT report, received_ts, reporter, room_id, event_id, user_id, reason FROM reports
WHERE report > $1 ORDER BY report LIMIT $2
"""


class ReportRepository:
    """Keeps reports until an administrator has read them."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def insert_report(
        self,
        reporter: str,
        *,
        received_ts: int,
        reason: str,
        room_id: str | None = None,
        event_id: str | None = None,
        user_id: str | None = None,
    ) -> None:
        """Keeps a report: of an event with its room, of a room, or of a user."""
        await self._pool.execute(INSERT_REPORT, received_ts, reporter, room_id, event_id, user_id, reason)

    async def load_reports(self, *, after: int = 0, limit: int) -> list[ReportRow]:
        """Up to `limit` reports above number `after`, oldest first."""
        return [ReportRow(*row) for row in await self._pool.fetch(REPORTS, after, limit)]

"""Digests that people have ordered."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from appservices.summary_bot.storage.database import Database
from appservices.summary_bot.storage.jobs import INSERT_JOBS, NewJob, job_columns

SET_SCHEDULE = """
INSERT INTO schedules (room_id, user_id, target_room, every, minute_of_day, zone, next_ts)
VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT (room_id, user_id) DO UPDATE SET
    target_room = EXCLUDED.target_room, every = EXCLUDED.every, minute_of_day = EXCLUDED.minute_of_day,
    zone = EXCLUDED.zone, next_ts = EXCLUDED.next_ts
"""
DELETE_SCHEDULE = "DELETE FROM schedules WHERE room_id = $1 AND user_id = $2"
COLUMNS = "schedule, room_id, user_id, target_room, every, minute_of_day, zone, next_ts"
LOAD_SCHEDULE = f"SELECT {COLUMNS} FROM schedules WHERE room_id = $1 AND user_id = $2"
LOAD_DUE = f"SELECT {COLUMNS} FROM schedules WHERE next_ts <= $1 ORDER BY next_ts LIMIT $2 FOR UPDATE SKIP LOCKED"
SET_NEXT = "UPDATE schedules SET next_ts = $2 WHERE schedule = $1"
NEXT_DUE = "SELECT min(next_ts) FROM schedules"

MAX_AT_ONCE = 100


@dataclass(frozen=True, slots=True)
class ScheduleRow:
    """An order. `target_room` is the room itself where everybody gets the digest, else None."""

    schedule: int
    room_id: str
    user_id: str
    target_room: str | None
    every: str
    minute_of_day: int
    zone: str
    next_ts: int


class ScheduleRepository:
    """Reads and writes orders."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def set_schedule(self, row: ScheduleRow) -> None:
        """Orders a digest, in the place of what the person had ordered in the room."""
        await self._database.pool.execute(
            SET_SCHEDULE,
            row.room_id,
            row.user_id,
            row.target_room,
            row.every,
            row.minute_of_day,
            row.zone,
            row.next_ts,
        )

    async def delete_schedule(self, room_id: str, user_id: str) -> None:
        """Ends an order."""
        await self._database.pool.execute(DELETE_SCHEDULE, room_id, user_id)

    async def load_schedule(self, room_id: str, user_id: str) -> ScheduleRow | None:
        """What somebody has ordered in a room."""
        row = await self._database.pool.fetchrow(LOAD_SCHEDULE, room_id, user_id)
        return None if row is None else ScheduleRow(**dict(row))

    async def load_next_due(self) -> int | None:
        """When the first of all digests is due."""
        found: int | None = await self._database.pool.fetchval(NEXT_DUE)
        return found

    async def queue_due(self, now: int, plan: Callable[[ScheduleRow], tuple[NewJob, int]]) -> int:
        """Queues what is due and sets when it is due next, in one transaction; how many."""
        async with self._database.transaction() as connection:
            due = [ScheduleRow(**dict(row)) for row in await connection.fetch(LOAD_DUE, now, MAX_AT_ONCE)]
            jobs: Sequence[NewJob] = [job for job, _ in map(plan, due)]
            if jobs:
                await connection.execute(INSERT_JOBS, *job_columns(jobs))
            for row in due:
                await connection.execute(SET_NEXT, row.schedule, plan(row)[1])
        return len(due)

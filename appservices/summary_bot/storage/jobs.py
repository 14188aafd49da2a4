"""The queue: what the bot has been asked and has not answered yet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from appservices.summary_bot.storage.database import Database

MAX_ATTEMPTS = 5
"""A job that was begun this often and never ended is given up: it ends the bot each time."""

INSERT_JOBS = """
INSERT INTO jobs (kind, room_id, asker, event_id, payload, created_ts, run_at)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bytea[], $6::bigint[], $7::bigint[])
ON CONFLICT (event_id, kind) DO NOTHING
"""

# Housekeeping before questions, and of each person one question at a time, so that nobody's twenty hold up the rest.
CLAIM_JOB = """
UPDATE jobs SET running = true, attempts = attempts + 1
WHERE job = (
    SELECT job FROM jobs AS waiting
    WHERE NOT running AND run_at <= $1 AND NOT (kind = ANY($2::text[]) AND EXISTS (
        SELECT FROM jobs AS other WHERE other.asker = waiting.asker AND other.running AND other.kind = ANY($2::text[])
    ))
    AND NOT ($3 AND kind = ANY($2::text[]))
    ORDER BY kind = ANY($2::text[]), job LIMIT 1 FOR UPDATE SKIP LOCKED
)
RETURNING job, kind, room_id, asker, event_id, payload, created_ts, attempts
"""

NEXT_RUN = "SELECT min(run_at) FROM jobs WHERE NOT running AND run_at > $1"
DELETE_JOB = "DELETE FROM jobs WHERE job = $1"
RELEASE_JOB = "UPDATE jobs SET running = false, run_at = $2 WHERE job = $1"
RELEASE_ALL = "UPDATE jobs SET running = false WHERE running"
COUNT_WAITING = """
SELECT count(*) FILTER (WHERE asker = $1 AND job < $2) AS of_person, count(*) FILTER (WHERE job < $2) AS of_all
FROM jobs WHERE kind = ANY($3::text[])
"""
COUNT_JOBS = "SELECT count(*) FROM jobs"
JOB_EXISTS = "SELECT EXISTS (SELECT FROM jobs WHERE job = $1)"

QUESTIONS = ("command", "digest")
"""The kinds of job that somebody waits for, and that may take long."""


@dataclass(frozen=True, slots=True)
class NewJob:
    """Something to do. `payload` is JSON; `event_id` makes it happen once."""

    kind: str
    room_id: str
    asker: str
    event_id: str
    payload: bytes
    created_ts: int
    run_at: int


@dataclass(frozen=True, slots=True)
class Job:
    """A job that was claimed."""

    job: int
    kind: str
    room_id: str
    asker: str
    event_id: str
    payload: bytes
    created_ts: int
    attempts: int


def job_columns(jobs: Sequence[NewJob]) -> tuple[list[Any], ...]:
    """The arguments of INSERT_JOBS."""
    names = ("kind", "room_id", "asker", "event_id", "payload", "created_ts", "run_at")
    return tuple([getattr(job, name) for job in jobs] for name in names)


class JobRepository:
    """Reads and writes the queue."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def persist_jobs(self, jobs: Sequence[NewJob]) -> None:
        """Queues jobs; those that are there already stay as they are."""
        await self._database.pool.execute(INSERT_JOBS, *job_columns(jobs))

    async def claim(self, now: int, *, housekeeping: bool = False) -> Job | None:
        """The next job to do, marked as running; None when nothing is due. `housekeeping`: no question."""
        row = await self._database.pool.fetchrow(CLAIM_JOB, now, list(QUESTIONS), housekeeping)
        return None if row is None else Job(**dict(row))

    async def load_next_run(self, now: int) -> int | None:
        """When the first of the jobs that are not due yet is due."""
        found: int | None = await self._database.pool.fetchval(NEXT_RUN, now)
        return found

    async def finish(self, job: int) -> None:
        """Takes a job off the queue."""
        await self._database.pool.execute(DELETE_JOB, job)

    async def release(self, job: int, *, run_at: int) -> None:
        """Puts a job back, to be tried again later."""
        await self._database.pool.execute(RELEASE_JOB, job, run_at)

    async def release_all(self) -> None:
        """Puts back what was running when the bot stopped: called at the start, when nothing runs."""
        await self._database.pool.execute(RELEASE_ALL)

    async def load_ahead(self, asker: str, job: int) -> tuple[int, int]:
        """How many questions are in the queue before this one: of the same person, and of all."""
        row = await self._database.pool.fetchrow(COUNT_WAITING, asker, job, list(QUESTIONS))
        return row["of_person"], row["of_all"]

    async def count(self) -> int:
        """How many jobs there are."""
        found: int = await self._database.pool.fetchval(COUNT_JOBS)
        return found

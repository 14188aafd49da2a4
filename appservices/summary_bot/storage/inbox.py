"""What a transaction of the homeserver brings, stored in one database transaction and once only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from appservices.summary_bot.storage.database import Connection, Database
from appservices.summary_bot.storage.devices import FORGET_USERS, NOTE_CHANGES
from appservices.summary_bot.storage.jobs import INSERT_JOBS, NewJob, job_columns
from appservices.summary_bot.storage.room_keys import DELETE_OUTBOUNDS
from appservices.summary_bot.storage.sealed import DELETE_EVENTS, NewSealedEvent, write_sealed

INSERT_TRANSACTION = """
INSERT INTO transactions (transaction_id, received_ts) VALUES ($1, $2) ON CONFLICT DO NOTHING RETURNING 1
"""

# Whoever comes back after a pause has left off where they were before it: that is where "what is new" begins.
UPSERT_READING = """
INSERT INTO reading AS r (room_id, user_id, event_id, ts)
SELECT DISTINCT ON (room_id, user_id) room_id, user_id, event_id, ts
FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[]) AS new (room_id, user_id, event_id, ts)
WHERE EXISTS (SELECT FROM rooms WHERE rooms.room_id = new.room_id AND enabled)
ORDER BY room_id, user_id, ts DESC
ON CONFLICT (room_id, user_id) DO UPDATE SET
    left_off_event_id = CASE WHEN EXCLUDED.ts > r.ts + $5 THEN r.event_id ELSE r.left_off_event_id END,
    left_off_ts = CASE WHEN EXCLUDED.ts > r.ts + $5 THEN r.ts ELSE r.left_off_ts END,
    event_id = EXCLUDED.event_id, ts = EXCLUDED.ts
WHERE EXCLUDED.ts >= r.ts
"""

INSERT_REDACTIONS = """
INSERT INTO redactions (event_id, ts) SELECT DISTINCT event_id, $2::bigint FROM unnest($1::text[]) AS event_id
ON CONFLICT DO NOTHING
"""

DELETE_CHUNKS_OF_EVENTS = """
DELETE FROM chunks WHERE hash IN (SELECT hash FROM chunk_sources WHERE event_id = ANY($1::text[]))
"""

DELETE_JOBS_OF_EVENTS = "DELETE FROM jobs WHERE event_id = ANY($1::text[]) AND NOT running AND kind = 'command'"

DELETE_JOBS_OF_LEAVERS = """
DELETE FROM jobs USING unnest($1::text[], $2::text[]) AS gone (room_id, user_id)
WHERE jobs.room_id = gone.room_id AND asker = gone.user_id AND NOT running AND kind = 'command'
"""

DELETE_SCHEDULES_OF_LEAVERS = """
DELETE FROM schedules USING unnest($1::text[], $2::text[]) AS gone (room_id, user_id)
WHERE schedules.room_id = gone.room_id AND schedules.user_id = gone.user_id
"""


@dataclass(frozen=True, slots=True)
class Receipt:
    """Somebody has read a room up to an event."""

    room_id: str
    user_id: str
    event_id: str
    ts: int


@dataclass(slots=True)
class Secrets:
    """What matters to the encryption in one transaction. `messages` are JSON."""

    messages: list[bytes] = field(default_factory=list)
    events: list[NewSealedEvent] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    """Users whose devices have changed."""
    left: list[str] = field(default_factory=list)
    """Users whose devices are no longer of interest."""

    def __bool__(self) -> bool:
        return bool(self.messages or self.events or self.changed or self.left)


@dataclass(slots=True)
class Delivery:
    """What matters to the bot in one transaction of the homeserver."""

    jobs: list[NewJob] = field(default_factory=list)
    receipts: list[Receipt] = field(default_factory=list)
    redacted: list[str] = field(default_factory=list)
    gone: list[tuple[str, str]] = field(default_factory=list)
    """(room, user) of those who left or were banned."""
    secrets: Secrets = field(default_factory=Secrets)

    def __bool__(self) -> bool:
        return bool(self.jobs or self.receipts or self.redacted or self.gone or self.secrets)


class InboxRepository:
    """Writes deliveries."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def persist_delivery(self, transaction_id: str, delivery: Delivery, *, now: int, pause_ms: int) -> bool:
        """Stores all of it or none; False if the transaction was stored before."""
        async with self._database.transaction() as connection:
            if not await connection.fetchval(INSERT_TRANSACTION, transaction_id, now):
                return False
            if delivery.redacted:
                await connection.execute(INSERT_REDACTIONS, delivery.redacted, now)
                await connection.execute(DELETE_CHUNKS_OF_EVENTS, delivery.redacted)
                await connection.execute(DELETE_JOBS_OF_EVENTS, delivery.redacted)
                await connection.execute(DELETE_EVENTS, delivery.redacted)
            if delivery.gone:
                rooms, users = zip(*delivery.gone, strict=True)
                await connection.execute(DELETE_JOBS_OF_LEAVERS, rooms, users)
                await connection.execute(DELETE_SCHEDULES_OF_LEAVERS, rooms, users)
                await connection.execute(DELETE_OUTBOUNDS, rooms)  # whoever left shall read nothing more
            if delivery.jobs:
                await connection.execute(INSERT_JOBS, *job_columns(delivery.jobs))
            if delivery.receipts:
                await connection.execute(UPSERT_READING, *_columns(delivery.receipts), pause_ms)
            await _write_secrets(connection, delivery.secrets, now)
        return True


async def _write_secrets(connection: Connection, secrets: Secrets, now: int) -> None:
    if secrets.changed:
        await connection.execute(NOTE_CHANGES, secrets.changed)
    if secrets.left:
        await connection.execute(FORGET_USERS, secrets.left)
    await write_sealed(connection, secrets.messages, secrets.events, now=now)


def _columns(receipts: Sequence[Receipt]) -> tuple[list[str], list[str], list[str], list[int]]:
    return (
        [receipt.room_id for receipt in receipts],
        [receipt.user_id for receipt in receipts],
        [receipt.event_id for receipt in receipts],
        [receipt.ts for receipt in receipts],
    )

"""What has arrived encrypted: messages to the bot's device, and events that may be questions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from appservices.summary_bot.storage.database import Connection, Database
from appservices.summary_bot.storage.devices import SET_ACCOUNT, SessionRow, write_sessions
from appservices.summary_bot.storage.jobs import INSERT_JOBS, NewJob, job_columns
from appservices.summary_bot.storage.room_keys import InboundRow, write_inbound

MAX_WAITING_PER_ROOM = 200
"""How many events of a room wait for a key at most: the oldest are let go, and are history when somebody asks."""

MAX_FRESH_PER_ROOM = 5000
"""How many events of a room may be there that nobody has looked at yet."""

MAX_MESSAGES = 20_000
"""How many messages to the bot's device are stored before more are refused: the homeserver then keeps them."""

INSERT_MESSAGES = "INSERT INTO device_messages (body, due_ts) SELECT body, $2 FROM unnest($1::bytea[]) AS body"
INSERT_EVENTS = """
INSERT INTO sealed_events (event_id, room_id, session_id, body, received_ts)
SELECT DISTINCT ON (event_id) event_id, room_id, session_id, body, $5::bigint
FROM unnest($1::text[], $2::text[], $3::text[], $4::bytea[]) AS new (event_id, room_id, session_id, body)
ON CONFLICT DO NOTHING
"""
DELETE_TOO_MANY = """
DELETE FROM sealed_events WHERE event_id IN (
    SELECT event_id FROM (
        SELECT event_id, row_number() OVER (PARTITION BY room_id ORDER BY received_ts DESC, event_id) AS place
        FROM sealed_events WHERE room_id = ANY($1::text[]) AND is_waiting = $3
    ) AS placed WHERE place > $2
)
"""
DELETE_EVENTS = "DELETE FROM sealed_events WHERE event_id = ANY($1::text[])"
LOAD_MESSAGES = "SELECT number, body, attempts FROM device_messages WHERE due_ts <= $1 ORDER BY number LIMIT $2"
LOAD_EVENTS = """
SELECT event_id, room_id, body FROM sealed_events WHERE NOT is_waiting ORDER BY received_ts, event_id LIMIT $1
"""
IS_FULL = "SELECT count(*) >= $1 FROM device_messages"
FORGET_ROOM = "DELETE FROM sealed_events WHERE room_id = $1"
NEXT_DUE = "SELECT min(due_ts) FROM device_messages"
DELETE_MESSAGE = "DELETE FROM device_messages WHERE number = $1"
POSTPONE = "UPDATE device_messages SET attempts = attempts + 1, due_ts = $2 WHERE number = $1"
SET_WAITING = "UPDATE sealed_events SET is_waiting = true WHERE event_id = $1"
WAKE = "UPDATE sealed_events SET is_waiting = false WHERE room_id = $1 AND session_id = $2"
PURGE_EVENTS = "DELETE FROM sealed_events WHERE received_ts < $1"


@dataclass(frozen=True, slots=True)
class NewSealedEvent:
    """An encrypted event of a room; `body` is its JSON."""

    event_id: str
    room_id: str
    session_id: str
    body: bytes


@dataclass(frozen=True, slots=True)
class DeviceMessage:
    """A message to the bot's device; `body` is its JSON."""

    number: int
    body: bytes
    attempts: int


@dataclass(frozen=True, slots=True)
class SealedEvent:
    """An event to look into."""

    event_id: str
    room_id: str
    body: bytes


class SealedRepository:
    """Reads what has arrived encrypted, and takes each off the list together with what came of it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def load_messages(self, now: int, limit: int) -> list[DeviceMessage]:
        """Messages to the device, the oldest first."""
        return [DeviceMessage(**dict(row)) for row in await self._database.pool.fetch(LOAD_MESSAGES, now, limit)]

    async def is_full(self) -> bool:
        """Whether there are as many messages to the device as may be."""
        full: bool = await self._database.pool.fetchval(IS_FULL, MAX_MESSAGES)
        return full

    async def forget_room(self, room_id: str) -> None:
        """Drops the events of a room that the bot is no longer in."""
        await self._database.pool.execute(FORGET_ROOM, room_id)

    async def load_next_due(self) -> int | None:
        """When the next message is to be looked at."""
        found: int | None = await self._database.pool.fetchval(NEXT_DUE)
        return found

    async def finish_message(
        self,
        number: int,
        *,
        account_pickle: str | None = None,
        session: SessionRow | None = None,
        key: InboundRow | None = None,
    ) -> None:
        """Takes a message off the list, and stores what it has changed: all or nothing."""
        async with self._database.transaction() as connection:
            await connection.execute(DELETE_MESSAGE, number)
            if account_pickle is not None:
                await connection.execute(SET_ACCOUNT, account_pickle)
            if session is not None:
                await write_sessions(connection, [session])
            if key is not None:
                await write_inbound(connection, key)
                await connection.execute(WAKE, key.room_id, key.session_id)

    async def postpone_message(self, number: int, due_ts: int) -> None:
        """Leaves a message for later."""
        await self._database.pool.execute(POSTPONE, number, due_ts)

    async def load_events(self, limit: int) -> list[SealedEvent]:
        """Events that may be readable, the oldest first."""
        return [SealedEvent(**dict(row)) for row in await self._database.pool.fetch(LOAD_EVENTS, limit)]

    async def finish_event(self, event_id: str, jobs: Sequence[NewJob]) -> None:
        """Takes an event off the list, and queues what it asks for."""
        async with self._database.transaction() as connection:
            await connection.execute(DELETE_EVENTS, [event_id])
            if jobs:
                await connection.execute(INSERT_JOBS, *job_columns(jobs))

    async def let_wait(self, event: SealedEvent) -> None:
        """Leaves an event until its key comes."""
        async with self._database.transaction() as connection:
            await connection.execute(SET_WAITING, event.event_id)
            await connection.execute(DELETE_TOO_MANY, [event.room_id], MAX_WAITING_PER_ROOM, True)

    async def purge(self, before: int) -> None:
        """Lets go events that have waited for long."""
        await self._database.pool.execute(PURGE_EVENTS, before)


async def write_sealed(
    connection: Connection, messages: Sequence[bytes], events: Sequence[NewSealedEvent], *, now: int
) -> None:
    """Stores what a transaction of the homeserver has brought, in the database transaction of its delivery."""
    if messages:
        await connection.execute(INSERT_MESSAGES, list(messages), now)
    if events:
        await connection.execute(
            INSERT_EVENTS,
            [event.event_id for event in events],
            [event.room_id for event in events],
            [event.session_id for event in events],
            [event.body for event in events],
            now,
        )
        rooms = list({event.room_id for event in events})
        await connection.execute(DELETE_TOO_MANY, rooms, MAX_FRESH_PER_ROOM, False)

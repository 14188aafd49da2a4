"""Which events an answer rests on, and where it was sent: no text of any message."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from appservices.summary_bot.storage.database import Database

INSERT_ANSWER = """
INSERT INTO answers (room_id, asker, target_room, bullets, created_ts, key, oldest_ts)
VALUES ($1, $2, $3, $4, $5, $6, $7)
RETURNING answer
"""
INSERT_SOURCES = """
INSERT INTO answer_sources (event_id, answer) SELECT DISTINCT event_id, $2::bigint FROM unnest($1::text[]) AS event_id
ON CONFLICT DO NOTHING
"""
SET_BULLETS = "UPDATE answers SET bullets = $2, oldest_ts = least(oldest_ts, $3) WHERE answer = $1"
ADD_SENT = """
UPDATE answers SET sent_event_ids = array_append(sent_event_ids, $2) WHERE answer = $1 AND NOT $2 = ANY(sent_event_ids)
"""
COLUMNS = "answer, room_id, asker, target_room, key, sent_event_ids, bullets"
# What has no numbered lines (a quotation, a transcript) is no answer that a line could be asked of.
LOAD_LAST = f"""
SELECT {COLUMNS} FROM answers WHERE target_room = ANY($1::text[]) AND asker = $2 AND bullets <> '[]'
ORDER BY answer DESC LIMIT 1
"""
LOAD_BY_EVENT = f"SELECT {COLUMNS} FROM answers WHERE target_room = $1 AND $2 = ANY(sent_event_ids)"
LOAD_BY_SOURCES = f"""
SELECT {COLUMNS} FROM answers
WHERE answer IN (SELECT answer FROM answer_sources WHERE event_id = ANY($1::text[])) ORDER BY answer LIMIT $2
"""
LOAD_BY_READER = f"SELECT {COLUMNS} FROM answers WHERE room_id = $1 AND asker = $2 ORDER BY answer LIMIT $3"
LOAD_BY_KEY = f"SELECT {COLUMNS} FROM answers WHERE key = $1 ORDER BY answer LIMIT $2"
LOAD_BY_ROOM = f"SELECT {COLUMNS} FROM answers WHERE room_id = $1 ORDER BY answer LIMIT $2"
LOAD_EXPIRED = f"""
SELECT {COLUMNS} FROM answers WHERE room_id = $1 AND oldest_ts < $2 ORDER BY answer LIMIT $3
"""
ANSWERED_ROOMS = "SELECT DISTINCT room_id FROM answers WHERE oldest_ts IS NOT NULL ORDER BY room_id LIMIT $1"
DELETE_ANSWER = "DELETE FROM answers WHERE answer = $1"
REDACTED = "SELECT event_id FROM redactions WHERE event_id = ANY($1::text[])"

MAX_AT_ONCE = 100
MAX_ROOMS = 10_000

Bullets = list[list[str]]
"""The event IDs behind each numbered line of an answer."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer that was sent."""

    answer: int
    room_id: str
    asker: str
    target_room: str
    key: str
    """What all answers to one question have in common."""
    sent_event_ids: tuple[str, ...]
    bullets: Bullets


class AnswerRepository:
    """Reads and writes what answers rest on."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def persist_answer(
        self,
        room_id: str,
        asker: str,
        target_room: str,
        bullets: Bullets,
        *,
        key: str,
        now: int,
        others: Sequence[str] = (),
        oldest_ts: int | None = None,
    ) -> int:
        """Stores what an answer rests on, before it is sent: a redaction then always finds it. Returns its number.

        `others`: events that it rests on without a numbered line. `oldest_ts`: when the oldest of all was sent.
        """
        sources = [event_id for bullet in bullets for event_id in bullet] + list(others)
        async with self._database.transaction() as connection:
            number: int = await connection.fetchval(
                INSERT_ANSWER, room_id, asker, target_room, msgspec.json.encode(bullets), now, key, oldest_ts
            )
            await connection.execute(INSERT_SOURCES, sources, number)
        return number

    async def add_sources(self, answer: int, bullets: Bullets, oldest_ts: int | None) -> None:
        """Notes what an answer that is still being written rests on so far."""
        async with self._database.transaction() as connection:
            await connection.execute(SET_BULLETS, answer, msgspec.json.encode(bullets), oldest_ts)
            await connection.execute(INSERT_SOURCES, [event for bullet in bullets for event in bullet], answer)

    async def add_sent(self, answer: int, event_id: str) -> None:
        """Notes a message that carries a part of an answer."""
        await self._database.pool.execute(ADD_SENT, answer, event_id)

    async def load_redacted(self, event_ids: Sequence[str]) -> set[str]:
        """Those of the events that are known to be redacted."""
        return {row["event_id"] for row in await self._database.pool.fetch(REDACTED, list(event_ids))}

    async def load_last(self, target_rooms: Sequence[str], asker: str) -> Answer | None:
        """The newest answer that somebody got in any of these rooms."""
        return _answer(await self._database.pool.fetchrow(LOAD_LAST, list(target_rooms), asker))

    async def load_by_event(self, target_room: str, event_id: str) -> Answer | None:
        """The answer that one of the bot's messages is part of."""
        return _answer(await self._database.pool.fetchrow(LOAD_BY_EVENT, target_room, event_id))

    async def load_by_sources(self, event_ids: Sequence[str]) -> list[Answer]:
        """Answers that rest on any of these events, at most MAX_AT_ONCE."""
        return _answers(await self._database.pool.fetch(LOAD_BY_SOURCES, list(event_ids), MAX_AT_ONCE))

    async def load_by_reader(self, room_id: str, asker: str) -> list[Answer]:
        """Answers about a room that somebody got, at most MAX_AT_ONCE."""
        return _answers(await self._database.pool.fetch(LOAD_BY_READER, room_id, asker, MAX_AT_ONCE))

    async def load_by_key(self, key: str) -> list[Answer]:
        """What has been sent of the answer to one question, at most MAX_AT_ONCE."""
        return _answers(await self._database.pool.fetch(LOAD_BY_KEY, key, MAX_AT_ONCE))

    async def load_by_room(self, room_id: str) -> list[Answer]:
        """Answers about a room, at most MAX_AT_ONCE."""
        return _answers(await self._database.pool.fetch(LOAD_BY_ROOM, room_id, MAX_AT_ONCE))

    async def load_expired(self, room_id: str, before: int) -> list[Answer]:
        """Answers about a room that rest on a message from before a time, at most MAX_AT_ONCE."""
        return _answers(await self._database.pool.fetch(LOAD_EXPIRED, room_id, before, MAX_AT_ONCE))

    async def load_rooms(self) -> list[str]:
        """The rooms that there are answers about, at most MAX_ROOMS."""
        return [row["room_id"] for row in await self._database.pool.fetch(ANSWERED_ROOMS, MAX_ROOMS)]

    async def delete_answer(self, answer: int) -> None:
        """Forgets an answer."""
        await self._database.pool.execute(DELETE_ANSWER, answer)


def _answer(row: object) -> Answer | None:
    if row is None:
        return None
    return _answers([row])[0]


def _answers(rows: Sequence[object]) -> list[Answer]:
    answers = []
    for row in rows:
        values = dict(row)  # type: ignore[call-overload]
        bullets = msgspec.json.decode(values["bullets"], type=Bullets)
        answers.append(Answer(**(values | {"sent_event_ids": tuple(values["sent_event_ids"]), "bullets": bullets})))
    return answers

"""Facts that models drew from chunks, kept so that a second question pays only for what is new."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from appservices.summary_bot.storage.database import Database

LOAD_CHUNKS = "SELECT hash, facts, tokens FROM chunks WHERE hash = ANY($1::bytea[])"
INSERT_CHUNK = """
INSERT INTO chunks (hash, room_id, facts, tokens, oldest_ts, created_ts)
SELECT $1, $2, $3, $4, $5, $6
WHERE NOT EXISTS (SELECT FROM redactions WHERE event_id = ANY($7::text[]))
  AND NOT EXISTS (SELECT FROM people WHERE opted_out AND user_id = ANY($8::text[]))
ON CONFLICT (hash) DO NOTHING RETURNING 1
"""
INSERT_SOURCES = """
INSERT INTO chunk_sources (event_id, hash, sender)
SELECT DISTINCT ON (event_id) event_id, $3::bytea, sender FROM unnest($1::text[], $2::text[]) AS s (event_id, sender)
"""
# Whoever deletes one of the parts waits for this, or comes first: then one is missing.
LOCK_PARTS = "SELECT oldest_ts FROM chunks WHERE hash = ANY($1::bytea[]) ORDER BY hash FOR KEY SHARE"
INSERT_FOLD = """
INSERT INTO chunks (hash, room_id, facts, tokens, oldest_ts, created_ts) VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (hash) DO NOTHING RETURNING 1
"""
INSERT_PARTS = "INSERT INTO fold_parts (fold, part) SELECT $1, part FROM unnest($2::bytea[]) AS part"
PURGES = (
    "DELETE FROM chunks WHERE created_ts < $1",
    "DELETE FROM answers WHERE created_ts < $1",
    "DELETE FROM transactions WHERE received_ts < $1",
    "DELETE FROM redactions WHERE ts < $1",
)
PURGE_ROOM = "DELETE FROM chunks WHERE room_id = $1 AND oldest_ts < $2"
CHUNK_ROOMS = "SELECT DISTINCT room_id FROM chunks ORDER BY room_id LIMIT $1"
MAX_ROOMS = 10_000


@dataclass(frozen=True, slots=True)
class CachedFacts:
    """Facts as JSON, and the tokens of input that they were paid for with."""

    facts: bytes
    tokens: int


class FactRepository:
    """Reads and writes facts."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def load_chunks(self, hashes: Sequence[bytes]) -> dict[bytes, CachedFacts]:
        """Those of the chunks that are known."""
        rows = await self._database.pool.fetch(LOAD_CHUNKS, list(hashes))
        return {row["hash"]: CachedFacts(row["facts"], row["tokens"]) for row in rows}

    async def persist_chunk(
        self,
        key: bytes,
        room_id: str,
        found: CachedFacts,
        sources: Sequence[tuple[str, str]],
        *,
        oldest_ts: int,
        now: int,
    ) -> None:
        """Keeps facts with all events that they may rest on, as (event, sender); not if one is redacted by now."""
        events, senders = [event for event, _ in sources], [sender for _, sender in sources]
        async with self._database.transaction() as connection:
            arguments = (key, room_id, found.facts, found.tokens, oldest_ts, now, events, senders)
            if await connection.fetchval(INSERT_CHUNK, *arguments):
                await connection.execute(INSERT_SOURCES, events, senders, key)

    async def persist_fold(
        self, key: bytes, room_id: str, found: CachedFacts, parts: Sequence[bytes], *, now: int
    ) -> None:
        """Keeps what facts were folded into, with the chunks and folds that they are from; not if one is gone."""
        wanted = sorted(set(parts))
        async with self._database.transaction() as connection:
            there = await connection.fetch(LOCK_PARTS, wanted)
            if len(there) < len(wanted):
                return
            oldest_ts = min(row["oldest_ts"] for row in there)
            if await connection.fetchval(INSERT_FOLD, key, room_id, found.facts, found.tokens, oldest_ts, now):
                await connection.execute(INSERT_PARTS, key, wanted)

    async def purge(self, before: int) -> None:
        """Drops what is older than the time for which things are kept."""
        for statement in PURGES:
            await self._database.pool.execute(statement, before)

    async def load_rooms(self) -> list[str]:
        """The rooms of which there are facts, at most MAX_ROOMS."""
        return [row["room_id"] for row in await self._database.pool.fetch(CHUNK_ROOMS, MAX_ROOMS)]

    async def purge_room(self, room_id: str, before: int) -> None:
        """Drops facts that rest on messages which the room's retention policy has ended."""
        await self._database.pool.execute(PURGE_ROOM, room_id, before)

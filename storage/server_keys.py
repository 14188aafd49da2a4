"""The keys of other servers, as their owners published them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import asyncpg

MAX_KEYS_OF_SERVER = 1000
"""How many keys of one server are kept: those that were valid last."""


class ServerKeyRow(NamedTuple):
    """One key. `valid_until_ts` (ms since the epoch) is when the use of an old key ended."""

    server_name: str
    key_id: str
    public_key: bytes
    valid_until_ts: int
    is_old: bool


class ServerKeyAnswer(NamedTuple):
    """What a server said of its keys: signed JSON, valid until a time, fetched at a time (ms since the epoch)."""

    server_name: str
    json: bytes
    valid_until_ts: int
    fetched_ts: int


# A server's own word replaces what was known.
UPSERT_KEYS = """
INSERT INTO server_keys (server_name, key_id, public_key, valid_until_ts, is_old)
SELECT * FROM unnest($1::text[], $2::text[], $3::bytea[], $4::bigint[], $5::bool[])
ON CONFLICT (server_name, key_id) DO UPDATE SET public_key = excluded.public_key,
    valid_until_ts = excluded.valid_until_ts, is_old = excluded.is_old
"""
# A notary's word may be older than what is known: it adds keys and lengthens lives, and brings no old key back.
UPSERT_KEYS_OF_NOTARY = f"""{UPSERT_KEYS}
WHERE NOT server_keys.is_old AND server_keys.valid_until_ts < excluded.valid_until_ts
"""
KEYS = """
SELECT server_name, key_id, public_key, valid_until_ts, is_old FROM server_keys WHERE server_name = $1
"""
DELETE_TOO_MANY_KEYS = """
DELETE FROM server_keys WHERE server_name = $1 AND key_id IN
    (SELECT key_id FROM server_keys WHERE server_name = $1 ORDER BY valid_until_ts DESC OFFSET $2)
"""
UPSERT_ANSWER = """
INSERT INTO server_key_answers (server_name, json, valid_until_ts, fetched_ts) VALUES ($1, $2, $3, $4)
ON CONFLICT (server_name) DO UPDATE SET json = excluded.json, valid_until_ts = excluded.valid_until_ts,
    fetched_ts = excluded.fetched_ts
WHERE server_key_answers.valid_until_ts <= excluded.valid_until_ts OR NOT $5
"""
ANSWER = "SELECT server_name, json, valid_until_ts, fetched_ts FROM server_key_answers WHERE server_name = $1"


class ServerKeyRepository:
    """Keeps keys and answers. Each method is one transaction."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def load_keys(self, server_name: str) -> list[ServerKeyRow]:
        """Every key of a server that was ever seen."""
        return [ServerKeyRow(*row) for row in await self._pool.fetch(KEYS, server_name)]

    async def load_answer(self, server_name: str) -> ServerKeyAnswer | None:
        """The newest answer of a server."""
        row = await self._pool.fetchrow(ANSWER, server_name)
        return ServerKeyAnswer(*row) if row else None

    async def persist(self, answer: ServerKeyAnswer, keys: Sequence[ServerKeyRow], *, from_notary: bool) -> None:
        """Writes an answer and the keys in it; a notary's word gives way to what the server itself said."""
        async with self._pool.acquire() as connection, connection.transaction():
            await connection.execute(UPSERT_ANSWER, *answer, from_notary)
            statement = UPSERT_KEYS_OF_NOTARY if from_notary else UPSERT_KEYS
            await connection.execute(statement, *map(list, zip(*keys, strict=True)))
            await connection.execute(DELETE_TOO_MANY_KEYS, answer.server_name, MAX_KEYS_OF_SERVER)

"""Tokens beside those of sessions: for one login, for OpenID, for registration."""

from __future__ import annotations

from typing import NamedTuple

import asyncpg


class RegistrationTokenRow(NamedTuple):
    """A registration token; `uses_allowed` and `expires_ts` (ms) are None for no end."""

    token: str
    uses_allowed: int | None
    pending: int
    completed: int
    expires_ts: int | None


INSERT_LOGIN_TOKEN = "INSERT INTO login_tokens (token_hash, user_id, expires_ts) VALUES ($1, $2, $3)"
DELETE_OLD_LOGIN_TOKENS = "DELETE FROM login_tokens WHERE expires_ts <= $1"
# A token is gone with its first use, whether the login that it is used for succeeds or not.
TAKE_LOGIN_TOKEN = "DELETE FROM login_tokens WHERE token_hash = $1 RETURNING user_id, expires_ts"

INSERT_OPENID_TOKEN = "INSERT INTO openid_tokens (token_hash, user_id, expires_ts) VALUES ($1, $2, $3)"
DELETE_OLD_OPENID_TOKENS = "DELETE FROM openid_tokens WHERE expires_ts <= $1"
OPENID_TOKEN = """
SELECT user_id FROM openid_tokens JOIN users USING (user_id)
WHERE token_hash = $1 AND expires_ts > $2 AND NOT deactivated AND NOT locked
"""

INSERT_REGISTRATION_TOKEN = """
INSERT INTO registration_tokens (token, uses_allowed, created_ts, expires_ts) VALUES ($1, $2, $3, $4)
ON CONFLICT DO NOTHING
"""
DELETE_REGISTRATION_TOKEN = "DELETE FROM registration_tokens WHERE token = $1"
# $1: the time from which a registration that is under way counts.
REGISTRATION_TOKENS = """
SELECT token, uses_allowed,
    (SELECT count(*) FROM uia_sessions s WHERE s.registration_token = t.token AND s.created_ts >= $1) AS pending,
    completed, expires_ts
FROM registration_tokens t
WHERE token > $2 ORDER BY token LIMIT $3
"""
# The same for one token, without counting the registration of one session ($3).
REGISTRATION_TOKEN = """
SELECT token, uses_allowed,
    (
        SELECT count(*) FROM uia_sessions s
        WHERE s.registration_token = t.token AND s.created_ts >= $1 AND s.session IS DISTINCT FROM $3
    ) AS pending,
    completed, expires_ts
FROM registration_tokens t WHERE token = $2
"""


class TokenRepository:
    """Keeps tokens; those that are secrets on their own only as hashes. Each method is one transaction."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def insert_login_token(self, token_hash: bytes, user_id: str, *, now_ms: int, expires_ts: int) -> None:
        """Keeps a token for one login until it expires, and removes those that have."""
        async with self._pool.acquire() as connection, connection.transaction():
            await connection.execute(DELETE_OLD_LOGIN_TOKENS, now_ms)
            await connection.execute(INSERT_LOGIN_TOKEN, token_hash, user_id, expires_ts)

    async def take_login_token(self, token_hash: bytes, *, now_ms: int) -> str | None:
        """Whose token it was, for it is gone now; None for one that is unknown, used or expired."""
        row = await self._pool.fetchrow(TAKE_LOGIN_TOKEN, token_hash)
        return str(row["user_id"]) if row is not None and row["expires_ts"] > now_ms else None

    async def insert_openid_token(self, token_hash: bytes, user_id: str, *, now_ms: int, expires_ts: int) -> None:
        """Keeps an OpenID token until it expires, and removes those that have."""
        async with self._pool.acquire() as connection, connection.transaction():
            await connection.execute(DELETE_OLD_OPENID_TOKENS, now_ms)
            await connection.execute(INSERT_OPENID_TOKEN, token_hash, user_id, expires_ts)

    async def load_openid_user(self, token_hash: bytes, *, now_ms: int) -> str | None:
        """Whose OpenID token it is; None for one that is unknown or expired, or of a closed account."""
        user_id = await self._pool.fetchval(OPENID_TOKEN, token_hash, now_ms)
        return None if user_id is None else str(user_id)

    async def insert_registration_token(
        self, token: str, *, uses_allowed: int | None, now_ms: int, expires_ts: int | None
    ) -> bool:
        """Makes a registration token; False if there is one of this name."""
        done = await self._pool.execute(INSERT_REGISTRATION_TOKEN, token, uses_allowed, now_ms, expires_ts)
        return bool(done != "INSERT 0 0")

    async def delete_registration_token(self, token: str) -> bool:
        """Removes a registration token; False if there is none of this name."""
        return bool(await self._pool.execute(DELETE_REGISTRATION_TOKEN, token) != "DELETE 0")

    async def load_registration_tokens(
        self, *, pending_since_ts: int, after: str = "", limit: int
    ) -> list[RegistrationTokenRow]:
        """Up to `limit` registration tokens above `after`, in order."""
        rows = await self._pool.fetch(REGISTRATION_TOKENS, pending_since_ts, after, limit)
        return [RegistrationTokenRow(*row) for row in rows]

    async def load_registration_token(
        self, token: str, *, pending_since_ts: int, session: str | None
    ) -> RegistrationTokenRow | None:
        """One registration token, with what is pending on it beside this interactive authentication session."""
        row = await self._pool.fetchrow(REGISTRATION_TOKEN, pending_since_ts, token, session)
        return RegistrationTokenRow(*row) if row else None

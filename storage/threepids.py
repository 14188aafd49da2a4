"""Third-party identifiers of accounts, and the attempts to prove that somebody has one."""

from __future__ import annotations

from typing import NamedTuple

import asyncpg

EMAIL = "email"


class ThreepidRow(NamedTuple):
    """An identifier of an account: in its canonical form, when it was proved and when it was added (ms)."""

    medium: str
    address: str
    validated_ts: int
    added_ts: int


class ValidationRow(NamedTuple):
    """An attempt to prove an address. `failures` counts wrong tokens, `mail_failures` failed attempts to send its mail.

    `modified_ts` (ms) is when it began or, after that, when the address was proved (`validated_ts`).
    """

    sid: str
    purpose: str
    address: str
    secret_hash: bytes
    send_attempt: int
    next_link: str | None
    modified_ts: int
    validated_ts: int | None
    failures: int
    mail_failures: int


class ThreepidInUse(Exception):
    """The address is another account's."""


class NotValidated(Exception):
    """There is no such attempt any more, or the address was not proved in it."""


class TooManyThreepids(Exception):
    """The account has as many as it may have."""


_VALIDATION = """
sid, purpose, address, secret_hash, send_attempt, next_link, modified_ts, validated_ts, failures, mail_failures
"""
DELETE_OLD_VALIDATIONS = "DELETE FROM email_validations WHERE modified_ts < $1"
# One attempt for the same purpose, address and secret. A mail is due again if the client counts on.
UPSERT_VALIDATION = """
INSERT INTO email_validations AS v (
    sid, purpose, address, secret_hash, send_attempt, next_link, modified_ts, mail_due_ts
) VALUES ($1, $2, $3, $4, $5, $6, $7, $7)
ON CONFLICT (purpose, address, secret_hash) DO UPDATE
SET send_attempt = excluded.send_attempt, next_link = excluded.next_link, mail_due_ts = excluded.mail_due_ts,
    mail_failures = 0
WHERE excluded.send_attempt > v.send_attempt
"""
VALIDATION_OF_SECRET = f"""
SELECT {_VALIDATION} FROM email_validations
WHERE purpose = $1 AND address = $2 AND secret_hash = $3 AND modified_ts >= $4
"""
VALIDATION = f"SELECT {_VALIDATION} FROM email_validations WHERE sid = $1 AND modified_ts >= $2"
VALIDATE = "UPDATE email_validations SET validated_ts = $2, modified_ts = $2 WHERE sid = $1 AND validated_ts IS NULL"
COUNT_FAILURE = "UPDATE email_validations SET failures = failures + 1 WHERE sid = $1"
TAKE_VALIDATED = """
DELETE FROM email_validations WHERE sid = $1 AND validated_ts IS NOT NULL AND modified_ts >= $2
RETURNING address, validated_ts
"""
DUE_MAILS = f"""
SELECT {_VALIDATION} FROM email_validations WHERE mail_due_ts <= $1 ORDER BY mail_due_ts LIMIT $2
"""
NEXT_DUE_TS = "SELECT min(mail_due_ts) FROM email_validations"
SET_DUE = """
UPDATE email_validations SET mail_due_ts = $3, mail_failures = mail_failures + 1
WHERE sid = $1 AND send_attempt = $2
"""

THREEPIDS = (
    "SELECT medium, address, validated_ts, added_ts FROM threepids WHERE user_id = $1 ORDER BY added_ts, address"
)
USER_OF = (
    "SELECT user_id FROM threepids JOIN users USING (user_id) WHERE medium = $1 AND address = $2 AND NOT deactivated"
)
# The row of a user who has it already changes; nothing comes back if it is somebody else's.
INSERT_THREEPID = """
INSERT INTO threepids AS t (medium, address, user_id, validated_ts, added_ts) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (medium, address) DO UPDATE SET validated_ts = excluded.validated_ts WHERE t.user_id = excluded.user_id
RETURNING user_id
"""
DELETE_THREEPID = "DELETE FROM threepids WHERE user_id = $1 AND medium = $2 AND address = $3"
DELETE_EMAIL_PUSHERS = "DELETE FROM pushers WHERE user_id = $1 AND kind = 'email' AND pushkey = $2"
DELETE_THREEPIDS = "DELETE FROM threepids WHERE user_id = $1"
COUNT_THREEPIDS = "SELECT count(*) FROM threepids WHERE user_id = $1"
LOCK_USER = "SELECT FROM users WHERE user_id = $1 AND NOT deactivated FOR NO KEY UPDATE"
SET_PASSWORD = "UPDATE users SET password_hash = $2 WHERE user_id = $1"
# What proves the same address for the same purpose is worth nothing once that has been done.
DELETE_SAME_PURPOSE = "DELETE FROM email_validations WHERE purpose = $1 AND address = $2"


async def give_validated(connection: asyncpg.Connection, user_id: str, sid: str, *, since_ts: int, now_ms: int) -> None:
    """Gives an account the address that was proved in an attempt, which is used up; within the caller's transaction.

    Raises NotValidated, ThreepidInUse.
    """
    taken = await connection.fetchrow(TAKE_VALIDATED, sid, since_ts)
    if taken is None:
        raise NotValidated
    row = (EMAIL, taken["address"], user_id, taken["validated_ts"], now_ms)
    if await connection.fetchval(INSERT_THREEPID, *row) is None:
        raise ThreepidInUse


class ThreepidRepository:
    """Keeps third-party identifiers and attempts to prove them. Each method is one transaction.

    `since_ts` (ms) says how old an attempt may be to be looked at.
    """

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def load_of_user(self, user_id: str) -> list[ThreepidRow]:
        """An account's identifiers, oldest first."""
        return [ThreepidRow(*row) for row in await self._pool.fetch(THREEPIDS, user_id)]

    async def load_user_of(self, medium: str, address: str) -> str | None:
        """Whose identifier it is."""
        user_id = await self._pool.fetchval(USER_OF, medium, address)
        return None if user_id is None else str(user_id)

    async def add(self, user_id: str, sid: str, *, since_ts: int, now_ms: int, max_per_user: int) -> None:
        """Gives an account the address that was proved in an attempt, which is used up.

        Raises NotValidated, ThreepidInUse, TooManyThreepids.
        """
        async with self._pool.acquire() as connection, connection.transaction():
            if await connection.execute(LOCK_USER, user_id) == "SELECT 0":
                raise NotValidated
            await give_validated(connection, user_id, sid, since_ts=since_ts, now_ms=now_ms)
            if await connection.fetchval(COUNT_THREEPIDS, user_id) > max_per_user:
                raise TooManyThreepids

    async def delete(self, user_id: str, medium: str, address: str) -> bool:
        """Takes an identifier from an account, and with it the pusher to it; False if it has no such."""
        async with self._pool.acquire() as connection, connection.transaction():
            if await connection.execute(DELETE_THREEPID, user_id, medium, address) == "DELETE 0":
                return False
            if medium == EMAIL:
                await connection.execute(DELETE_EMAIL_PUSHERS, user_id, address)
            return True

    async def reset_password(self, sid: str, password_hash: str, *, since_ts: int) -> str | None:
        """Sets the password of the account whose address was proved in an attempt; returns its user ID.

        The attempt and all others with that purpose and address are used up. None if there is no such account.
        """
        async with self._pool.acquire() as connection, connection.transaction():
            taken = await connection.fetchrow(TAKE_VALIDATED, sid, since_ts)
            user_id = None if taken is None else await connection.fetchval(USER_OF, EMAIL, taken["address"])
            if taken is None or user_id is None:
                return None
            await connection.execute(SET_PASSWORD, user_id, password_hash)
            await connection.execute(DELETE_SAME_PURPOSE, "password", taken["address"])
            return str(user_id)

    # Attempts to prove an address.

    async def load_validation_of(
        self, purpose: str, address: str, secret_hash: bytes, *, since_ts: int
    ) -> ValidationRow | None:
        """The attempt that a client has under way."""
        row = await self._pool.fetchrow(VALIDATION_OF_SECRET, purpose, address, secret_hash, since_ts)
        return ValidationRow(*row) if row else None

    async def begin_validation(
        self,
        sid: str,
        purpose: str,
        address: str,
        secret_hash: bytes,
        *,
        send_attempt: int,
        next_link: str | None,
        now_ms: int,
        since_ts: int,
    ) -> str:
        """Has a mail sent for an attempt, a new one with this ID or the one that is under way; returns its ID.

        An older or the same `send_attempt` changes nothing. Attempts from before `since_ts` are removed.
        """
        async with self._pool.acquire() as connection, connection.transaction():
            await connection.execute(DELETE_OLD_VALIDATIONS, since_ts)
            key = (purpose, address, secret_hash)
            await connection.execute(UPSERT_VALIDATION, sid, *key, send_attempt, next_link, now_ms)
            row = await connection.fetchrow(VALIDATION_OF_SECRET, *key, since_ts)
            return str(row["sid"])

    async def load_validation(self, sid: str, *, since_ts: int) -> ValidationRow | None:
        """An attempt by its ID."""
        row = await self._pool.fetchrow(VALIDATION, sid, since_ts)
        return ValidationRow(*row) if row else None

    async def validate(self, sid: str, *, now_ms: int) -> None:
        """Notes that the address was proved."""
        await self._pool.execute(VALIDATE, sid, now_ms)

    async def count_failure(self, sid: str) -> None:
        """Notes a wrong token."""
        await self._pool.execute(COUNT_FAILURE, sid)

    async def load_due(self, now_ms: int, *, limit: int) -> list[ValidationRow]:
        """Attempts whose mails are to be sent, the oldest first."""
        return [ValidationRow(*row) for row in await self._pool.fetch(DUE_MAILS, now_ms, limit)]

    async def load_next_due_ts(self) -> int | None:
        """When (ms) the next mail is due; None if none is."""
        due_ts = await self._pool.fetchval(NEXT_DUE_TS)
        return None if due_ts is None else int(due_ts)

    async def set_mail_due(self, sid: str, send_attempt: int, due_ts: int | None) -> None:
        """Notes that a mail has been sent (None), or when to try again, unless the client has asked for another."""
        await self._pool.execute(SET_DUE, sid, send_attempt, due_ts)

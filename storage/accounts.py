"""Users, devices, access tokens, interactive authentication sessions and profiles."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import NamedTuple

import asyncpg
import orjson

from storage import media
from storage.cross_signing import IS_SIGNING_KEY
from storage.database import StorageError
from storage.device_lists import mark_pending
from storage.devices import remove_devices, remove_identity
from storage.directory import directory_text
from storage.threepids import DELETE_THREEPIDS, give_validated


class UserRow(NamedTuple):
    """A local account. `password_hash` is an argon2id or bcrypt hash, None for an account without a password."""

    user_id: str
    password_hash: str | None
    is_admin: bool
    deactivated: bool
    appservice_id: str | None
    created_ts: int
    locked: bool = False
    suspended: bool = False


class DeviceRow(NamedTuple):
    """A device; `device` is its number here. `last_seen_ts` is in milliseconds."""

    device: int
    device_id: str
    display_name: str | None
    last_seen_ts: int | None
    last_seen_ip: str | None


class TokenRow(NamedTuple):
    """Whose access token it is. `expires_ts` (ms) may have passed.

    `refresh_token` goes with it; `replaces` is the refresh token that both were got for. Both are hashes.
    """

    user_id: str
    device: int
    device_id: str
    is_admin: bool
    locked: bool
    suspended: bool
    expires_ts: int | None
    refresh_token: bytes | None
    replaces: bytes | None


class NewTokens(NamedTuple):
    """Hashes of the tokens that a session begins or goes on with, and when (ms) they expire; None for never."""

    access_token: bytes
    access_expires_ts: int | None = None
    refresh_token: bytes | None = None
    refresh_expires_ts: int | None = None


class RefreshRow(NamedTuple):
    """Whose refresh token it is. `expires_ts` (ms) may have passed; `replaces` as in `TokenRow`."""

    user_id: str
    device: int
    locked: bool
    expires_ts: int | None
    replaces: bytes | None


class InteractiveSessionRow(NamedTuple):
    """The hash of the request that a session is for, the stages completed, the registration token used in one, and
    whose session it is (None for somebody who has no account yet, or is not logged in). `email_sid` is the attempt to
    prove an address that was used in a stage."""

    request_hash: bytes
    completed: list[str]
    registration_token: str | None
    user_id: str | None
    email_sid: str | None = None


class ProvedEmail(NamedTuple):
    """The attempt in which an address was proved, and the time (ms) that it must not be older than."""

    sid: str
    since_ts: int


class UserExists(Exception):
    """The user ID is taken."""


class DeviceIdIsKey(Exception):
    """The device ID is one of the user's cross-signing keys."""


class RegistrationTokenSpent(Exception):
    """The registration token has no use left, or is gone."""


MAX_REPLACEMENTS = 4
"""How many refresh tokens may wait to replace one: as many answers as a client may lose and ask for again."""


INSERT_USER = """
INSERT INTO users (
    user_id, password_hash, is_admin, appservice_id, created_ts, profile, directory_text, accepted_policies
) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
"""
# The row stays locked to the end of the transaction, so that no use is counted twice or missed.
SPEND_REGISTRATION_TOKEN = """
UPDATE registration_tokens SET completed = completed + 1
WHERE token = $1 AND (uses_allowed IS NULL OR completed < uses_allowed)
"""
USER = """
SELECT user_id, password_hash, is_admin, deactivated, appservice_id, created_ts, locked, suspended
FROM users WHERE user_id = $1
"""
USERS = """
SELECT user_id, password_hash, is_admin, deactivated, appservice_id, created_ts, locked, suspended FROM users
WHERE user_id > $1 ORDER BY user_id LIMIT $2
"""
COUNT_USERS = "SELECT count(*) FROM users"
SET_PASSWORD = "UPDATE users SET password_hash = $2 WHERE user_id = $1"
REPLACE_PASSWORD = "UPDATE users SET password_hash = $3 WHERE user_id = $1 AND password_hash = $2"
SET_LOCKED = "UPDATE users SET locked = $2 WHERE user_id = $1"
SET_SUSPENDED = "UPDATE users SET suspended = $2 WHERE user_id = $1"
DELETE_LOGIN_TOKENS = "DELETE FROM login_tokens WHERE user_id = $1"
DELETE_PUSHERS = "DELETE FROM pushers WHERE user_id = $1"
DELETE_OPENID_TOKENS = "DELETE FROM openid_tokens WHERE user_id = $1"
DEACTIVATE = "UPDATE users SET deactivated = true, password_hash = NULL WHERE user_id = $1"
ERASE_USER = """
UPDATE users SET profile = '{}', directory_text = '',
    erased_position = coalesce(erased_position, (SELECT max(position) FROM events), 0)
WHERE user_id = $1 RETURNING erased_position
"""
ERASE_ACCOUNT_DATA = "DELETE FROM account_data WHERE user_id = $1"
ERASE_FILTERS = "DELETE FROM filters WHERE user_id = $1"
ERASE_PRESENCE = "DELETE FROM presence WHERE user_id = $1"
ERASE_MEDIA = media.DELETE_OF_USER
PROFILE = "SELECT profile FROM users WHERE user_id = $1 AND NOT deactivated"
SET_PROFILE = "UPDATE users SET profile = $2, directory_text = $3 WHERE user_id = $1"

UPSERT_DEVICE = """
INSERT INTO devices (user_id, device_id, display_name) VALUES ($1, $2, $3)
ON CONFLICT (user_id, device_id) DO UPDATE SET display_name = coalesce(devices.display_name, excluded.display_name)
RETURNING device
"""
DEVICES = """
SELECT device, device_id, display_name, last_seen_ts, last_seen_ip FROM devices WHERE user_id = $1 ORDER BY device
"""
RENAME_DEVICE = """
UPDATE devices SET display_name = $3 WHERE user_id = $1 AND device_id = $2
RETURNING EXISTS (SELECT FROM device_keys k WHERE k.device = devices.device)
"""
DEVICES_BY_ID = "SELECT device FROM devices WHERE user_id = $1 AND device_id = ANY($2::text[])"
ALL_DEVICES = "SELECT device FROM devices WHERE user_id = $1"
OTHER_DEVICES = "SELECT device FROM devices WHERE user_id = $1 AND device <> $2"
TOUCH_DEVICES = """
UPDATE devices SET last_seen_ts = seen.ts, last_seen_ip = seen.ip
FROM unnest($1::int[], $2::bigint[], $3::text[]) AS seen (device, ts, ip) WHERE devices.device = seen.device
"""

DELETE_TOKENS_OF_DEVICE = "DELETE FROM access_tokens WHERE device = $1"
DELETE_REFRESH_TOKENS_OF_DEVICE = "DELETE FROM refresh_tokens WHERE device = $1"
INSERT_TOKEN = "INSERT INTO access_tokens (token_hash, device, expires_ts, refresh_token) VALUES ($1, $2, $3, $4)"
INSERT_REFRESH_TOKEN = """
INSERT INTO refresh_tokens (token_hash, device, replaces, created_ts, expires_ts) VALUES ($1, $2, $3, $4, $5)
"""
TOKEN = """
SELECT u.user_id, d.device, d.device_id, u.is_admin, u.locked, u.suspended, t.expires_ts, t.refresh_token, r.replaces
FROM access_tokens t JOIN devices d USING (device) JOIN users u USING (user_id)
LEFT JOIN refresh_tokens r ON r.token_hash = t.refresh_token
WHERE t.token_hash = $1 AND NOT u.deactivated
"""
# What changes a device's tokens locks the device first, and so sees what was made of them before: of two refreshes
# with one token, of a refresh and the first use of what an earlier one gave.
LOCK_DEVICE = "SELECT FROM devices WHERE device = $1 FOR NO KEY UPDATE"
LOCK_DEVICE_OF_REFRESH_TOKEN = """
SELECT FROM devices WHERE device = (SELECT device FROM refresh_tokens WHERE token_hash = $1) FOR NO KEY UPDATE
"""
REFRESH_TOKEN = """
SELECT d.user_id, r.device, u.locked, r.expires_ts, r.replaces
FROM refresh_tokens r JOIN devices d USING (device) JOIN users u USING (user_id)
WHERE r.token_hash = $1 AND NOT u.deactivated
"""
# Access tokens go with their refresh tokens.
DELETE_REPLACED = "DELETE FROM refresh_tokens WHERE token_hash = $1"
DELETE_OTHER_REPLACEMENTS = "DELETE FROM refresh_tokens WHERE replaces = $1 AND token_hash <> $2"
DELETE_OLD_REPLACEMENTS = """
DELETE FROM refresh_tokens WHERE token_hash IN (
    SELECT token_hash FROM refresh_tokens WHERE replaces = $1 ORDER BY created_ts DESC, token_hash OFFSET $2
)
"""

SESSIONS_ENDED = "sessions_ended"
"""The channel on which each process tells the others, by user ID, whose sessions it ended."""
NOTIFY_SESSIONS_ENDED = f"SELECT pg_notify('{SESSIONS_ENDED}', $1)"
ACCOUNTS_ERASED = "accounts_erased"
"""The channel on which each process tells the others whose account it erased: a position and a user ID."""
NOTIFY_ACCOUNT_ERASED = f"SELECT pg_notify('{ACCOUNTS_ERASED}', $1)"

INSERT_SESSION = "INSERT INTO uia_sessions (session, request_hash, user_id, created_ts) VALUES ($1, $2, $3, $4)"
DELETE_OLD_SESSIONS = "DELETE FROM uia_sessions WHERE created_ts < $1"
SESSION = """
SELECT request_hash, completed, registration_token, user_id, email_sid FROM uia_sessions
WHERE session = $1 AND created_ts >= $2
"""
COMPLETE_STAGE = """
UPDATE uia_sessions
SET completed = array_append(completed, $2), registration_token = coalesce($3, registration_token),
    email_sid = coalesce($4, email_sid)
WHERE session = $1 AND NOT $2 = ANY(completed)
"""
DELETE_SESSION = "DELETE FROM uia_sessions WHERE session = $1"


class AccountRepository:
    """Everything about local accounts. Each method is one transaction: when it returns, it is durable."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def insert_user(
        self,
        user_id: str,
        *,
        password_hash: str | None,
        created_ts: int,
        is_admin: bool = False,
        appservice_id: str | None = None,
        displayname: str | None = None,
        accepted_policies: Sequence[str] = (),
        registration_token: str | None = None,
        email: ProvedEmail | None = None,
    ) -> None:
        """Makes an account, spends a use of a registration token, and gives the account an address.

        Raises UserExists, RegistrationTokenSpent, or as `give_validated` does.
        """
        profile: dict[str, object] = {"displayname": displayname} if displayname is not None else {}
        row = (user_id, password_hash, is_admin, appservice_id, created_ts, orjson.dumps(profile))
        try:
            async with self._pool.acquire() as connection, connection.transaction():
                text = directory_text(user_id, profile)
                await connection.execute(INSERT_USER, *row, text, list(accepted_policies))
                if registration_token is not None:
                    spent = await connection.execute(SPEND_REGISTRATION_TOKEN, registration_token)
                    if spent == "UPDATE 0":
                        raise RegistrationTokenSpent
                if email is not None:
                    await give_validated(connection, user_id, email.sid, since_ts=email.since_ts, now_ms=created_ts)
        except asyncpg.UniqueViolationError:
            raise UserExists(user_id) from None

    async def load_user(self, user_id: str) -> UserRow | None:
        """The account, deactivated or not."""
        row = await self._pool.fetchrow(USER, user_id)
        return UserRow(*row) if row else None

    async def load_users(self, *, after: str = "", limit: int) -> list[UserRow]:
        """Up to `limit` accounts with a user ID above `after`, in order."""
        return [UserRow(*row) for row in await self._pool.fetch(USERS, after, limit)]

    async def count_users(self) -> int:
        """How many accounts there are, deactivated ones among them."""
        return int(await self._pool.fetchval(COUNT_USERS))

    async def set_password(self, user_id: str, password_hash: str) -> None:
        """Replaces the password."""
        await self._pool.execute(SET_PASSWORD, user_id, password_hash)

    async def replace_password(self, user_id: str, old_hash: str, new_hash: str) -> None:
        """Replaces the password's hash if it is still `old_hash`: nobody changed the password meanwhile."""
        await self._pool.execute(REPLACE_PASSWORD, user_id, old_hash, new_hash)

    async def deactivate(self, user_id: str, *, erase: bool = False) -> int | None:
        """Closes an account and ends its sessions.

        With `erase`, the profile, the account data, the filters, the presence and all files go too, and it is noted
        that the user wants their events erased, and since when: returns the position of the newest event then.
        """
        erased: int | None = None
        async with self._pool.acquire() as connection, connection.transaction():
            await connection.execute(DEACTIVATE, user_id)
            if erase:
                erased = await connection.fetchval(ERASE_USER, user_id)
                await connection.execute(NOTIFY_ACCOUNT_ERASED, f"{erased} {user_id}")
                await connection.execute(ERASE_ACCOUNT_DATA, user_id)
                await connection.execute(ERASE_FILTERS, user_id)
                await connection.execute(ERASE_PRESENCE, user_id)
                await connection.execute(ERASE_MEDIA, user_id)
            await connection.execute(DELETE_PUSHERS, user_id)
            await connection.execute(DELETE_THREEPIDS, user_id)
            await connection.execute(DELETE_LOGIN_TOKENS, user_id)
            await connection.execute(DELETE_OPENID_TOKENS, user_id)
            await _end_sessions(connection, user_id, ALL_DEVICES, user_id)
            await remove_identity(connection, user_id)
            await connection.execute(NOTIFY_SESSIONS_ENDED, user_id)  # other processes may know the profile, too
            return erased

    async def set_locked(self, user_id: str, locked: bool) -> None:
        """Locks or unlocks an account."""
        await self._restrict(SET_LOCKED, user_id, locked)

    async def set_suspended(self, user_id: str, suspended: bool) -> None:
        """Suspends an account or ends that."""
        await self._restrict(SET_SUSPENDED, user_id, suspended)

    async def _restrict(self, statement: str, user_id: str, is_so: bool) -> None:
        """Changes what a user may do: what processes know of the user's sessions is no longer so."""
        async with self._pool.acquire() as connection, connection.transaction():
            await connection.execute(statement, user_id, is_so)
            await connection.execute(NOTIFY_SESSIONS_ENDED, user_id)

    async def load_profile(self, user_id: str) -> dict[str, object] | None:
        """The profile's fields; None without such an account."""
        profile = await self._pool.fetchval(PROFILE, user_id)
        return None if profile is None else orjson.loads(profile)

    async def set_profile(self, user_id: str, profile: dict[str, object]) -> None:
        """Replaces the profile's fields."""
        await self._pool.execute(SET_PROFILE, user_id, orjson.dumps(profile), directory_text(user_id, profile))

    async def start_session(
        self, user_id: str, device_id: str, *, display_name: str | None, tokens: NewTokens, now_ms: int
    ) -> tuple[int, bool]:
        """Gives a device (made if need be) tokens in place of any it had.

        Returns the device's number, and whether it had any. Raises DeviceIdIsKey.
        """
        async with self._pool.acquire() as connection, connection.transaction():
            device = int(await connection.fetchval(UPSERT_DEVICE, user_id, device_id, display_name))
            if await connection.fetchval(IS_SIGNING_KEY, user_id, device_id):
                raise DeviceIdIsKey
            replaced = await connection.execute(DELETE_TOKENS_OF_DEVICE, device)
            await connection.execute(DELETE_REFRESH_TOKENS_OF_DEVICE, device)
            await _insert_tokens(connection, device, tokens, replaces=None, now_ms=now_ms)
            if replaced != "DELETE 0":
                await connection.execute(NOTIFY_SESSIONS_ENDED, user_id)
        return device, replaced != "DELETE 0"

    async def load_token(self, token_hash: bytes) -> TokenRow | None:
        """Whose token it is, None when it is not valid."""
        row = await self._pool.fetchrow(TOKEN, token_hash)
        return TokenRow(*row) if row else None

    async def refresh_session(self, refresh_token: bytes, tokens: NewTokens, *, now_ms: int) -> RefreshRow | None:
        """Gives the session of a refresh token new tokens; returns whose it is, None when it is not valid.

        The old ones stay until one of the new is used. Nothing is given where the user is locked or the token has
        expired: the caller sees that in the row.
        """
        async with self._pool.acquire() as connection, connection.transaction():
            await connection.execute(LOCK_DEVICE_OF_REFRESH_TOKEN, refresh_token)
            row = await connection.fetchrow(REFRESH_TOKEN, refresh_token)
            if row is None:
                return None
            found = RefreshRow(*row)
            if found.locked or (found.expires_ts is not None and found.expires_ts <= now_ms):
                return found
            if found.replaces is not None:
                await _finish_refresh(connection, found.user_id, found.replaces, refresh_token)
            await _insert_tokens(connection, found.device, tokens, replaces=refresh_token, now_ms=now_ms)
            await connection.execute(DELETE_OLD_REPLACEMENTS, refresh_token, MAX_REPLACEMENTS)
            return found

    async def finish_refresh(self, user_id: str, device: int, replaced: bytes, refresh_token: bytes) -> None:
        """Ends the tokens that a refresh has replaced, because what took their place is in use."""
        async with self._pool.acquire() as connection, connection.transaction():
            await connection.execute(LOCK_DEVICE, device)
            await _finish_refresh(connection, user_id, replaced, refresh_token)

    async def load_devices(self, user_id: str) -> list[DeviceRow]:
        """A user's devices, oldest first."""
        return [DeviceRow(*row) for row in await self._pool.fetch(DEVICES, user_id)]

    async def rename_device(self, user_id: str, device_id: str, display_name: str | None) -> bool:
        """Names a device; False when there is none. Whoever looks up its keys sees the name."""
        async with self._pool.acquire() as connection, connection.transaction():
            has_keys = await connection.fetchval(RENAME_DEVICE, user_id, device_id, display_name)
            if has_keys:
                await mark_pending(connection, user_id)
            return has_keys is not None

    async def delete_devices(self, user_id: str, device_ids: list[str]) -> list[int]:
        """Removes devices with their tokens; returns their numbers."""
        async with self._pool.acquire() as connection, connection.transaction():
            return await _end_sessions(connection, user_id, DEVICES_BY_ID, user_id, device_ids)

    async def delete_other_devices(self, user_id: str, device: int) -> list[int]:
        """Removes every device of a user but this one; returns their numbers."""
        async with self._pool.acquire() as connection, connection.transaction():
            return await _end_sessions(connection, user_id, OTHER_DEVICES, user_id, device)

    async def delete_all_devices(self, user_id: str) -> list[int]:
        """Removes every device of a user; returns their numbers."""
        async with self._pool.acquire() as connection, connection.transaction():
            return await _end_sessions(connection, user_id, ALL_DEVICES, user_id)

    async def follow_ended_sessions(
        self, on_ended: Callable[[str | None], None], on_erased: Callable[[str, int], None]
    ) -> None:
        """Calls `on_ended` with the ID of each user of whom any process ended a session, until the connection breaks.

        It is called with None first, once listening has begun: what ended before that may have been missed.
        `on_erased` is called with each user whose account is erased, and the position. Raises StorageError.
        """
        broken = asyncio.Event()

        def notice(_connection: object, _pid: int, _channel: str, user_id: str) -> None:
            on_ended(user_id)

        def notice_erased(_connection: object, _pid: int, _channel: str, payload: str) -> None:
            position, _, user_id = payload.partition(" ")
            on_erased(user_id, int(position))

        def terminated(_connection: object) -> None:
            broken.set()

        try:
            async with self._pool.acquire() as connection:
                connection.add_termination_listener(terminated)
                try:
                    await connection.add_listener(SESSIONS_ENDED, notice)
                    await connection.add_listener(ACCOUNTS_ERASED, notice_erased)
                    on_ended(None)
                    await broken.wait()
                finally:
                    connection.remove_termination_listener(terminated)
                    await connection.remove_listener(SESSIONS_ENDED, notice)
                    await connection.remove_listener(ACCOUNTS_ERASED, notice_erased)
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            raise StorageError(f"cannot listen on the PostgreSQL database: {error}") from error

    async def touch_devices(self, seen: dict[int, tuple[int, str]]) -> None:
        """Notes when (ms) and from which address devices were last seen."""
        await self._pool.execute(
            TOUCH_DEVICES, list(seen), [ts for ts, _ in seen.values()], [ip for _, ip in seen.values()]
        )

    async def insert_session(
        self, session: str, request_hash: bytes, user_id: str | None, *, now_ms: int, keep_ms: int
    ) -> None:
        """Opens an interactive authentication session, and removes those older than `keep_ms`."""
        async with self._pool.acquire() as connection, connection.transaction():
            await connection.execute(DELETE_OLD_SESSIONS, now_ms - keep_ms)
            await connection.execute(INSERT_SESSION, session, request_hash, user_id, now_ms)

    async def load_session(self, session: str, *, since_ts: int) -> InteractiveSessionRow | None:
        """An interactive authentication session; None if it was opened before `since_ts` (ms)."""
        row = await self._pool.fetchrow(SESSION, session, since_ts)
        return InteractiveSessionRow(*row) if row else None

    async def complete_stage(
        self, session: str, stage: str, registration_token: str | None = None, email_sid: str | None = None
    ) -> None:
        """Notes that a stage of a session is done, and which registration token or proved address it was done with."""
        await self._pool.execute(COMPLETE_STAGE, session, stage, registration_token, email_sid)

    async def delete_session(self, session: str) -> None:
        """Ends a session: what it was for has happened."""
        await self._pool.execute(DELETE_SESSION, session)


async def _insert_tokens(
    connection: asyncpg.Connection, device: int, tokens: NewTokens, *, replaces: bytes | None, now_ms: int
) -> None:
    """Gives a device tokens. Its refresh token waits to replace another, if it was got for that."""
    if tokens.refresh_token is not None:
        await connection.execute(
            INSERT_REFRESH_TOKEN, tokens.refresh_token, device, replaces, now_ms, tokens.refresh_expires_ts
        )
    await connection.execute(INSERT_TOKEN, tokens.access_token, device, tokens.access_expires_ts, tokens.refresh_token)


async def _finish_refresh(connection: asyncpg.Connection, user_id: str, replaced: bytes, refresh_token: bytes) -> None:
    """Removes a refresh token and all that were got for it but one; tells other processes."""
    await connection.execute(DELETE_OTHER_REPLACEMENTS, replaced, refresh_token)
    await connection.execute(DELETE_REPLACED, replaced)
    await connection.execute(NOTIFY_SESSIONS_ENDED, user_id)


async def _end_sessions(connection: asyncpg.Connection, user_id: str, statement: str, *args: object) -> list[int]:
    """Deletes the devices that `statement` finds, and tells other processes when the transaction commits."""
    devices = [row["device"] for row in await connection.fetch(statement, *args)]
    if devices:
        await remove_devices(connection, user_id, devices)
        await connection.execute(NOTIFY_SESSIONS_ENDED, user_id)
    return devices

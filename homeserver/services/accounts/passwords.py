"""Passwords: hashed with argon2id (RFC 9106), verified, changed. Hashes by bcrypt, of other servers, are replaced."""

from __future__ import annotations

import asyncio
from typing import Final

import bcrypt
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from homeserver.services.accounts.sessions import Requester, Sessions
from homeserver.services.errors import InvalidParam, MatrixError
from storage.accounts import AccountRepository, UserRow

MAX_PASSWORD_BYTES: Final = 512
MAX_BCRYPT_PASSWORD_BYTES: Final = 72
"""All of a password that bcrypt looks at."""
BCRYPT_PREFIXES: Final = ("$2a$", "$2b$", "$2y$")
MAX_CONCURRENT_HASHES: Final = 2
"""Each takes a core and 19 MiB while it runs; more of them wait."""


def new_hasher() -> PasswordHasher:
    """argon2id at the least cost that the OWASP password storage cheat sheet recommends."""
    return PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1, hash_len=32, salt_len=16)


# What a password is held against where there is no account: it costs the same, and matches nothing.
_NOBODYS_HASH = f"$argon2id$v=19$m={19 * 1024},t=2,p=1${'A' * 22}${'A' * 43}"


def check_new_password(password: str) -> None:
    """Whether a password may be set. Raises MatrixError (400 M_WEAK_PASSWORD) or InvalidParam.

    https://spec.matrix.org/v1.19/client-server-api/#password-management
    """
    if not password:
        raise MatrixError(400, "M_WEAK_PASSWORD", "The password must not be empty")
    if len(password.encode()) > MAX_PASSWORD_BYTES:
        raise InvalidParam(f"The password must not have more than {MAX_PASSWORD_BYTES} bytes")


class Passwords:
    """Hashes and verifies passwords in threads, a few at a time, so that logins never stall the server."""

    def __init__(
        self, accounts: AccountRepository, sessions: Sessions, *, hasher: PasswordHasher | None = None
    ) -> None:
        self._accounts = accounts
        self._sessions = sessions
        self._hasher = hasher or new_hasher()
        self._slots = asyncio.Semaphore(MAX_CONCURRENT_HASHES)

    async def hash(self, password: str) -> str:
        """An argon2id hash in the PHC format. Raises as `check_new_password` does."""
        check_new_password(password)
        async with self._slots:
            return await asyncio.to_thread(self._hasher.hash, password.encode())

    async def verify(self, user: UserRow | None, password: str) -> bool:
        """Whether it is the user's password; takes as long for no user, or one who has none, as for any other.

        A hash that was made by bcrypt, or with other parameters than today's, is replaced.
        """
        if len(password.encode()) > MAX_PASSWORD_BYTES:
            return False
        password_hash = user.password_hash if user is not None and not user.deactivated else None
        async with self._slots:
            matches = await asyncio.to_thread(self._matches, password_hash or _NOBODYS_HASH, password.encode())
        if user is None or password_hash is None or not matches:
            return False
        if password_hash.startswith(BCRYPT_PREFIXES) or self._hasher.check_needs_rehash(password_hash):
            await self._accounts.replace_password(user.user_id, password_hash, await self.hash(password))
        return True

    async def change(self, requester: Requester, new_password: str, *, logout_devices: bool) -> None:
        """Gives the requester another password; with `logout_devices`, their other sessions end.

        Raises as `check_new_password` does. https://spec.matrix.org/v1.19/client-server-api/#password-management
        """
        await self._accounts.set_password(requester.user_id, await self.hash(new_password))
        if logout_devices:
            await self._sessions.close_others(requester)

    async def reset(self, user_id: str, new_password: str) -> None:
        """Gives a user another password and ends all their sessions: what an administrator does for them."""
        await self._accounts.set_password(user_id, await self.hash(new_password))
        await self._sessions.close_all(user_id)

    def _matches(self, password_hash: str, password: bytes) -> bool:
        if password_hash.startswith(BCRYPT_PREFIXES):
            try:
                return bcrypt.checkpw(password[:MAX_BCRYPT_PASSWORD_BYTES], password_hash.encode())
            except ValueError:  # what stands in the database is no hash
                return False
        try:
            return self._hasher.verify(password_hash, password)
        except (VerificationError, InvalidHashError):
            return False

"""Registration by tools that know a secret of the server's, also as administrators.

The protocol is that of `/_synapse/admin/v1/register`, which deployment tools, bridges and test suites speak:
https://element-hq.github.io/synapse/latest/admin_api/register_api.html
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from typing import Any, Final

from config.secret import Secret
from homeserver.clock import Clock
from homeserver.services.accounts.login import Login
from homeserver.services.accounts.registration import Registration
from homeserver.services.errors import Forbidden, MatrixError

NONCE_LIFETIME_MS: Final = 60_000


class SharedSecretRegistration:
    """Registers users for whoever can compute a MAC with the shared secret over a nonce and the user's data.

    A nonce is its own record: a random part and when it expires, signed with a key of this process. So asking for
    nonces takes no memory, and nobody can push out those of others; kept are only the nonces that were used, each
    until it expires.
    """

    def __init__(self, secret: Secret | None, registration: Registration, login: Login, clock: Clock) -> None:
        self._secret = secret
        self._registration = registration
        self._login = login
        self._clock = clock
        self._nonce_key = secrets.token_bytes(32)
        self._used: dict[str, int] = {}

    def new_nonce(self) -> str:
        """A nonce that is good for one registration within a minute. Raises Forbidden when there is no secret."""
        self._key()
        expires_ts = self._clock() + NONCE_LIFETIME_MS
        return self._signed(f"{secrets.token_hex(16)}.{expires_ts}")

    async def register(
        self,
        *,
        nonce: str,
        username: str,
        password: str,
        admin: bool,
        user_type: str | None,
        mac: str,
        displayname: str | None,
    ) -> dict[str, Any]:
        """Makes the account and logs in; returns the body of the answer.

        `mac` is the HMAC-SHA1, in hexadecimal, of nonce, username, password, "admin" or "notadmin" and the user
        type if there is one, each separated from the next by a NUL byte. The display name is the username unless given.
        Raises Forbidden for a wrong MAC, MatrixError (400 M_UNKNOWN) for a nonce that is not good, or as
        `Registration.create_user` does.
        """
        parts = [nonce, username, password, "admin" if admin else "notadmin", *([user_type] if user_type else [])]
        expected = hmac.new(self._key(), "\0".join(parts).encode(), hashlib.sha1).hexdigest()
        if not hmac.compare_digest(expected.encode(), mac.lower().encode()):
            raise Forbidden("The MAC is wrong")
        self._use(nonce)
        user_id = await self._registration.create_user(
            username, password, is_admin=admin, displayname=username if displayname is None else displayname
        )
        return await self._login.open_session(user_id, device_id=None, display_name=None)

    def _key(self) -> bytes:
        if self._secret is None:
            raise Forbidden("Shared secret registration is not enabled")
        return self._secret.reveal().encode()

    def _use(self, nonce: str) -> None:
        """Marks a nonce as used. Raises MatrixError for one that is used already, expired or not this process's."""
        now = self._clock()
        for used in [used for used, expires_ts in self._used.items() if expires_ts <= now]:
            del self._used[used]
        payload = nonce.rpartition(".")[0]
        if nonce in self._used or not hmac.compare_digest(self._signed(payload).encode(), nonce.encode()):
            raise MatrixError(400, "M_UNKNOWN", "Unrecognised nonce")
        expires_ts = int(payload.rpartition(".")[2])
        if expires_ts <= now:
            raise MatrixError(400, "M_UNKNOWN", "The nonce has expired")
        self._used[nonce] = expires_ts

    def _signed(self, payload: str) -> str:
        return f"{payload}.{hmac.new(self._nonce_key, payload.encode(), hashlib.sha256).hexdigest()[:32]}"

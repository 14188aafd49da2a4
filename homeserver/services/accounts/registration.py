"""Making accounts: who may, under which names, and the first administrator."""

from __future__ import annotations

import secrets
import string
from collections.abc import Callable
from typing import Any

from config import schema
from homeserver.clock import Clock
from homeserver.services.accounts.login import Login
from homeserver.services.accounts.passwords import Passwords
from homeserver.services.accounts.sessions import check_device_id, check_display_name
from homeserver.services.errors import Forbidden, MatrixError
from matrix.identifiers import MAX_IDENTIFIER_BYTES, is_new_localpart
from storage.accounts import AccountRepository, UserExists

GENERATED_LOCALPART_LENGTH = 12
GENERATED_LOCALPART_ALPHABET = string.ascii_lowercase + string.digits
GENERATED_PASSWORD_BYTES = 15
FIRST_ADMINISTRATOR = "admin"


class UserInUse(MatrixError):
    """400 M_USER_IN_USE."""

    def __init__(self) -> None:
        super().__init__(400, "M_USER_IN_USE", "This user ID is already taken")


class InvalidUsername(MatrixError):
    """400 M_INVALID_USERNAME."""

    def __init__(self, message: str) -> None:
        super().__init__(400, "M_INVALID_USERNAME", message)


def nobodys(_user_id: str) -> bool:
    """For a server without application services: no user ID is in an exclusive namespace."""
    return False


class Registration:
    """Makes accounts. https://spec.matrix.org/v1.19/client-server-api/#legacy-account-registration

    `is_exclusive` tells whether an application service claims a user ID for itself alone.
    """

    def __init__(
        self,
        config: schema.Registration,
        server_name: str,
        accounts: AccountRepository,
        passwords: Passwords,
        login: Login,
        clock: Clock,
        *,
        is_exclusive: Callable[[str], bool] = nobodys,
    ) -> None:
        self._config = config
        self._server_name = server_name
        self._accounts = accounts
        self._passwords = passwords
        self._login = login
        self._clock = clock
        self._is_exclusive = is_exclusive

    def check_enabled(self) -> None:
        """Whether people may make accounts by themselves. Raises Forbidden."""
        if self._config.mode == "off":
            raise Forbidden("Registration is disabled")

    @property
    def flows(self) -> list[list[str]]:
        """What interactive authentication a registration takes. Raises Forbidden when there is no way."""
        self.check_enabled()
        return [["m.login.registration_token" if self._config.mode == "token" else "m.login.dummy"]]

    def is_valid_token(self, token: str) -> bool:
        """Whether it is one of the configured registration tokens. Raises Forbidden when registration is off."""
        self.check_enabled()
        matches = [known.matches(token) for known in self._config.tokens]  # all are compared: no hint of which
        return any(matches)

    async def check_username(self, username: str) -> str:
        """The user ID that an account of this name would have, lower-cased.

        Raises InvalidUsername, UserInUse, or MatrixError (400 M_EXCLUSIVE).
        https://spec.matrix.org/v1.19/appendices/#user-identifiers
        """
        user_id = self._user_id(username)
        if self._is_exclusive(user_id):
            raise MatrixError(400, "M_EXCLUSIVE", "This user ID is reserved by an application service")
        if await self._accounts.load_user(user_id) is not None:
            raise UserInUse
        return user_id

    async def register(
        self,
        username: str | None,
        password: str,
        *,
        device_id: str | None = None,
        display_name: str | None = None,
        inhibit_login: bool = False,
    ) -> dict[str, Any]:
        """Makes an account for somebody who has authenticated, and logs in; returns the body of the answer.

        Without a username one is generated; `display_name` is the new device's. Raises as `check_username`,
        `check_new_password` and `Sessions.open` do.
        """
        check_device_id(device_id)
        check_display_name(display_name)
        user_id = await self.create_user(self._generated_localpart() if username is None else username, password)
        if inhibit_login:
            return {"user_id": user_id, "home_server": self._server_name}
        return await self._login.open_session(user_id, device_id=device_id, display_name=display_name)

    async def create_user(
        self, username: str, password: str, *, is_admin: bool = False, displayname: str | None = None
    ) -> str:
        """Makes an account, whatever the registration mode; returns its user ID.

        `displayname` is the profile's. Raises as `check_username` and `check_new_password` do.
        """
        user_id = await self.check_username(username)
        try:
            await self._accounts.insert_user(
                user_id,
                password_hash=await self._passwords.hash(password),
                created_ts=self._clock(),
                is_admin=is_admin,
                displayname=displayname,
            )
        except UserExists:
            raise UserInUse from None
        return user_id

    async def ensure_first_administrator(self) -> tuple[str, str] | None:
        """Makes an administrator where there is no account at all; returns (user ID, generated password).

        The password is known to nobody else and kept nowhere: show it to who started the server, and never log it.
        """
        if await self._accounts.count_users():
            return None
        password = secrets.token_urlsafe(GENERATED_PASSWORD_BYTES)
        try:
            user_id = await self.create_user(FIRST_ADMINISTRATOR, password, is_admin=True)
        except UserInUse:  # another process was faster
            return None
        return user_id, password

    def _user_id(self, username: str) -> str:
        localpart = username.lower()
        if not is_new_localpart(localpart):
            raise InvalidUsername("A username may only have the letters a-z, digits, and the characters . _ = / + -")
        user_id = f"@{localpart}:{self._server_name}"
        if len(user_id) > MAX_IDENTIFIER_BYTES:
            raise InvalidUsername(f"A user ID must not have more than {MAX_IDENTIFIER_BYTES} bytes")
        return user_id

    def _generated_localpart(self) -> str:
        return "".join(secrets.choice(GENERATED_LOCALPART_ALPHABET) for _ in range(GENERATED_LOCALPART_LENGTH))

"""Logging in with a password, and finding out who an identifier in a request names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from homeserver.services.accounts.passwords import Passwords
from homeserver.services.accounts.sessions import Sessions, check_device_id, check_display_name
from homeserver.services.errors import BadJson, Forbidden, MatrixError, MissingParam
from homeserver.services.rate_limits import RateLimiter
from matrix.identifiers import get_domain, get_localpart, is_user_id
from storage.accounts import AccountRepository, UserRow

LOGIN_TYPES = ("m.login.password",)


def identified_user_id(credentials: Mapping[str, object], server_name: str) -> str:
    """The user ID that credentials name in one of the ways of the specification, whoever it may belong to.

    Raises MissingParam, BadJson, MatrixError (400 M_UNKNOWN) for an unknown type of identifier, and Forbidden for a
    third-party identifier, for no account has any here.
    https://spec.matrix.org/v1.19/client-server-api/#identifier-types
    """
    identifier = credentials.get("identifier")
    if identifier is None:  # the deprecated forms stand in the credentials themselves
        identifier = {name: credentials[name] for name in ("user", "medium", "address") if name in credentials}
        if not identifier:
            raise MissingParam("Missing identifier")
    if not isinstance(identifier, dict):
        raise BadJson("identifier must be an object")
    kind = identifier.get("type", "m.id.user" if "user" in identifier else "m.id.thirdparty")
    if kind in ("m.id.thirdparty", "m.id.phone"):
        raise Forbidden("No account has this third-party identifier")
    if kind != "m.id.user":
        raise MatrixError(400, "M_UNKNOWN", "Unknown type of identifier")
    user = identifier.get("user")
    if user is None:
        raise MissingParam("Missing identifier.user")
    if not isinstance(user, str):
        raise BadJson("identifier.user must be a string")
    return user if user.startswith("@") else f"@{user}:{server_name}"


class Login:
    """Password logins. https://spec.matrix.org/v1.19/client-server-api/#login

    Limits: `login` counts logins of an address, `login_failed` failures on an account, wherever they come from.
    """

    def __init__(
        self,
        server_name: str,
        accounts: AccountRepository,
        passwords: Passwords,
        sessions: Sessions,
        rate_limits: RateLimiter,
    ) -> None:
        self._server_name = server_name
        self._accounts = accounts
        self._passwords = passwords
        self._sessions = sessions
        self._rate_limits = rate_limits

    async def login(
        self, credentials: Mapping[str, object], *, device_id: str | None, display_name: str | None, address: str
    ) -> dict[str, Any]:
        """Opens a session on a device, known or new (named `display_name`); returns the body of the answer.

        Raises as `authenticate` does, and InvalidParam for an unusable device.
        """
        check_device_id(device_id)
        check_display_name(display_name)
        self._rate_limits.check("login", address)
        user = await self.authenticate(credentials)
        return await self.open_session(user.user_id, device_id=device_id, display_name=display_name)

    async def open_session(self, user_id: str, *, device_id: str | None, display_name: str | None) -> dict[str, Any]:
        """Opens a session for a user who is who they say; returns what /login and /register answer."""
        token, device_id = await self._sessions.open(user_id, device_id=device_id, display_name=display_name)
        return {
            "user_id": user_id,
            "access_token": token,
            "device_id": device_id,
            "home_server": self._server_name,
        }

    async def authenticate(self, credentials: Mapping[str, object]) -> UserRow:
        """The account that a user identifier and a `password` belong to.

        Raises Forbidden, MatrixError (403 M_USER_DEACTIVATED), LimitExceeded, or as `identified_user_id` does.
        """
        user_id = identified_user_id(credentials, self._server_name)
        password = credentials.get("password")
        if password is None:
            raise MissingParam("Missing password")
        if not isinstance(password, str):
            raise BadJson("password must be a string")
        # Taken before the attempt and given back for a right password: guesses made side by side count as well.
        self._rate_limits.check("login_failed", in_lower_case(user_id))
        user = await self._load_user(user_id)
        if user is not None and await self._passwords.verify(user, password):
            self._rate_limits.check("login_failed", in_lower_case(user_id), cost=-1)
            return user
        if user is None:
            await self._passwords.verify(None, password)
        elif user.deactivated:
            raise MatrixError(403, "M_USER_DEACTIVATED", "This account has been deactivated")
        raise Forbidden("Invalid username or password")

    async def _load_user(self, user_id: str) -> UserRow | None:
        if not is_user_id(user_id):
            return None
        user = await self._accounts.load_user(user_id)
        if user is None and (lower_case := in_lower_case(user_id)) != user_id:
            # Registration lower-cases what people choose, so they may well type it as they chose it.
            user = await self._accounts.load_user(lower_case)
        return user


def in_lower_case(user_id: str) -> str:
    """The user ID with its localpart in lower case."""
    return f"@{get_localpart(user_id).lower()}:{get_domain(user_id)}"

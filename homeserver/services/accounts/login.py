"""Logging in with a password or a token, and finding out who an identifier in a request names."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from homeserver.clock import Clock
from homeserver.services.accounts.passwords import Passwords
from homeserver.services.accounts.sessions import Sessions, check_device_id, check_display_name, hash_token
from homeserver.services.accounts.third_party_ids import ThirdPartyIds
from homeserver.services.errors import BadJson, Forbidden, MatrixError, MissingParam, UserLocked
from homeserver.services.rate_limits import RateLimiter
from matrix.identifiers import MAX_IDENTIFIER_BYTES, get_domain, get_localpart, is_user_id
from storage.accounts import AccountRepository, UserRow
from storage.tokens import TokenRepository

LOGIN_TOKEN_LIFETIME_MS: Final = 120_000
"""As the specification recommends."""
THIRD_PARTY: Final = "m.id.thirdparty"

Authenticator = Callable[[Mapping[str, object]], Awaitable[UserRow]]
"""Finds out whose the credentials of a login are. Raises MatrixError."""


def identified_user_id(credentials: Mapping[str, object], server_name: str) -> str:
    """The user ID that credentials name in one of the ways of the specification, whoever it may belong to.

    Raises MissingParam, BadJson, MatrixError (400 M_UNKNOWN) for an unknown type of identifier, and Forbidden for a
    third-party identifier, which does not say by itself whose it is.
    https://spec.matrix.org/v1.19/client-server-api/#identifier-types
    """
    kind, identifier = identifier_of(credentials)
    if kind in (THIRD_PARTY, "m.id.phone"):
        raise Forbidden("No account has this third-party identifier")
    if kind != "m.id.user":
        raise MatrixError(400, "M_UNKNOWN", "Unknown type of identifier")
    user = identifier.get("user")
    if user is None:
        raise MissingParam("Missing identifier.user")
    if not isinstance(user, str):
        raise BadJson("identifier.user must be a string")
    return user if user.startswith("@") else f"@{user}:{server_name}"


def identifier_of(credentials: Mapping[str, object]) -> tuple[object, dict[str, Any]]:
    """The type of the identifier in credentials, and the identifier itself. Raises MissingParam, BadJson."""
    identifier = credentials.get("identifier")
    if identifier is None:  # the deprecated forms stand in the credentials themselves
        identifier = {name: credentials[name] for name in ("user", "medium", "address") if name in credentials}
        if not identifier:
            raise MissingParam("Missing identifier")
    if not isinstance(identifier, dict):
        raise BadJson("identifier must be an object")
    return identifier.get("type", "m.id.user" if "user" in identifier else THIRD_PARTY), identifier


class Login:
    """Logins, by type. https://spec.matrix.org/v1.19/client-server-api/#login

    Limits: `login` counts logins of an address, `login_failed` failures on an account, wherever they come from.
    """

    def __init__(
        self,
        server_name: str,
        accounts: AccountRepository,
        passwords: Passwords,
        sessions: Sessions,
        rate_limits: RateLimiter,
        tokens: TokenRepository,
        clock: Clock,
        third_party_ids: ThirdPartyIds | None = None,
    ) -> None:
        self._server_name = server_name
        self._accounts = accounts
        self._passwords = passwords
        self._sessions = sessions
        self._rate_limits = rate_limits
        self._tokens = tokens
        self._clock = clock
        self._third_party_ids = third_party_ids
        self._types: dict[str, Authenticator] = {
            "m.login.password": self.authenticate,
            "m.login.token": self._take_login_token,
        }

    def add_type(self, login_type: str, authenticator: Authenticator) -> None:
        """Accepts logins of another type."""
        self._types[login_type] = authenticator

    @property
    def flows(self) -> list[dict[str, Any]]:
        """The types of login that are accepted, as `GET /login` lists them."""
        flows: list[dict[str, Any]] = [{"type": login_type} for login_type in self._types]
        for flow in flows:
            if flow["type"] == "m.login.token":
                flow["get_login_token"] = True
        return flows

    async def login(
        self,
        login_type: str,
        credentials: Mapping[str, object],
        *,
        device_id: str | None,
        display_name: str | None,
        address: str,
        refreshable: bool = False,
    ) -> dict[str, Any]:
        """Opens a session on a device, known or new (named `display_name`); returns the body of the answer.

        Raises as the type's authenticator does, MatrixError (400 M_UNKNOWN) for an unknown type, InvalidParam for an
        unusable device, UserLocked.
        """
        authenticator = self._types.get(login_type)
        if authenticator is None:
            raise MatrixError(400, "M_UNKNOWN", "Unknown login type")
        check_device_id(device_id)
        check_display_name(display_name)
        self._rate_limits.check("login", address)
        user = await authenticator(credentials)
        check_may_log_in(user)
        return await self.open_session(
            user.user_id, device_id=device_id, display_name=display_name, refreshable=refreshable
        )

    async def open_session(
        self, user_id: str, *, device_id: str | None, display_name: str | None, refreshable: bool = False
    ) -> dict[str, Any]:
        """Opens a session for a user who is who they say; returns what /login and /register answer."""
        given = await self._sessions.open(
            user_id, device_id=device_id, display_name=display_name, refreshable=refreshable
        )
        return {
            "user_id": user_id,
            **given.body(),
            "device_id": given.device_id,
            "home_server": self._server_name,
        }

    async def new_login_token(self, user_id: str) -> str:
        """A token for one login as this user, good for LOGIN_TOKEN_LIFETIME_MS.

        https://spec.matrix.org/v1.19/client-server-api/#token-based
        """
        token = f"weftl_{secrets.token_urlsafe(32)}"
        now = self._clock()
        expires_ts = now + LOGIN_TOKEN_LIFETIME_MS
        await self._tokens.insert_login_token(hash_token(token), user_id, now_ms=now, expires_ts=expires_ts)
        return token

    async def _take_login_token(self, credentials: Mapping[str, object]) -> UserRow:
        """The account that a `token` of `new_login_token` is for; the token is used up. Raises Forbidden."""
        token = text_of(credentials, "token")
        user_id = await self._tokens.take_login_token(hash_token(token), now_ms=self._clock())
        user = None if user_id is None else await self._accounts.load_user(user_id)
        if user is None:
            raise Forbidden("Unknown, used or expired login token")
        return user

    async def authenticate(self, credentials: Mapping[str, object]) -> UserRow:
        """The account that a user identifier and a `password` belong to.

        Raises Forbidden, MatrixError (403 M_USER_DEACTIVATED), LimitExceeded, or as `identified_user_id` does.
        """
        user_id = await self._user_id(credentials)
        password = text_of(credentials, "password")
        # Taken before the attempt and given back for a right password: guesses made side by side count as well.
        self._rate_limits.check("login_failed", in_lower_case(user_id))
        user = await self._load_user(user_id)
        if user is not None and await self._passwords.verify(user, password):
            self._rate_limits.check("login_failed", in_lower_case(user_id), cost=-1)
            return user
        if user is None:
            await self._passwords.verify(None, password)
        elif user.deactivated:
            check_may_log_in(user)
        raise Forbidden("Invalid username or password")

    async def _user_id(self, credentials: Mapping[str, object]) -> str:
        """The user ID that credentials name; for an identifier that nobody has, one that nobody has either.

        https://spec.matrix.org/v1.19/client-server-api/#third-party-id
        """
        kind, identifier = identifier_of(credentials)
        if kind != THIRD_PARTY or self._third_party_ids is None:
            return identified_user_id(credentials, self._server_name)
        medium, address = text_of(identifier, "medium"), text_of(identifier, "address")
        user_id = await self._third_party_ids.user_of(medium, address)
        return user_id or f"?{medium}:{address}"[:MAX_IDENTIFIER_BYTES]  # no sigil: it is no user ID

    async def _load_user(self, user_id: str) -> UserRow | None:
        if not is_user_id(user_id):
            return None
        user = await self._accounts.load_user(user_id)
        if user is None and (lower_case := in_lower_case(user_id)) != user_id:
            # Registration lower-cases what people choose, so they may well type it as they chose it.
            user = await self._accounts.load_user(lower_case)
        return user


def text_of(credentials: Mapping[str, object], name: str) -> str:
    """A string of the credentials. Raises MissingParam, BadJson."""
    value = credentials.get(name)
    if value is None:
        raise MissingParam(f"Missing {name}")
    if not isinstance(value, str):
        raise BadJson(f"{name} must be a string")
    return value


def check_may_log_in(user: UserRow) -> None:
    """Raises MatrixError (403 M_USER_DEACTIVATED) or UserLocked. A suspended user may log in."""
    if user.deactivated:
        raise MatrixError(403, "M_USER_DEACTIVATED", "This account has been deactivated")
    if user.locked:
        raise UserLocked


def in_lower_case(user_id: str) -> str:
    """The user ID with its localpart in lower case."""
    return f"@{get_localpart(user_id).lower()}:{get_domain(user_id)}"

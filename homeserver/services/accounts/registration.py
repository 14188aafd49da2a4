"""Making accounts: who may, under which names, and the first administrator."""

from __future__ import annotations

import re
import secrets
import string
from collections.abc import Callable, Sequence
from typing import Any, Final

from config import schema
from homeserver.clock import Clock
from homeserver.services.accounts.login import Login
from homeserver.services.accounts.passwords import Passwords
from homeserver.services.accounts.sessions import check_device_id, check_display_name
from homeserver.services.accounts.third_party_ids import threepid_in_use
from homeserver.services.email.validations import ThreepidAuthFailed
from homeserver.services.errors import Forbidden, MatrixError
from matrix.identifiers import MAX_IDENTIFIER_BYTES, is_new_localpart
from storage.accounts import AccountRepository, ProvedEmail, RegistrationTokenSpent, UserExists
from storage.threepids import NotValidated, ThreepidInUse
from storage.tokens import TokenRepository

GENERATED_LOCALPART_LENGTH = 12
GENERATED_LOCALPART_ALPHABET = string.ascii_lowercase + string.digits
GENERATED_PASSWORD_BYTES = 15
FIRST_ADMINISTRATOR = "admin"
PENDING_MS: Final = 15 * 60 * 1000
"""How long a registration that is under way holds its use of a token: as long as interactive authentication lasts."""

# https://spec.matrix.org/v1.19/client-server-api/#token-authenticated-registration
REGISTRATION_TOKEN = re.compile(r"[A-Za-z0-9._~-]{1,64}")


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
        tokens: TokenRepository,
        *,
        is_exclusive: Callable[[str], bool] = nobodys,
        has_email: bool = False,
    ) -> None:
        self._config = config
        self._server_name = server_name
        self._accounts = accounts
        self._passwords = passwords
        self._login = login
        self._clock = clock
        self._tokens = tokens
        self._is_exclusive = is_exclusive
        self._has_email = has_email

    def check_enabled(self) -> None:
        """Whether people may make accounts by themselves. Raises Forbidden."""
        if self._config.mode == "off":
            raise Forbidden("Registration is disabled")

    @property
    def flows(self) -> list[list[str]]:
        """What interactive authentication a registration takes. Raises Forbidden when there is no way."""
        self.check_enabled()
        stages = ["m.login.registration_token"] if self._config.mode == "token" else []
        if self._config.policies:
            stages.append("m.login.terms")
        if not self._has_email:
            return [stages or ["m.login.dummy"]]
        # No flow may be the beginning of another: https://spec.matrix.org/v1.19/client-server-api/#dummy-auth
        without_email = [] if self._config.require_email else [[*stages, "m.login.dummy"]]
        return [*without_email, [*stages, "m.login.email.identity"]]

    @property
    def flow_params(self) -> dict[str, Any]:
        """What clients need to know for the stages: the policies that are to be accepted.

        https://spec.matrix.org/v1.19/client-server-api/#terms-of-service-at-registration
        """
        policies: dict[str, dict[str, Any]] = {}
        for policy in self._config.policies:
            translations = policies.setdefault(policy.policy_id, {"version": policy.version})
            translations[policy.language] = {"name": policy.name, "url": policy.url}
        return {"m.login.terms": {"policies": policies}} if policies else {}

    async def check_token(self, token: str, session: str | None = None) -> str | None:
        """Returns the registration token that a registration will use up, None for one of the configuration.

        `session` is the interactive authentication that may hold a use of it already. Raises Forbidden for a token
        that is unknown, spent or expired, and when registration is off.
        """
        self.check_enabled()
        matches = [known.matches(token) for known in self._config.tokens]  # all are compared: no hint of which
        if any(matches):
            return None
        now = self._clock()
        if REGISTRATION_TOKEN.fullmatch(token):
            row = await self._tokens.load_registration_token(token, pending_since_ts=now - PENDING_MS, session=session)
            if (
                row is not None
                and (row.expires_ts is None or row.expires_ts > now)
                and (row.uses_allowed is None or row.completed + row.pending < row.uses_allowed)
            ):
                return token
        raise Forbidden("Invalid registration token")

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
        refreshable: bool = False,
        registration_token: str | None = None,
        email: ProvedEmail | None = None,
    ) -> dict[str, Any]:
        """Makes an account for somebody who has authenticated, and logs in; returns the body of the answer.

        Without a username one is generated; `display_name` is the new device's. Raises as `create_user` and
        `Sessions.open` do.
        """
        check_device_id(device_id)
        check_display_name(display_name)
        user_id = await self.create_user(
            self._generated_localpart() if username is None else username,
            password,
            accepted_policies=sorted({f"{policy.policy_id} {policy.version}" for policy in self._config.policies}),
            registration_token=registration_token,
            email=email,
        )
        if inhibit_login:
            return {"user_id": user_id, "home_server": self._server_name}
        return await self._login.open_session(
            user_id, device_id=device_id, display_name=display_name, refreshable=refreshable
        )

    async def create_user(
        self,
        username: str,
        password: str | None,
        *,
        is_admin: bool = False,
        displayname: str | None = None,
        accepted_policies: Sequence[str] = (),
        registration_token: str | None = None,
        email: ProvedEmail | None = None,
    ) -> str:
        """Makes an account, whatever the registration mode; returns its user ID.

        Without a password its user logs in by other means. `displayname` is the profile's, `registration_token` and
        `email` are to be used up. Raises as `check_username` and `check_new_password` do, Forbidden for a spent token,
        ThreepidAuthFailed and MatrixError (400 M_THREEPID_IN_USE) for an address that is not to be had.
        """
        user_id = await self.check_username(username)
        try:
            await self._accounts.insert_user(
                user_id,
                password_hash=None if password is None else await self._passwords.hash(password),
                created_ts=self._clock(),
                is_admin=is_admin,
                displayname=displayname,
                accepted_policies=accepted_policies,
                registration_token=registration_token,
                email=email,
            )
        except UserExists:
            raise UserInUse from None
        except RegistrationTokenSpent:
            raise Forbidden("The registration token has no use left") from None
        except NotValidated:
            raise ThreepidAuthFailed from None
        except ThreepidInUse:
            raise threepid_in_use() from None
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

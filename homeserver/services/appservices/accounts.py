"""The users of application services: who a service acts as, and how it makes its users and logs in as them.

https://spec.matrix.org/v1.19/application-service-api/#identity-assertion
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from homeserver.clock import Clock
from homeserver.services.accounts.login import Login, check_may_log_in, identified_user_id
from homeserver.services.accounts.registration import InvalidUsername, UserInUse
from homeserver.services.accounts.sessions import Requester, Sessions, check_device_id, check_display_name
from homeserver.services.appservices.services import Service
from homeserver.services.errors import Forbidden, InvalidParam, MatrixError
from matrix.identifiers import MAX_IDENTIFIER_BYTES, is_new_localpart
from storage.accounts import AccountRepository, DeviceIdIsKey, UserExists
from storage.appservices import AppserviceRepository, MasqueradeRow

APPLICATION_SERVICE = "m.login.application_service"


class Exclusive(MatrixError):
    """400 M_EXCLUSIVE."""

    def __init__(self, message: str) -> None:
        super().__init__(400, "M_EXCLUSIVE", message)


class Masquerading:
    """Finds out who a service acts as (kept by `Sessions`, and forgotten there with the user's sessions)."""

    def __init__(
        self, repository: AppserviceRepository, accounts: AccountRepository, sessions: Sessions, clock: Clock
    ) -> None:
        self._repository = repository
        self._accounts = accounts
        self._sessions = sessions
        self._clock = clock

    async def access(self, service: Service, user_id: str | None, device_id: str | None) -> Requester:
        """Who makes a request that came with a service's token: its sender, unless it names one of its users.

        The users have to be registered; the sender comes into being when it is first needed. Raises Forbidden for
        all others, MatrixError (400 M_UNKNOWN_DEVICE), MatrixError (403 M_USER_DEACTIVATED).
        """
        user_id = user_id or service.sender
        # The registration is part of the key: what another one allowed is no longer known.
        key = (service, user_id, device_id)
        known = self._sessions.known(key)
        if known is not None:
            return known
        if not service.covers_user(user_id):
            raise Forbidden("The user is in none of the application service's namespaces")
        return await self._sessions.access_as(key, lambda: self._load(service, user_id, device_id))

    async def _load(self, service: Service, user_id: str, device_id: str | None) -> Requester:
        if "\0" in user_id:
            raise InvalidParam("user_id has a NUL character")
        check_device_id(device_id)
        row = await self._repository.load_masquerade(user_id, device_id)
        if row is None:
            row = await self._make_sender(service, user_id, device_id)
        if row.deactivated:
            raise MatrixError(403, "M_USER_DEACTIVATED", "This account has been deactivated")
        device = row.device
        if device is None:
            if device_id is not None:
                raise MatrixError(400, "M_UNKNOWN_DEVICE", "The user has no such device")
            device = row.appservice_device or await self._repository.number_appservice_device(user_id)
        return Requester(
            user_id,
            device,
            device_id or "",
            row.is_admin,
            row.locked,
            row.suspended,
            appservice=service.id,
            is_unlimited=user_id == service.sender or not service.registration.rate_limited,
        )

    async def _make_sender(self, service: Service, user_id: str, device_id: str | None) -> MasqueradeRow:
        if user_id != service.sender:
            raise Forbidden("The application service has not registered this user")
        with suppress(UserExists):  # another request was faster
            await self._accounts.insert_user(
                user_id, password_hash=None, created_ts=self._clock(), appservice_id=service.id
            )
        row = await self._repository.load_masquerade(user_id, device_id)
        assert row is not None, "accounts are never removed"
        return row


class ServiceAccounts:
    """What services do with accounts: register their users, log in as them, make devices for them."""

    def __init__(
        self,
        repository: AppserviceRepository,
        accounts: AccountRepository,
        login: Login,
        clock: Clock,
        *,
        server_name: str,
    ) -> None:
        self._repository = repository
        self._accounts = accounts
        self._login = login
        self._clock = clock
        self._server_name = server_name

    async def register(
        self,
        service: Service,
        username: str,
        *,
        device_id: str | None = None,
        display_name: str | None = None,
        inhibit_login: bool = False,
        refreshable: bool = False,
    ) -> dict[str, Any]:
        """Makes an account without a password; returns the body of the answer.

        The name is taken as it is: in lower case it would be another user than the one that the service means.
        Raises Exclusive outside of the service's namespaces, UserInUse, InvalidUsername, InvalidParam.
        https://spec.matrix.org/v1.19/application-service-api/#server-admin-style-permissions
        """
        check_device_id(device_id)
        check_display_name(display_name)
        if not is_new_localpart(username):
            raise InvalidUsername("A username may only have the letters a-z, digits, and the characters . _ = / + -")
        user_id = f"@{username}:{self._server_name}"
        if len(user_id) > MAX_IDENTIFIER_BYTES:
            raise InvalidUsername(f"A user ID must not have more than {MAX_IDENTIFIER_BYTES} bytes")
        if not service.covers_user(user_id):
            raise Exclusive("The user ID is in none of the application service's namespaces")
        try:
            await self._accounts.insert_user(
                user_id, password_hash=None, created_ts=self._clock(), appservice_id=service.id
            )
        except UserExists:
            raise UserInUse from None
        if inhibit_login:
            return {"user_id": user_id, "home_server": self._server_name}
        return await self._login.open_session(
            user_id, device_id=device_id, display_name=display_name, refreshable=refreshable
        )

    async def login(
        self,
        service: Service,
        credentials: Mapping[str, object],
        *,
        device_id: str | None,
        display_name: str | None,
        refreshable: bool,
    ) -> dict[str, Any]:
        """Opens a session as one of a service's users; returns the body of the answer.

        Raises Exclusive outside of the service's namespaces, Forbidden for a user who is not there, or as
        `identified_user_id`, `check_may_log_in` and `Login.open_session` do.
        """
        user_id = identified_user_id(credentials, self._server_name)
        if not service.covers_user(user_id):
            raise Exclusive("The user ID is in none of the application service's namespaces")
        user = None if "\0" in user_id else await self._accounts.load_user(user_id)
        if user is None:
            raise Forbidden("The application service has not registered this user")
        check_may_log_in(user)
        return await self._login.open_session(
            user.user_id, device_id=device_id, display_name=display_name, refreshable=refreshable
        )

    async def create_device(self, user_id: str, device_id: str, display_name: str | None) -> bool:
        """Makes a device that has no access token; False if there is such a device already. Raises InvalidParam.

        https://spec.matrix.org/v1.19/application-service-api/#creating-devices
        """
        check_device_id(device_id)
        check_display_name(display_name)
        try:
            return await self._repository.insert_device(user_id, device_id, display_name)
        except DeviceIdIsKey:
            raise InvalidParam("The device ID is one of the user's cross-signing keys") from None

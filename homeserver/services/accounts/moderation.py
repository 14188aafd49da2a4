"""What administrators do about other users' accounts, and what they may know of them.

https://spec.matrix.org/v1.19/client-server-api/#server-administration
"""

from __future__ import annotations

from typing import Any

from homeserver.services.accounts.sessions import Requester, Sessions
from homeserver.services.errors import Forbidden, InvalidParam, NotFound
from matrix.identifiers import get_domain, is_user_id
from storage.accounts import AccountRepository, UserRow


class Moderation:
    """Locks and suspends accounts. Who asks is judged before anything is looked up, as the specification demands."""

    def __init__(self, accounts: AccountRepository, sessions: Sessions, server_name: str) -> None:
        self._accounts = accounts
        self._sessions = sessions
        self._server_name = server_name

    async def access_account(self, requester: Requester, user_id: str, *, changes: bool = False) -> UserRow:
        """Another user's account, for an administrator to look at its restrictions or change them.

        Raises Forbidden for others, for another administrator's account, and for changes of one's own; InvalidParam
        for a user of another server; NotFound for an account that is not there or deactivated.
        """
        if not requester.is_admin:
            raise Forbidden("You are not a server administrator")
        if changes and user_id == requester.user_id:
            raise Forbidden("This is your own account")
        if not is_user_id(user_id) or get_domain(user_id) != self._server_name:
            raise InvalidParam("The user does not belong to this server")
        user = await self._accounts.load_user(user_id)
        if user is None or user.deactivated:
            raise NotFound("No such user")
        if user.is_admin and user_id != requester.user_id:
            raise Forbidden("This is another administrator's account")
        return user

    async def set_suspended(self, requester: Requester, user_id: str, suspended: bool) -> None:
        """Suspends a user or ends that. Raises as `access_account` does.

        https://spec.matrix.org/v1.19/client-server-api/#account-suspension
        """
        await self.access_account(requester, user_id, changes=True)
        await self._accounts.set_suspended(user_id, suspended)
        self._sessions.forget_user(user_id)

    async def set_locked(self, requester: Requester, user_id: str, locked: bool) -> None:
        """Locks or unlocks a user. Raises as `access_account` does.

        https://spec.matrix.org/v1.19/client-server-api/#account-locking
        """
        await self.access_account(requester, user_id, changes=True)
        await self._accounts.set_locked(user_id, locked)
        self._sessions.forget_user(user_id)

    async def whois(self, requester: Requester, user_id: str) -> dict[str, Any]:
        """A user's devices and where they were last seen, for the user and for administrators.

        Raises Forbidden for others, and NotFound. User agents are not kept.
        """
        if user_id != requester.user_id:
            if not requester.is_admin:
                raise Forbidden("You are not a server administrator")
            if "\0" in user_id or await self._accounts.load_user(user_id) is None:
                raise NotFound("No such user")
        devices = {}
        for row in await self._sessions.devices(user_id):
            seen = {"ip": row.last_seen_ip, "last_seen": row.last_seen_ts}
            connections = [seen] if row.last_seen_ts is not None else []
            devices[row.device_id] = {"sessions": [{"connections": connections}]}
        return {"user_id": user_id, "devices": devices}

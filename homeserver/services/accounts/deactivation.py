"""Closing accounts for good."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from homeserver.services.accounts.sessions import Sessions
from storage.accounts import AccountRepository


async def nothing_more(_user_id: str) -> None:
    """For programs that know no rooms: the account alone is closed."""


class Deactivation:
    """Closes accounts. A user ID once used is never given to anybody else.

    https://spec.matrix.org/v1.19/client-server-api/#account-deactivation
    """

    def __init__(
        self,
        accounts: AccountRepository,
        sessions: Sessions,
        on_deactivated: Callable[[str], Awaitable[None]] = nothing_more,
    ) -> None:
        self._accounts = accounts
        self._sessions = sessions
        self._on_deactivated = on_deactivated

    async def deactivate(self, user_id: str, *, erase: bool = False) -> None:
        """Ends a user's sessions and removes the password, then does what `on_deactivated` does: leaving rooms.

        With `erase`, the profile, the account data, the filters, the presence and all files are removed too, and who
        joins their rooms from then on is not shown what they wrote.
        """
        erased = await self._accounts.deactivate(user_id, erase=erase)
        if erased is not None:
            self._sessions.account_erased(user_id, erased)
        self._sessions.session_ended(user_id)
        await self._sessions.devices_changed(user_id)  # while there are rooms whose members are told of it
        await self._on_deactivated(user_id)

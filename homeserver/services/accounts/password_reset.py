"""Setting another password without the old one: for whoever reads the mails of the account's address.

https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3accountpassword
"""

from __future__ import annotations

from homeserver.services.accounts.login import check_may_log_in
from homeserver.services.accounts.passwords import Passwords
from homeserver.services.accounts.sessions import Sessions
from homeserver.services.email.validations import ThreepidAuthFailed, Validations
from storage.accounts import AccountRepository
from storage.threepids import ThreepidRepository


class PasswordReset:
    """Resets forgotten passwords."""

    def __init__(
        self,
        accounts: AccountRepository,
        threepids: ThreepidRepository,
        validations: Validations,
        passwords: Passwords,
        sessions: Sessions,
    ) -> None:
        self._accounts = accounts
        self._threepids = threepids
        self._validations = validations
        self._passwords = passwords
        self._sessions = sessions

    async def reset(self, sid: str, new_password: str, *, logout_devices: bool) -> None:
        """Gives the account whose address was proved in an attempt another password; the attempt is used up.

        With `logout_devices`, all its sessions end. Raises ThreepidAuthFailed, UserLocked, or as `check_new_password`.
        """
        since_ts = self._validations.since_ts
        row = await self._threepids.load_validation(sid, since_ts=since_ts)
        user_id = None if row is None else await self._validations.user_of(row)
        user = None if user_id is None else await self._accounts.load_user(user_id)
        if user is None:
            raise ThreepidAuthFailed
        check_may_log_in(user)
        password_hash = await self._passwords.hash(new_password)
        done_for = await self._threepids.reset_password(sid, password_hash, since_ts=since_ts)
        if done_for is None:
            raise ThreepidAuthFailed
        if logout_devices:
            await self._sessions.close_all(done_for)

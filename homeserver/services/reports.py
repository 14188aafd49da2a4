"""Reports to the administrators about rooms, events and users. `weft reports list` shows them.

https://spec.matrix.org/v1.19/client-server-api/#reporting-content
"""

from __future__ import annotations

from typing import Final

from homeserver.clock import Clock
from homeserver.services.errors import Forbidden, InvalidParam, NotFound
from homeserver.services.rooms.access import Access
from matrix.identifiers import get_domain, is_user_id
from storage.accounts import AccountRepository
from storage.reports import ReportRepository

MAX_REASON_BYTES: Final = 4096


class Reports:
    """Keeps what users report."""

    def __init__(
        self,
        reports: ReportRepository,
        accounts: AccountRepository,
        access: Access,
        clock: Clock,
        *,
        server_name: str,
    ) -> None:
        self._reports = reports
        self._accounts = accounts
        self._access = access
        self._clock = clock
        self._server_name = server_name

    async def report_room(self, reporter: str, room_id: str, reason: str) -> None:
        """Reports a room, which the reporter need not be in. Raises NotFound, InvalidParam."""
        check_reason(reason)
        await self._access.access_room(room_id)
        await self._reports.insert_report(reporter, received_ts=self._clock(), reason=reason, room_id=room_id)

    async def report_event(self, reporter: str, room_id: str, event_id: str, reason: str) -> None:
        """Reports an event that the reporter can see in a room they are in. Raises NotFound, InvalidParam."""
        check_reason(reason)
        try:
            await self._access.access_joined_room(reporter, room_id)
        except Forbidden:
            raise NotFound("No such event") from None
        await self._access.access_event(reporter, room_id, event_id)
        await self._reports.insert_report(
            reporter, received_ts=self._clock(), reason=reason, room_id=room_id, event_id=event_id
        )

    async def report_user(self, reporter: str, user_id: str, reason: str) -> None:
        """Reports a user, of this server or another. Raises NotFound, InvalidParam."""
        check_reason(reason)
        if not is_user_id(user_id):
            raise NotFound("No such user")
        if get_domain(user_id) == self._server_name and await self._accounts.load_user(user_id) is None:
            raise NotFound("No such user")
        await self._reports.insert_report(reporter, received_ts=self._clock(), reason=reason, user_id=user_id)


def check_reason(reason: str) -> None:
    """Raises InvalidParam for a reason that nobody would read, or with a NUL character."""
    if "\0" in reason or len(reason.encode()) > MAX_REASON_BYTES:
        raise InvalidParam(f"reason must not have more than {MAX_REASON_BYTES} bytes, nor a NUL character")

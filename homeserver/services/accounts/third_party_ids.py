"""The third-party identifiers of accounts: e-mail addresses that their users have proved to be theirs.

https://spec.matrix.org/v1.19/client-server-api/#adding-account-administrative-contact-information
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from homeserver.clock import Clock
from homeserver.services.email.validations import LIFETIME_MS, ThreepidAuthFailed
from homeserver.services.errors import MatrixError
from matrix.third_party_ids import EMAIL, canonical_email
from storage.threepids import NotValidated, ThreepidInUse, ThreepidRepository, TooManyThreepids

MAX_PER_USER: Final = 20


def threepid_in_use() -> MatrixError:
    """400 M_THREEPID_IN_USE: said to those alone who have proved that the address is theirs."""
    return MatrixError(400, "M_THREEPID_IN_USE", "Another account has this e-mail address")


class ThirdPartyIds:
    """Gives accounts addresses, and takes them away. `on_removed` is told whose address, and pusher, is gone."""

    def __init__(self, repository: ThreepidRepository, clock: Clock, on_removed: Callable[[str], None]) -> None:
        self._repository = repository
        self._clock = clock
        self._on_removed = on_removed

    async def of(self, user_id: str) -> list[dict[str, Any]]:
        """An account's identifiers, as `GET /account/3pid` lists them."""
        return [
            {
                "medium": row.medium,
                "address": row.address,
                "validated_at": row.validated_ts,
                "added_at": row.added_ts,
            }
            for row in await self._repository.load_of_user(user_id)
        ]

    async def user_of(self, medium: str, address: str) -> str | None:
        """Whose account has an identifier, in any way of writing it."""
        canonical = canonical_email(address) if medium == EMAIL else None
        return None if canonical is None else await self._repository.load_user_of(EMAIL, canonical)

    async def add(self, user_id: str, sid: str) -> None:
        """Gives an account the address that was proved in an attempt.

        Raises ThreepidAuthFailed, MatrixError (400 M_THREEPID_IN_USE, M_LIMIT_EXCEEDED).
        """
        now = self._clock()
        try:
            await self._repository.add(user_id, sid, since_ts=now - LIFETIME_MS, now_ms=now, max_per_user=MAX_PER_USER)
        except NotValidated:
            raise ThreepidAuthFailed from None
        except ThreepidInUse:
            raise threepid_in_use() from None
        except TooManyThreepids:
            raise MatrixError(400, "M_LIMIT_EXCEEDED", f"More than {MAX_PER_USER} addresses") from None

    async def remove(self, user_id: str, medium: str, address: str) -> None:
        """Takes an identifier from an account, if it has it, and with it the notifications to it."""
        canonical = canonical_email(address) if medium == EMAIL else None
        if canonical is not None and await self._repository.delete(user_id, EMAIL, canonical):
            self._on_removed(user_id)

"""Throws away what is kept no longer: by age, and where a room's own policy ends the life of its messages."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from appservices.summary_bot.clock import DAY_MS
from appservices.summary_bot.config import Limits
from appservices.summary_bot.matrix.client import MatrixClient, MatrixFailure
from appservices.summary_bot.storage.answers import Answer, AnswerRepository
from appservices.summary_bot.storage.audit import AuditRepository
from appservices.summary_bot.storage.budgets import BudgetRepository
from appservices.summary_bot.storage.facts import FactRepository

TakeBack = Callable[[Sequence[Answer]], Awaitable[None]]


class Keeper:
    """`take_back` takes answers back from where they were sent, and forgets them."""

    def __init__(
        self,
        client: MatrixClient,
        facts: FactRepository,
        answers: AnswerRepository,
        budgets: BudgetRepository,
        audit: AuditRepository,
        take_back: TakeBack,
        limits: Limits,
    ) -> None:
        self._client = client
        self._facts = facts
        self._answers = answers
        self._budgets = budgets
        self._audit = audit
        self._take_back = take_back
        self._limits = limits

    async def purge(self, now: int) -> None:
        """Drops what is too old now. Raises MatrixFailure where a room's policy cannot be asked for."""
        await self._facts.purge(now - self._limits.keep_days * DAY_MS)
        await self._budgets.purge(now - self._limits.keep_usage_days * DAY_MS)
        await self._audit.purge(now - self._limits.keep_audit_days * DAY_MS)
        for room_id in sorted({*await self._facts.load_rooms(), *await self._answers.load_rooms()}):
            lifetime = await self._lifetime_ms(room_id)
            if lifetime is not None:
                await self._facts.purge_room(room_id, now - lifetime)
                while answers := await self._answers.load_expired(room_id, now - lifetime):
                    await self._take_back(answers)

    async def _lifetime_ms(self, room_id: str) -> int | None:
        """How long a room's messages live: `max_lifetime` of `m.room.retention`.

        https://github.com/matrix-org/matrix-spec-proposals/pull/1763
        """
        try:
            state = await self._client.load_state(room_id, "m.room.retention")
        except MatrixFailure as failure:
            if failure.is_temporary:
                raise
            return None
        policy = (state or {}).get("max_lifetime")
        return policy if type(policy) is int and policy > 0 else None

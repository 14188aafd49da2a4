"""Budgets by the day: estimated and reserved before a call, settled after it.

A reservation is one transaction over the books of the person, the room and the server; whichever has no room left
refuses all of it. What runs at the same time can therefore never spend more than is left together.
"""

from __future__ import annotations

from appservices.summary_bot.clock import Clock
from appservices.summary_bot.config import Budgets, ModelOptions, Provider
from appservices.summary_bot.engines.models.provider import Prompt, Reply
from appservices.summary_bot.storage.budgets import Amount, BudgetRepository, Limit, Reservation, UsageRow

MICRO = 1_000_000


class OverBudget(Exception):
    """There is nothing left in a book: `scope` says whose."""

    def __init__(self, scope: str) -> None:
        super().__init__(scope)
        self.scope = scope


class Ledger:
    """Reserves and settles."""

    def __init__(self, budgets: Budgets, repository: BudgetRepository, clock: Clock) -> None:
        self._budgets = budgets
        self._repository = repository
        self._clock = clock

    async def reserve(self, user_id: str, room_id: str, model: ModelOptions, prompt: Prompt) -> Reservation:
        """Sets aside the most that a call may take. Raises OverBudget."""
        output_tokens = prompt.max_output_tokens
        return await self.reserve_tokens(user_id, room_id, model, prompt.tokens - output_tokens, output_tokens)

    async def reserve_tokens(
        self, user_id: str, room_id: str, model: ModelOptions, input_tokens: int, output_tokens: int
    ) -> Reservation:
        """Sets tokens aside. Raises OverBudget."""
        amount = Amount(input_tokens + output_tokens, cost_micro(model, input_tokens, output_tokens))
        limits = await self.limits(user_id, room_id)
        reservation = await self._repository.reserve(user_id, room_id, amount, limits, now=self._clock())
        if isinstance(reservation, str):
            raise OverBudget(reservation)
        return reservation

    async def limits(self, user_id: str, room_id: str) -> list[Limit]:
        """The books that a call is written into, and what each may hold in a day."""
        budgets = self._budgets
        limits = [
            Limit("person", user_id, budgets.person_tokens, _micro(budgets.person_cost)),
            Limit("room", room_id, budgets.room_tokens, _micro(budgets.room_cost)),
            Limit("server", "", budgets.server_tokens, _micro(budgets.server_cost)),
        ]
        return await self._repository.load_limits(limits)

    async def settle(
        self,
        reservation: Reservation,
        provider: Provider,
        purpose: str,
        reply: Reply | None,
        *,
        latency_ms: int,
        outcome: str,
    ) -> None:
        """Writes down what a call took. Without an answer nothing is known: a call that failed is taken to be free, one
        that was broken off to have cost what was reserved."""
        if reply is not None:
            used = Amount(
                reply.input_tokens + reply.output_tokens,
                cost_micro(provider.model, reply.input_tokens, reply.output_tokens),
            )
        elif outcome in ("cancelled", "timeout"):
            used = reservation.amount
        else:
            used = Amount(0, 0)
        row = UsageRow(
            ts=self._clock(),
            user_id=reservation.user_id,
            room_id=reservation.room_id,
            provider=provider.name,
            model=provider.model.name,
            purpose=purpose,
            input_tokens=reply.input_tokens if reply else 0,
            output_tokens=reply.output_tokens if reply else 0,
            cached=False,
            cost_micro=used.cost_micro,
            latency_ms=latency_ms,
            outcome=outcome,
        )
        await self._repository.settle(reservation, used, row)

    async def note_cached(self, user_id: str, room_id: str, tokens: int) -> None:
        """Writes down what the cache saved."""
        row = UsageRow(self._clock(), user_id, room_id, "cache", "", "facts", tokens, 0, True, 0, 0, "ok")
        await self._repository.persist_usage(row)


def cost_micro(model: ModelOptions, input_tokens: int, output_tokens: int) -> int:
    """What tokens cost, in millionths of the currency, rounded up: prices are per million tokens."""
    cost = input_tokens * model.input_price + output_tokens * model.output_price
    return int(cost) + (cost > int(cost))


def _micro(amount: float | None) -> int | None:
    return None if amount is None else int(amount * MICRO)

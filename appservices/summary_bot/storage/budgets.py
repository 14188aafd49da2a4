"""The books: what was spent by whom on which day, and a line for every call of a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from datetime import UTC, date, datetime

from appservices.summary_bot.storage.database import Database

LOAD_LIMITS = """
SELECT scope, key, tokens FROM budgets
WHERE (scope, key) IN (SELECT * FROM unnest($1::text[], $2::text[]))
"""

# An amount that does not fit changes nothing and returns nothing.
RESERVE = """
INSERT INTO ledgers AS l (scope, key, day, tokens, cost_micro)
SELECT $1, $2, $3, $4, $5 WHERE ($6::bigint IS NULL OR $4 <= $6) AND ($7::bigint IS NULL OR $5 <= $7)
ON CONFLICT (scope, key, day) DO UPDATE SET
    tokens = l.tokens + EXCLUDED.tokens, cost_micro = l.cost_micro + EXCLUDED.cost_micro
WHERE ($6::bigint IS NULL OR l.tokens + EXCLUDED.tokens <= $6)
  AND ($7::bigint IS NULL OR l.cost_micro + EXCLUDED.cost_micro <= $7)
RETURNING 1
"""
INSERT_RESERVATION = """
INSERT INTO reservations (day, user_id, room_id, tokens, cost_micro, created_ts) VALUES ($1, $2, $3, $4, $5, $6)
RETURNING reservation
"""
DELETE_RESERVATION = "DELETE FROM reservations WHERE reservation = $1 RETURNING 1"
SETTLE = """
UPDATE ledgers SET tokens = greatest(0, tokens + $5), cost_micro = greatest(0, cost_micro + $6)
WHERE day = $1 AND ((scope = 'person' AND key = $2) OR (scope = 'room' AND key = $3) OR (scope = 'server' AND key = $4))
"""
FORGET_RESERVATIONS = "DELETE FROM reservations"
PURGES = ("DELETE FROM usage WHERE ts < $1", "DELETE FROM reservations WHERE created_ts < $1")
PURGE_LEDGERS = "DELETE FROM ledgers WHERE day < $1"
INSERT_USAGE = """
INSERT INTO usage (ts, user_id, room_id, provider, model, purpose, input_tokens, output_tokens, cached, cost_micro,
                   latency_ms, outcome)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
"""
LOAD_LEDGER = "SELECT tokens, cost_micro FROM ledgers WHERE scope = $1 AND key = $2 AND day = $3"
SUM_USAGE = """
SELECT coalesce(sum(input_tokens + output_tokens) FILTER (WHERE NOT cached), 0)::bigint AS tokens,
       coalesce(sum(cost_micro), 0)::bigint AS cost_micro, count(*) FILTER (WHERE NOT cached) AS calls,
       coalesce(sum(input_tokens) FILTER (WHERE cached), 0)::bigint AS cached
FROM usage WHERE ts >= $1 AND ($2::text IS NULL OR user_id = $2) AND ($3::text IS NULL OR room_id = $3)
"""
SET_LIMIT = """
INSERT INTO budgets (scope, key, tokens) VALUES ($1, $2, $3)
ON CONFLICT (scope, key) DO UPDATE SET tokens = EXCLUDED.tokens
"""
DELETE_LIMIT = "DELETE FROM budgets WHERE scope = $1 AND key = $2"


@dataclass(frozen=True, slots=True)
class Amount:
    """Tokens, and millionths of the currency."""

    tokens: int
    cost_micro: int


@dataclass(frozen=True, slots=True)
class Limit:
    """What a book may hold in a day; None for any amount."""

    scope: str
    key: str
    tokens: int | None
    cost_micro: int | None


@dataclass(frozen=True, slots=True)
class Reservation:
    """Set aside, and not yet settled."""

    reservation: int
    day: date
    user_id: str
    room_id: str
    amount: Amount


@dataclass(frozen=True, slots=True)
class UsageRow:
    """A call of a model, or what the cache saved."""

    ts: int
    user_id: str
    room_id: str
    provider: str
    model: str
    purpose: str
    input_tokens: int
    output_tokens: int
    cached: bool
    cost_micro: int
    latency_ms: int
    outcome: str


@dataclass(frozen=True, slots=True)
class UsageSum:
    """What was used since some time."""

    tokens: int
    cost_micro: int
    calls: int
    cached: int


class _DoesNotFit(Exception):
    """Ends the transaction of a reservation."""


class BudgetRepository:
    """Reads and writes the books."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def load_limits(self, limits: Sequence[Limit]) -> list[Limit]:
        """The limits, with what administrators have set in the place of the configuration's tokens."""
        rows = await self._database.pool.fetch(LOAD_LIMITS, [x.scope for x in limits], [x.key for x in limits])
        own = {(row["scope"], row["key"]): row["tokens"] for row in rows}
        return [
            Limit(limit.scope, limit.key, own.get((limit.scope, limit.key), limit.tokens), limit.cost_micro)
            for limit in limits
        ]

    async def reserve(
        self, user_id: str, room_id: str, amount: Amount, limits: Sequence[Limit], *, now: int
    ) -> Reservation | str:
        """Writes an amount into every book or into none; the scope of the book that has no room for it."""
        day = day_of(now)
        scope = ""
        try:
            async with self._database.transaction() as connection:
                for limit in limits:
                    scope = limit.scope
                    arguments = (
                        scope,
                        limit.key,
                        day,
                        amount.tokens,
                        amount.cost_micro,
                        limit.tokens,
                        limit.cost_micro,
                    )
                    if not await connection.fetchval(RESERVE, *arguments):
                        raise _DoesNotFit
                number = await connection.fetchval(
                    INSERT_RESERVATION, day, user_id, room_id, amount.tokens, amount.cost_micro, now
                )
        except _DoesNotFit:
            return scope
        return Reservation(number, day, user_id, room_id, amount)

    async def settle(self, reservation: Reservation, used: Amount, row: UsageRow) -> None:
        """Puts what was really used in the place of what was reserved. Once: a second time changes nothing."""
        async with self._database.transaction() as connection:
            if not await connection.fetchval(DELETE_RESERVATION, reservation.reservation):
                return
            tokens = used.tokens - reservation.amount.tokens
            cost = used.cost_micro - reservation.amount.cost_micro
            # In the order in which reservations lock the books.
            await connection.execute(SETTLE, reservation.day, reservation.user_id, "", "-", tokens, cost)
            await connection.execute(SETTLE, reservation.day, "", reservation.room_id, "-", tokens, cost)
            await connection.execute(SETTLE, reservation.day, "", "", "", tokens, cost)
            await connection.execute(INSERT_USAGE, *astuple(row))

    async def forget_reservations(self) -> None:
        """At the start: what was reserved when the bot stopped counts as spent."""
        await self._database.pool.execute(FORGET_RESERVATIONS)

    async def persist_usage(self, row: UsageRow) -> None:
        """Adds a line."""
        await self._database.pool.execute(INSERT_USAGE, *astuple(row))

    async def load_spent(self, scope: str, key: str, *, now: int) -> Amount:
        """What a book holds today."""
        row = await self._database.pool.fetchrow(LOAD_LEDGER, scope, key, day_of(now))
        return Amount(0, 0) if row is None else Amount(row["tokens"], row["cost_micro"])

    async def sum_usage(self, since: int, user_id: str | None, room_id: str | None) -> UsageSum:
        """What was used since a time: by somebody, in a room, or by all."""
        return UsageSum(**dict(await self._database.pool.fetchrow(SUM_USAGE, since, user_id, room_id)))

    async def purge(self, before: int) -> None:
        """Drops lines and books from before a time."""
        for statement in PURGES:
            await self._database.pool.execute(statement, before)
        await self._database.pool.execute(PURGE_LEDGERS, day_of(before))

    async def set_limit(self, scope: str, key: str, tokens: int | None) -> None:
        """Sets what a book may hold in a day; None for what the configuration says."""
        if tokens is None:
            await self._database.pool.execute(DELETE_LIMIT, scope, key)
        else:
            await self._database.pool.execute(SET_LIMIT, scope, key, tokens)


def day_of(now: int) -> date:
    """The day, in UTC."""
    return datetime.fromtimestamp(now / 1000, UTC).date()

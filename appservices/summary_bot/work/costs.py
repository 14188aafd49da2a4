"""`!usage` and `!budget`."""

from __future__ import annotations

from collections.abc import Collection

from appservices.summary_bot.answers.render import heading, paragraph
from appservices.summary_bot.answers.split import Piece
from appservices.summary_bot.budget.ledger import MICRO, Ledger
from appservices.summary_bot.clock import DAY_MS, Clock
from appservices.summary_bot.commands.model import Command
from appservices.summary_bot.storage.audit import AuditRepository
from appservices.summary_bot.storage.budgets import BudgetRepository
from appservices.summary_bot.work.conversation import Conversation, Talk


class Costs:
    """What models cost, and what they may cost."""

    def __init__(
        self,
        budgets: BudgetRepository,
        ledger: Ledger,
        audit: AuditRepository,
        talk: Talk,
        administrators: Collection[str],
        currency: str,
        clock: Clock,
    ) -> None:
        self._budgets = budgets
        self._ledger = ledger
        self._audit = audit
        self._talk = talk
        self._administrators = administrators
        self._currency = currency
        self._clock = clock

    async def usage(self, talk: Conversation, command: Command) -> None:
        """What the asker used today; for administrators, what the room or all did."""
        if command.words and talk.asker not in self._administrators:
            await self._talk.reply(talk, "administrators_only")
            return
        user_id = None if command.words else talk.asker
        room_id = talk.room_id if command.words == ("room",) else None
        now = self._clock()
        used = await self._budgets.sum_usage(now - now % DAY_MS, user_id, room_id)
        line = talk.text(
            "usage_all" if command.words else "usage_title",
            tokens=used.tokens,
            cost=f"{used.cost_micro / MICRO:.4f}",
            currency=self._currency,
            calls=used.calls,
            cached=used.cached,
        )
        await self._talk.reply_directly(talk, [paragraph(line)])

    async def budget(self, talk: Conversation, command: Command) -> None:
        """What is left today; administrators set it."""
        if command.words:
            await self._set(talk, command)
            return
        pieces: list[Piece] = [heading("!budget")]
        for limit in await self._ledger.limits(talk.asker, talk.room_id):
            if limit.scope == "room" and talk.is_direct:
                continue  # what is asked in a direct chat is paid for by the room that it is about
            spent = await self._budgets.load_spent(limit.scope, limit.key, now=self._clock())
            allowed = talk.text("budget_unlimited") if limit.tokens is None else limit.tokens
            scope = talk.text(f"scope_{limit.scope}")
            line = talk.text("budget_line", scope=scope, used=spent.tokens, limit=allowed)
            if limit.cost_micro is not None:
                line += f"; {spent.cost_micro / MICRO:.4f} / {limit.cost_micro / MICRO:.2f} {self._currency}"
            pieces.append(paragraph(line))
        await self._talk.reply_directly(talk, pieces)

    async def _set(self, talk: Conversation, command: Command) -> None:
        if talk.asker not in self._administrators:
            await self._talk.reply(talk, "administrators_only")
            return
        scope, key, count = command.words
        await self._budgets.set_limit(scope, key, None if count == "default" else int(count))
        await self._audit.persist_entry(
            self._clock(), talk.asker, "budget", key if scope == "room" else "", f"{scope} {count}"
        )
        await self._talk.reply(talk, "budget_set")

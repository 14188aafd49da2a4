"""Calls providers in their order until one answers: retries, breakers, budgets, and a line of usage for every call."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from appservices.summary_bot.budget.ledger import Ledger, OverBudget
from appservices.summary_bot.clock import Clock
from appservices.summary_bot.config import Provider
from appservices.summary_bot.engines.contract import Ask
from appservices.summary_bot.engines.models.breaker import Breaker
from appservices.summary_bot.engines.models.facts import Invalid
from appservices.summary_bot.engines.models.prompts import repair_prompt
from appservices.summary_bot.engines.models.provider import ChatProvider, OnText, Prompt, ProviderFailed, Reply
from appservices.summary_bot.engines.models.tokens import estimate_audio_tokens

FIRST_BACKOFF_MS = 250
MAX_BACKOFF_MS = 8000

T = TypeVar("T")

log = logging.getLogger(__name__)


class NoModel(Exception):
    """No model can be used. `reason` names a line that says why, `scope` whose budget it is."""

    def __init__(self, reason: str, scope: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.scope = scope


@dataclass(frozen=True, slots=True)
class Answered(Generic[T]):
    """What a model answered, read, and what it took."""

    value: T
    provider: Provider
    input_tokens: int
    output_tokens: int


class Chain:
    """The providers of the configuration."""

    def __init__(self, providers: Sequence[Provider], ledger: Ledger, clock: Clock) -> None:
        self._providers = [ChatProvider(provider) for provider in providers]
        self._breakers = {provider.name: Breaker() for provider in providers}
        self._ledger = ledger
        self._clock = clock

    def __bool__(self) -> bool:
        return bool(self._providers)

    def usable(self, *, local_only: bool) -> list[ChatProvider]:
        """The providers that a room may use."""
        return [provider for provider in self._providers if provider.options.local or not local_only]

    async def ask(
        self, ask: Ask, purpose: str, prompt: Prompt, read: Callable[[str], T], on_text: OnText | None = None
    ) -> Answered[T]:
        """The first answer that is of the form asked for. Raises NoModel."""
        providers = self.usable(local_only=ask.local_only)
        if not providers:
            raise NoModel("no_local")
        reason = "unavailable"
        for provider in providers:
            try:
                return await self._ask_provider(provider, ask, purpose, prompt, read, on_text)
            except ProviderFailed as failed:
                log.warning("provider %s: %s", provider.options.name, failed)
            except Invalid as invalid:
                log.warning("provider %s: invalid answer: %s", provider.options.name, invalid)
                reason = "invalid"
            except OverBudget as over:
                raise NoModel("budget", over.scope) from None
        raise NoModel(reason)

    async def _ask_provider(
        self,
        provider: ChatProvider,
        ask: Ask,
        purpose: str,
        prompt: Prompt,
        read: Callable[[str], T],
        on_text: OnText | None,
    ) -> Answered[T]:
        """Asks one provider, and once more if its answer makes no sense."""
        reply = await self._try(provider, ask, purpose, prompt, on_text)
        try:
            return Answered(read(reply.text), provider.options, reply.input_tokens, reply.output_tokens)
        except Invalid as invalid:
            repair = repair_prompt(prompt, reply.text, str(invalid))
        again = await self._try(provider, ask, f"{purpose}-repair", repair, None)
        return Answered(
            read(again.text),
            provider.options,
            reply.input_tokens + again.input_tokens,
            reply.output_tokens + again.output_tokens,
        )

    async def _try(
        self, provider: ChatProvider, ask: Ask, purpose: str, prompt: Prompt, on_text: OnText | None
    ) -> Reply:
        breaker = self._breakers[provider.options.name]
        for attempt in range(provider.options.tries):
            if not breaker.may_call(self._clock()):
                raise ProviderFailed("left alone after failures", is_temporary=False)
            try:
                reply = await self._call(provider, ask, purpose, prompt, on_text)
            except ProviderFailed as failed:
                breaker.fail(self._clock())
                if not failed.is_temporary or attempt + 1 == provider.options.tries:
                    raise
                await asyncio.sleep(_backoff_s(attempt))
            except BaseException:  # cancelled, or over budget: nothing that the provider did
                breaker.forget_try()
                raise
            else:
                breaker.succeed()
                return reply
        raise AssertionError("at least one try is made")

    async def _call(
        self, provider: ChatProvider, ask: Ask, purpose: str, prompt: Prompt, on_text: OnText | None
    ) -> Reply:
        """One call, paid for: what it may take is reserved first, what it took is settled whatever happens."""
        reservation = await self._ledger.reserve(ask.asker, ask.room_id, provider.options.model, prompt)
        started, reply, outcome = time.monotonic(), None, "cancelled"
        try:
            reply = await provider.complete(prompt, on_text)
            outcome = "ok"
            return reply
        except ProviderFailed as failed:
            outcome = str(failed)[:60]
            raise
        finally:
            latency_ms = int((time.monotonic() - started) * 1000)
            await asyncio.shield(
                self._ledger.settle(
                    reservation, provider.options, purpose, reply, latency_ms=latency_ms, outcome=outcome
                )
            )

    def can_transcribe(self, ask: Ask) -> bool:
        """Whether there is a provider that may be given recordings of a room."""
        return bool(self._transcribers(ask))

    def _transcribers(self, ask: Ask) -> list[ChatProvider]:
        return [p for p in self.usable(local_only=ask.local_only) if p.options.transcription_model is not None]

    async def transcribe(self, ask: Ask, name: str, audio: bytes) -> str:
        """The words of a recording, by the first provider that answers. Raises NoModel."""
        for provider in self._transcribers(ask):
            if not self._breakers[provider.options.name].may_call(self._clock()):
                continue
            try:
                return await self._transcribe(provider, ask, name, audio)
            except ProviderFailed as failed:
                log.warning("provider %s: %s", provider.options.name, failed)
            except OverBudget as over:
                raise NoModel("budget", over.scope) from None
        raise NoModel("unavailable")

    async def _transcribe(self, provider: ChatProvider, ask: Ask, name: str, audio: bytes) -> str:
        """One call, paid for by the length of the recording: providers do not say what it took."""
        breaker, options = self._breakers[provider.options.name], provider.options
        tokens = estimate_audio_tokens(audio)
        started, reply, outcome = time.monotonic(), None, "cancelled"
        try:
            reservation = await self._ledger.reserve_tokens(ask.asker, ask.room_id, options.model, tokens, 0)
        except BaseException:
            breaker.forget_try()
            raise
        try:
            words = await provider.transcribe(name, audio)
            reply, outcome = Reply(words, tokens, 0), "ok"
            breaker.succeed()
            return words
        except ProviderFailed as failed:
            outcome = str(failed)[:60]
            breaker.fail(self._clock())
            raise
        except BaseException:
            breaker.forget_try()
            raise
        finally:
            latency_ms = int((time.monotonic() - started) * 1000)
            await asyncio.shield(
                self._ledger.settle(reservation, options, "transcribe", reply, latency_ms=latency_ms, outcome=outcome)
            )

    async def close(self) -> None:
        """Ends all connections."""
        for provider in self._providers:
            await provider.close()


def _backoff_s(attempt: int) -> float:
    """Twice as long each time, and anywhere between half of that and all of it."""
    longest_ms: int = min(MAX_BACKOFF_MS, FIRST_BACKOFF_MS * 2**attempt)
    return (longest_ms / 2 + secrets.randbelow(longest_ms // 2 + 1)) / 1000

"""Answers by models, in two steps: facts from each chunk of the history, then the answer that they make together.

1. Messages that talk to models are left out; of the rest, a question takes those that are about it.
2. Chunks; what is known of them already comes from the cache.
3. The facts of the others, a few chunks at a time; each fact is checked against its sources before it is kept.
4. One chunk's facts are the answer. Those of several are folded into one, which is checked again.
5. Where messages were left out, decisions and actions that the built-in engine finds and the model does not cite are
   quoted, so that nobody can talk a model into silence about them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from appservices.summary_bot.answers.citations import verify_all
from appservices.summary_bot.answers.model import SECTIONS, Bullet, Engine, SectionName, Summary
from appservices.summary_bot.budget.ledger import Ledger
from appservices.summary_bot.clock import Clock
from appservices.summary_bot.config import Provider, Role
from appservices.summary_bot.engines.contract import Ask
from appservices.summary_bot.engines.extractive.contract import Request
from appservices.summary_bot.engines.extractive.process import ExtractiveEngine
from appservices.summary_bot.engines.models.chain import Chain
from appservices.summary_bot.engines.models.chunks import Chunk, chunk_hash, chunks_of
from appservices.summary_bot.engines.models.facts import (
    SECTION_OF,
    Fact,
    partial_facts,
    partial_lines,
    read_facts,
    read_lines,
)
from appservices.summary_bot.engines.models.prompts import PROMPT_VERSION, facts_prompt, fold_prompt, labels
from appservices.summary_bot.engines.models.provider import OnText
from appservices.summary_bot.engines.models.suspicion import talks_to_model
from appservices.summary_bot.events import Message, sources_of
from appservices.summary_bot.history.reader import Transcript
from appservices.summary_bot.storage.facts import CachedFacts, FactRepository

CHUNKS_AT_ONCE = 3
MAX_FACTS = 240
"""How many facts are folded; of more, the newest."""

QUESTION_MESSAGES = 60
"""From how many messages on a question is answered from those that are about it alone."""

Sections = dict[SectionName, list[Bullet]]
OnProgress = Callable[[Sections], None]


@dataclass(slots=True)
class _Work:
    """One answer in the making."""

    ask: Ask
    role: Role
    transcript: Transcript
    messages: Sequence[Message]
    by_id: Mapping[str, Message]
    provider: Provider | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    dropped: int = 0

    @property
    def names(self) -> Mapping[str, str]:
        return self.transcript.names

    def verified(self, facts: Iterable[Fact], *, count: bool = True) -> list[Fact]:
        """The facts that their sources bear out, with what these do not have taken out."""
        kept = []
        for fact in facts:
            bullets, dropped = verify_all([fact.bullet()], self.by_id, self.names, self.ask.language)
            self.dropped += dropped if count else 0
            kept += [Fact(fact.kind, bullet.text, list(bullet.sources), bullet.owner) for bullet in bullets]
        return kept


class ModelEngine:
    """Raises NoModel where no model can be used."""

    def __init__(
        self,
        chain: Chain,
        facts: FactRepository,
        ledger: Ledger,
        built_in: ExtractiveEngine,
        roles: Mapping[str, Role],
        clock: Clock,
    ) -> None:
        self._chain = chain
        self._facts = facts
        self._ledger = ledger
        self._built_in = built_in
        self._roles = roles
        self._clock = clock

    async def summarise(self, ask: Ask, transcript: Transcript, on_progress: OnProgress | None = None) -> Summary:
        """The answer, every line of it checked."""
        messages = [m for m in transcript.messages if not talks_to_model(m.body) and not m.is_file]
        withheld = len(transcript.messages) - len(messages)
        if ask.purpose == "ask" and len(messages) > QUESTION_MESSAGES:
            messages = await self._built_in.relevant(messages, ask.question)
        role = self._roles.get(ask.role, self._roles["assistant"])
        work = _Work(ask, role, transcript, messages, {message.event_id: message for message in messages})
        facts = await self._answer(work, on_progress) if messages else []
        sections = by_section(facts)
        if withheld:
            await self._add_unsaid(work, sections)
        engine = Engine(
            "model",
            model=work.provider.model.name if work.provider else self._first_model(ask),
            provider=work.provider.name if work.provider else "",
            input_tokens=work.input_tokens,
            output_tokens=work.output_tokens,
            cached_tokens=work.cached_tokens,
            dropped=work.dropped,
        )
        return Summary(sections, transcript.coverage, engine)

    def _first_model(self, ask: Ask) -> str:
        usable = self._chain.usable(local_only=ask.local_only)
        return usable[0].options.model.name if usable else ""

    async def _answer(self, work: _Work, on_progress: OnProgress | None) -> list[Fact]:
        chunks = chunks_of(work.messages)
        found = await self._cached(work, chunks)
        missing = [chunk for chunk in chunks if chunk not in found]
        gate = asyncio.Semaphore(CHUNKS_AT_ONCE)
        alone = len(chunks) == 1

        async def draw(chunk: Chunk) -> None:
            async with gate:
                found[chunk] = await self._draw(work, chunk, on_progress if alone else None)

        tasks = [asyncio.create_task(draw(chunk)) for chunk in missing]
        try:
            for task in tasks:
                await task
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        facts = [fact for chunk in chunks for fact in found[chunk]]
        return facts if alone or len(facts) <= 1 else await self._fold(work, facts[-MAX_FACTS:], on_progress)

    def _keys(self, work: _Work, chunk: Chunk) -> list[bytes]:
        """Under what the facts of a chunk may be kept: a key for each model that might have drawn them."""
        ask = work.ask
        return [
            chunk_hash(
                chunk,
                PROMPT_VERSION,
                provider.options.model.name,
                ask.purpose,
                ask.question,
                ask.language,
                work.role.prompt,
            )
            for provider in self._chain.usable(local_only=ask.local_only)
        ]

    async def _cached(self, work: _Work, chunks: Sequence[Chunk]) -> dict[Chunk, list[Fact]]:
        if not work.ask.keep_facts:
            return {}
        keys = {chunk: self._keys(work, chunk) for chunk in chunks}
        known = await self._facts.load_chunks([key for of_chunk in keys.values() for key in of_chunk])
        found: dict[Chunk, list[Fact]] = {}
        for chunk, of_chunk in keys.items():
            for key in of_chunk:
                if key in known and chunk not in found:
                    found[chunk] = work.verified(msgspec.json.decode(known[key].facts, type=list[Fact]), count=False)
                    work.cached_tokens += known[key].tokens
        if work.cached_tokens:
            await self._ledger.note_cached(work.ask.asker, work.ask.room_id, work.cached_tokens)
        return found

    async def _draw(self, work: _Work, chunk: Chunk, on_progress: OnProgress | None) -> list[Fact]:
        """Draws the facts of a chunk, and keeps them."""
        events, users = labels(chunk)
        prompt = facts_prompt(work.ask, work.role, chunk, work.names)
        answered = await self._chain.ask(
            work.ask,
            "facts",
            prompt,
            lambda text: read_facts(text, events, users),
            _teller(on_progress, lambda text: work.verified(partial_facts(text, events, users), count=False)),
        )
        self._note(work, answered.provider, answered.input_tokens, answered.output_tokens)
        facts = work.verified(answered.value)
        if not work.ask.keep_facts:
            return facts
        keys = dict(
            zip(
                [p.options.name for p in self._chain.usable(local_only=work.ask.local_only)],
                self._keys(work, chunk),
                strict=True,
            )
        )
        sources = [(event_id, message.sender) for message in chunk for event_id in sources_of([message])]
        await self._facts.persist_chunk(
            keys[answered.provider.name],
            work.ask.room_id,
            CachedFacts(msgspec.json.encode(facts), answered.input_tokens),
            sources,
            oldest_ts=min(message.ts for message in chunk),
            now=self._clock(),
        )
        return facts

    async def _fold(self, work: _Work, facts: Sequence[Fact], on_progress: OnProgress | None) -> list[Fact]:
        answered = await self._chain.ask(
            work.ask,
            "fold",
            fold_prompt(work.ask, work.role, facts, work.names),
            lambda text: read_lines(text, facts),
            _teller(on_progress, lambda text: work.verified(partial_lines(text, facts), count=False)),
        )
        self._note(work, answered.provider, answered.input_tokens, answered.output_tokens)
        lines = work.verified(answered.value)
        return lines or list(facts)  # a model that folds everything away is not believed

    def _note(self, work: _Work, provider: Provider, input_tokens: int, output_tokens: int) -> None:
        work.provider = provider
        work.input_tokens += input_tokens
        work.output_tokens += output_tokens

    async def _add_unsaid(self, work: _Work, sections: Sections) -> None:
        """Quotes decisions and actions that the model does not cite, from messages that talk to people."""
        cited = {event_id for bullets in sections.values() for bullet in bullets for event_id in bullet.event_ids}
        purpose = work.ask.purpose if work.ask.purpose != "ask" else "summary"
        if work.ask.purpose == "ask" or not work.messages:
            return
        picked = await self._built_in.summarise(Request(list(work.messages), purpose))
        for name in ("decisions", "actions"):
            for bullet in picked.sections.get(name, ()):
                if not cited & set(bullet.event_ids):
                    sections.setdefault(name, []).append(bullet)


def by_section(facts: Iterable[Fact]) -> Sections:
    """Facts as the sections of an answer, in their order."""
    sections: Sections = {}
    for fact in facts:
        sections.setdefault(SECTION_OF[fact.kind], []).append(fact.bullet())
    return {name: sections[name] for name in SECTIONS if name in sections}


def _teller(on_progress: OnProgress | None, read: Callable[[str], list[Fact]]) -> OnText | None:
    """Tells of what a stream has brought so far."""
    if on_progress is None:
        return None

    def tell(text: str) -> None:
        if text.endswith(("}", "]", "},")):  # a new item may be whole
            on_progress(by_section(read(text)))

    return tell

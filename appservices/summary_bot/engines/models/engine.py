"""Answers by models, in two steps: facts from each chunk of the history, then the answer that they make together.

1. Messages that talk to models are left out; of the rest, a question takes those that are about it.
2. Chunks; what is known of them, or of their beginnings, comes from the cache.
3. The facts of the others, a few chunks at a time; each fact is checked against its sources before it is kept.
4. One chunk's facts are the answer. Those of several are folded into one, which is checked again and kept; where
   most of it was folded before, what is new is folded into that.
5. Where messages were left out, decisions and actions that the built-in engine finds and the model does not cite are
   quoted, so that nobody can talk a model into silence about them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from appservices.summary_bot.answers.citations import normal, verify_all
from appservices.summary_bot.answers.model import SECTIONS, Bullet, Engine, SectionName, Summary
from appservices.summary_bot.budget.ledger import Ledger
from appservices.summary_bot.clock import Clock
from appservices.summary_bot.config import Provider, Role
from appservices.summary_bot.engines.contract import Ask
from appservices.summary_bot.engines.extractive.contract import Request
from appservices.summary_bot.engines.extractive.process import ExtractiveEngine
from appservices.summary_bot.engines.models.cache import Cache, Node
from appservices.summary_bot.engines.models.chain import Chain
from appservices.summary_bot.engines.models.chunks import Chunk, chunks_of
from appservices.summary_bot.engines.models.facts import (
    SECTION_OF,
    Fact,
    partial_facts,
    partial_lines,
    read_facts,
    read_lines,
)
from appservices.summary_bot.engines.models.folding import (
    MAX_FACTS,
    MIN_GROUP,
    facts_of,
    groups_of,
    heaviest,
    pays_to_grow,
)
from appservices.summary_bot.engines.models.prompts import facts_prompt, fold_prompt, labels
from appservices.summary_bot.engines.models.provider import OnText
from appservices.summary_bot.engines.models.suspicion import talks_to_model
from appservices.summary_bot.events import Message, sources_of
from appservices.summary_bot.history.reader import Transcript
from appservices.summary_bot.storage.facts import CachedFacts, FactRepository

CHUNKS_AT_ONCE = 3
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
    cache: Cache
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
        for fact in _wanted(facts, self.ask):
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
        providers = [provider.options for provider in self._chain.usable(local_only=ask.local_only)]
        cache = Cache(self._facts, ask, role, providers)
        work = _Work(ask, role, transcript, messages, {message.event_id: message for message in messages}, cache)
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
        covered = await work.cache.cover(chunks) if work.ask.keep_facts else list(chunks)
        await self._note_cached(work, [piece for piece in covered if isinstance(piece, Node)])
        alone = len(covered) == 1
        gate = asyncio.Semaphore(CHUNKS_AT_ONCE)

        async def node_of(piece: Chunk | Node) -> Node:
            if isinstance(piece, Node):
                return replace(piece, facts=work.verified(piece.facts, count=False))
            async with gate:
                return await self._draw(work, piece, on_progress if alone else None)

        nodes = await _all_of([node_of(piece) for piece in covered])
        if alone or len(facts_of(nodes)) <= 1:
            return facts_of(nodes)
        return list((await self._fold(work, nodes, on_progress)).facts)

    async def _draw(self, work: _Work, chunk: Chunk, on_progress: OnProgress | None) -> Node:
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
        node = Node(work.cache.key(chunk, answered.provider), work.verified(answered.value), answered.input_tokens)
        if not work.ask.keep_facts:
            return node
        sources = [(event_id, message.sender) for message in chunk for event_id in sources_of([message])]
        await self._facts.persist_chunk(
            node.key,
            work.ask.room_id,
            CachedFacts(msgspec.json.encode(node.facts), node.tokens),
            sources,
            oldest_ts=min(message.ts for message in chunk),
            now=self._clock(),
        )
        return node

    async def _fold(self, work: _Work, nodes: Sequence[Node], on_progress: OnProgress | None) -> Node:
        """The answer that nodes make together: known, or grown from an earlier one, or made of all of them."""
        known = await work.cache.load_fold(nodes) if work.ask.keep_facts else None
        if known is not None:
            await self._note_cached(work, [known])
            return replace(known, facts=work.verified(known.facts, count=False))
        beginning = await work.cache.load_beginning(nodes) if work.ask.keep_facts else None
        if beginning is not None and pays_to_grow(beginning[0], nodes[beginning[1] :], nodes):
            await self._note_cached(work, [beginning[0]])
            parts = [replace(beginning[0], facts=work.verified(beginning[0].facts, count=False))]
            return await self._fold_once(work, nodes, [*parts, *nodes[beginning[1] :]], "grown", on_progress)
        parts = list(nodes)
        gate = asyncio.Semaphore(CHUNKS_AT_ONCE)

        async def fold_group(group: Sequence[Node]) -> Node:
            async with gate:
                return await self._fold(work, group, None)

        while len(facts_of(parts)) > MAX_FACTS:
            *closed, last = groups_of(parts)
            folded = await _all_of([fold_group(group) for group in closed])
            parts = [*folded, *(last if len(last) < MIN_GROUP else [await fold_group(last)])]
        return await self._fold_once(work, nodes, parts, "fresh", on_progress)

    async def _fold_once(
        self, work: _Work, nodes: Sequence[Node], parts: Sequence[Node], kind: str, on_progress: OnProgress | None
    ) -> Node:
        """Folds the facts of `parts`, and keeps that as what `nodes` make."""
        facts = facts_of(parts)
        answered = await self._chain.ask(
            work.ask,
            "fold",
            fold_prompt(work.ask, work.role, facts, work.names),
            lambda text: read_lines(text, facts),
            _teller(on_progress, lambda text: work.verified(partial_lines(text, facts), count=False)),
        )
        self._note(work, answered.provider, answered.input_tokens, answered.output_tokens)
        lines = work.verified(answered.value)
        key = work.cache.fold_key(nodes, answered.provider, kind)
        if not lines:  # a model that folds everything away is not believed
            return Node(key, heaviest(facts))
        if not work.ask.keep_facts:
            return Node(key, lines, answered.input_tokens)
        found = CachedFacts(msgspec.json.encode(lines), answered.input_tokens)
        await self._facts.persist_fold(key, work.ask.room_id, found, [p.key for p in parts], now=self._clock())
        return Node(key, lines, answered.input_tokens)

    async def _note_cached(self, work: _Work, nodes: Sequence[Node]) -> None:
        tokens = sum(node.tokens for node in nodes)
        if tokens:
            work.cached_tokens += tokens
            await self._ledger.note_cached(work.ask.asker, work.ask.room_id, tokens)

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


def _wanted(facts: Iterable[Fact], ask: Ask) -> Iterator[Fact]:
    """The facts that were asked for, whatever a model takes the question for; an answer is one kind of thing."""
    only = {"actions": "action", "decisions": "decision"}.get(ask.purpose)
    for fact in facts:
        if ask.purpose == "ask":
            yield Fact("outcome", fact.text, fact.sources)
        elif only is None or fact.kind == only:
            yield fact


async def _all_of(tasks: Iterable[Coroutine[Any, Any, Node]]) -> list[Node]:
    """The results in order; the first that fails ends the others."""
    running = [asyncio.create_task(task) for task in tasks]
    try:
        return [await task for task in running]
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


def by_section(facts: Iterable[Fact]) -> Sections:
    """Facts as the sections of an answer, in their order. What several chunks say in the same words is one line."""
    merged: dict[tuple[str, str], Fact] = {}
    for fact in facts:
        key = fact.kind, normal(fact.text)
        first = merged.get(key, fact)
        merged[key] = Fact(first.kind, first.text, list(dict.fromkeys([*first.sources, *fact.sources])), first.owner)
    sections: Sections = {}
    for fact in merged.values():
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

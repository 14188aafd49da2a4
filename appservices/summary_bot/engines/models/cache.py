"""What was paid for before: facts of chunks and of their beginnings, and folds.

The last chunk of a history grows until a pause or a cut ends it. Its facts were drawn when it was shorter, so what is
known of a chunk may be known of a beginning of it; then only the rest is drawn, which is kept in its turn. What is
paid for once is so never paid for again, however small the steps are in which a history is read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from appservices.summary_bot.config import Provider, Role
from appservices.summary_bot.engines.contract import Ask
from appservices.summary_bot.engines.models.chunks import (
    OVERLAP_MESSAGES,
    Chunk,
    prefix_hashes,
    rest_after,
    rolling_hashes,
)
from appservices.summary_bot.engines.models.facts import Fact
from appservices.summary_bot.engines.models.prompts import PROMPT_VERSION
from appservices.summary_bot.storage.facts import CachedFacts, FactRepository

MIN_KNOWN = 4
"""The shortest beginning of a chunk that is looked for."""


@dataclass(frozen=True, slots=True)
class Node:
    """Facts, and under which key they are kept. `tokens` is what they took when they were drawn."""

    key: bytes
    facts: Sequence[Fact]
    tokens: int = 0


class Cache:
    """The cache, for one question: keys depend on how it is asked and by which model it is answered."""

    def __init__(self, facts: FactRepository, ask: Ask, role: Role, providers: Sequence[Provider]) -> None:
        self._facts = facts
        self._ask = ask
        self._role = role
        self._providers = {provider.name: self._manner(provider) for provider in providers}

    def _manner(self, provider: Provider) -> tuple[str, ...]:
        ask = self._ask
        model = provider.model.name
        return (PROMPT_VERSION, model, ask.purpose, ask.question, ask.language, self._role.prompt)

    def key(self, chunk: Chunk, provider: Provider) -> bytes:
        """Under what the facts are kept that a provider drew from a chunk."""
        return prefix_hashes(chunk, *self._providers[provider.name])[-1]

    def fold_key(self, nodes: Sequence[Node], provider: Provider, kind: str) -> bytes:
        """Under what it is kept what a provider folded nodes into. `kind`: "fresh" or "grown"."""
        return self._fold_keys(nodes, self._providers[provider.name], kind)[-1]

    def _fold_keys(self, nodes: Sequence[Node], manner: tuple[str, ...], kind: str) -> list[bytes]:
        return rolling_hashes([node.key for node in nodes], "fold", kind, *manner)

    async def cover(self, chunks: Sequence[Chunk]) -> list[Chunk | Node]:
        """The chunks in their order: of each what is known, and what has to be drawn."""
        covered: list[Chunk | Node] = list(chunks)
        while True:
            keys = {place: self._candidates(piece) for place, piece in enumerate(covered) if isinstance(piece, tuple)}
            known = await self._facts.load_chunks([key for found in keys.values() for key, _ in found])
            step: list[Chunk | Node] = []
            for place, piece in enumerate(covered):
                step += self._parted(piece, keys[place], known) if isinstance(piece, tuple) else [piece]
            if len(step) == len(covered):
                return step
            covered = step

    def _candidates(self, chunk: Chunk) -> list[tuple[bytes, int]]:
        """(key, how many messages) for each beginning of a chunk that may be known, the longest first."""
        found = [
            (key, count)
            for manner in self._providers.values()
            for count, key in enumerate(prefix_hashes(chunk, *manner), 1)
            if count == len(chunk) or count >= max(MIN_KNOWN, OVERLAP_MESSAGES + 1)
        ]
        return sorted(found, key=lambda candidate: -candidate[1])

    def _parted(
        self, chunk: Chunk, candidates: Sequence[tuple[bytes, int]], known: Mapping[bytes, CachedFacts]
    ) -> list[Chunk | Node]:
        for key, count in candidates:
            if key in known:
                node = _node(key, known[key])
                return [node] if count == len(chunk) else [node, rest_after(chunk, count)]
        return [chunk]

    async def load_fold(self, nodes: Sequence[Node]) -> Node | None:
        """What exactly these nodes were folded into before."""
        keys = [
            self._fold_keys(nodes, manner, kind)[-1]
            for manner in self._providers.values()
            for kind in ("fresh", "grown")
        ]
        known = await self._facts.load_chunks(keys)
        return next((_node(key, known[key]) for key in keys if key in known), None)

    async def load_beginning(self, nodes: Sequence[Node]) -> tuple[Node, int] | None:
        """What the longest beginning of these nodes was folded into afresh, and how many of them that is."""
        keys = [
            (key, count)
            for manner in self._providers.values()
            for count, key in enumerate(self._fold_keys(nodes, manner, "fresh"), 1)
            if 1 < count < len(nodes)
        ]
        known = await self._facts.load_chunks([key for key, _ in keys])
        found = [(key, count) for key, count in keys if key in known]
        if not found:
            return None
        key, count = max(found, key=lambda pair: pair[1])
        return _node(key, known[key]), count


def _node(key: bytes, cached: CachedFacts) -> Node:
    return Node(key, msgspec.json.decode(cached.facts, type=list[Fact]), cached.tokens)

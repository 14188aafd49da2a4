"""How much each sentence matters: centrality in the web of sentences that share terms, raised by replies and reactions.

The vectors are scikit-learn's TF-IDF; centrality is the stationary distribution of a walk that goes from sentence to
sentence by way of shared terms (TextRank). The web itself, which grows with the square of the sentences, is never
made: a step of the walk is two products with the sparse matrix of sentences and terms.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer

from appservices.summary_bot.engines.extractive.sentences import Sentence, terms_of
from appservices.summary_bot.events import Message

DAMPING = 0.85
MAX_STEPS = 40
TOLERANCE = 1e-6
MAX_TERMS = 30_000
MIN_TERMS_FOR_FULL_WEIGHT = 6
SAME = 0.98
"""A sentence that is this much like one picked before says the same, and is not picked."""

CANDIDATES = 300
"""How many of the best sentences are compared with each other for novelty."""


class Ranking:
    """Vectors and scores of sentences; `scores` are from 0 to 1."""

    def __init__(self, sentences: Sequence[Sentence], messages: Sequence[Message]) -> None:
        """There has to be a sentence."""
        self._vectorizer = TfidfVectorizer(
            analyzer=_identity, sublinear_tf=True, max_features=MAX_TERMS, dtype=np.float32
        )
        self._matrix: Any = self._vectorizer.fit_transform([sentence.terms for sentence in sentences])
        names = self._vectorizer.get_feature_names_out()
        self._weights: dict[str, float] = dict(zip(names.tolist(), self._vectorizer.idf_.tolist(), strict=True))
        centrality = _centrality(self._matrix)
        weights = np.array([_weight(sentence, messages[sentence.position]) for sentence in sentences])
        scores = centrality * weights
        self.scores: Any = scores / max(float(scores.max()), 1e-12)

    def similarity_to(self, text: str) -> Any:
        """The cosine of each sentence with a text that is none of them."""
        return (self._matrix @ self._vectorizer.transform([terms_of(text)]).T).toarray().ravel()

    def pick(self, candidates: Sequence[int], count: int, *, scores: Any = None, novelty: float = 0.6) -> list[int]:
        """The best of the candidates, each unlike those before it (maximal marginal relevance)."""
        scores = self.scores if scores is None else scores
        best = sorted(candidates, key=lambda index: (-scores[index], index))[:CANDIDATES]
        picked: list[int] = []
        likeness = np.zeros(len(best))
        while best and len(picked) < count:
            if float(likeness.min()) > SAME:
                break
            values = [
                scores[index] - novelty * like if like <= SAME else -math.inf
                for index, like in zip(best, likeness, strict=True)
            ]
            place = int(np.argmax(values))
            chosen = best.pop(place)
            likeness = np.delete(likeness, place)
            picked.append(chosen)
            if best:
                like = (self._matrix[best] @ self._matrix[chosen].T).toarray().ravel()
                likeness = np.maximum(likeness, like)
        return picked

    def are_alike(self, first: Sentence, second: Sentence) -> float:
        """How much two sentences have in common: the weight of the terms of both in that of the one that has less."""
        mine, theirs = set(first.terms), set(second.terms)
        shared = sum(self._weights.get(term, 0.0) for term in mine & theirs)
        return shared / max(min(self._sum(mine), self._sum(theirs)), 1e-9) if shared else 0.0

    def _sum(self, terms: set[str]) -> float:
        return sum(self._weights.get(term, 0.0) for term in terms)


def _identity(terms: Sequence[str]) -> Sequence[str]:
    return terms


def _centrality(matrix: Any) -> Any:
    """The walk's stationary distribution, as multiples of an even one."""
    count = matrix.shape[0]
    transposed = matrix.T.tocsr()
    degrees = matrix @ (transposed @ np.ones(count))
    degrees[degrees <= 0] = 1
    rank = np.ones(count)
    for _ in range(MAX_STEPS):
        new = (1 - DAMPING) + DAMPING * (matrix @ (transposed @ (rank / degrees)))
        if float(np.abs(new - rank).max()) < TOLERANCE:
            return new
        rank = new
    return rank


def _weight(sentence: Sentence, message: Message) -> float:
    """Short sentences say little; what others answered and reacted to says more."""
    length = min(1.0, len(sentence.terms) / MIN_TERMS_FOR_FULL_WEIGHT)
    return length * (1 + 0.25 * math.log1p(message.reactions) + 0.35 * math.log1p(message.replies))

"""The parts of an answer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

SectionName = Literal["outcome", "decisions", "open_questions", "actions", "disagreements"]
SECTIONS: tuple[SectionName, ...] = ("outcome", "decisions", "open_questions", "actions", "disagreements")


@dataclass(frozen=True, slots=True)
class Source:
    """An event that a line rests on, and its words that bear the line out, as they stand there."""

    event_id: str
    quote: str


@dataclass(frozen=True, slots=True)
class Bullet:
    """A line of an answer. `owner` is who an action falls to; `speaker` is set where the text is a quotation."""

    text: str
    sources: tuple[Source, ...]
    owner: str | None = None
    speaker: str | None = None

    @property
    def event_ids(self) -> list[str]:
        """What the line rests on, each event once."""
        return list(dict.fromkeys(source.event_id for source in self.sources))


@dataclass(frozen=True, slots=True)
class Coverage:
    """How much of what was asked about was read."""

    covered: int
    total: int
    first_ts: int = 0
    last_ts: int = 0
    complete: bool = True
    """False where there was more than the bot reads for one question."""
    people_left_out: int = 0
    unreadable: int = 0
    """Encrypted messages that there was no key for."""


@dataclass(frozen=True, slots=True)
class Engine:
    """What made an answer, and at which price."""

    name: Literal["built-in", "model"]
    model: str = ""
    provider: str = ""
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    """Tokens of input that an earlier answer had paid for."""
    fell_back: str | None = None
    """Why it is the built-in engine, where a model was to do it."""
    fell_back_scope: str = ""
    dropped: int = 0


@dataclass(frozen=True, slots=True)
class Summary:
    """An answer, its lines by section in the order of SECTIONS."""

    sections: dict[SectionName, list[Bullet]]
    coverage: Coverage
    engine: Engine
    notes: list[str] = field(default_factory=list)
    """Lines that are said of the answer, in the asker's language."""

    def bullets(self) -> Iterator[tuple[SectionName, Bullet]]:
        """All lines, in the order in which they are numbered."""
        for name in SECTIONS:
            for bullet in self.sections.get(name, ()):
                yield name, bullet

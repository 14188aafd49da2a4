"""What a model says, read strictly: facts with their sources. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from appservices.summary_bot.answers.model import Bullet, SectionName, Source

Kind = Literal["outcome", "decision", "open_question", "action", "disagreement"]

SECTION_OF: dict[str, SectionName] = {
    "outcome": "outcome",
    "decision": "decisions",
    "open_question": "open_questions",
    "action": "actions",
    "disagreement": "disagreements",
}
MAX_ITEMS = 60

Text = Annotated[str, Meta(min_length=1, max_length=2000)]
Label = Annotated[str, Meta(max_length=20)]

_FENCE = re.compile(r"\A\s*```(?:json)?\s*(.*?)\s*```\s*\Z", re.DOTALL)


class Invalid(Exception):
    """An answer that is not of the form asked for; the message says why, without contents."""


class Fact(Struct, frozen=True):
    """Something that was said, with real event and user IDs: what is cached."""

    kind: Kind
    text: str
    sources: list[Source]
    owner: str | None = None

    def bullet(self) -> Bullet:
        """The fact as a line of an answer."""
        return Bullet(self.text, tuple(self.sources), self.owner if self.kind == "action" else None)


class SaidSource(Struct):
    """A source as a model gives it."""

    message: Label
    quote: Annotated[str, Meta(max_length=2000)]


class SaidFact(Struct):
    """A fact as a model gives it."""

    kind: Kind
    text: Text
    sources: Annotated[list[SaidSource], Meta(min_length=1, max_length=20)]
    owner: str | None = None


class SaidLine(Struct):
    """A line of the folded answer as a model gives it."""

    kind: Kind
    text: Text
    facts: Annotated[list[Label], Meta(min_length=1, max_length=40)]
    owner: str | None = None


class SaidFacts(Struct):
    """All facts of a chunk."""

    items: Annotated[list[SaidFact], Meta(max_length=MAX_ITEMS)]


class SaidLines(Struct):
    """All lines of an answer."""

    items: Annotated[list[SaidLine], Meta(max_length=MAX_ITEMS)]


def read_facts(text: str, events: Mapping[str, str], users: Mapping[str, str]) -> list[Fact]:
    """The facts in a model's answer about a chunk. Raises Invalid."""
    said = _decode(text, SaidFacts)
    return [fact for item in said.items if (fact := _fact(item, events, users)) is not None]


def _fact(item: SaidFact, events: Mapping[str, str], users: Mapping[str, str]) -> Fact | None:
    sources = [Source(events[source.message], source.quote) for source in item.sources if source.message in events]
    return Fact(item.kind, item.text, sources, users.get(item.owner or "")) if sources else None


def read_lines(text: str, facts: Sequence[Fact]) -> list[Fact]:
    """The lines of a folded answer, each with the sources of its facts. Raises Invalid."""
    return [line for item in _decode(text, SaidLines).items if (line := _line(item, facts)) is not None]


def _line(item: SaidLine, facts: Sequence[Fact]) -> Fact | None:
    numbers = {f"f{n}": fact for n, fact in enumerate(facts, 1)}
    used = [numbers[label] for label in item.facts if label in numbers]
    sources = list(dict.fromkeys(source for fact in used for source in fact.sources))
    owners = {fact.owner for fact in used if fact.owner is not None}
    return Fact(item.kind, item.text, sources, owners.pop() if len(owners) == 1 else None) if sources else None


def _decode(text: str, kind: type[Any]) -> Any:
    match = _FENCE.match(text)
    try:
        return msgspec.json.decode(match[1] if match else text, type=kind)
    except msgspec.ValidationError as error:
        raise Invalid(re.sub(r"'[^']*'|\"[^\"]*\"", "a value", str(error))[:300]) from None
    except (msgspec.DecodeError, UnicodeError):
        raise Invalid("it is not JSON") from None


def read_partly(text: str, kind: type[SaidFact] | type[SaidLine]) -> list[Any]:
    """The items that a streamed answer has brought whole so far."""
    import jiter

    try:
        value = jiter.from_json(text.encode("utf-8", "replace"), partial_mode=True)
    except ValueError:
        return []
    items = value.get("items") if isinstance(value, dict) else None
    found = []
    for item in items[:-1] if isinstance(items, list) else []:  # the last one may not be whole
        try:
            found.append(msgspec.convert(item, kind))
        except msgspec.ValidationError:
            continue
    return found


def partial_facts(text: str, events: Mapping[str, str], users: Mapping[str, str]) -> list[Fact]:
    """The facts that a streamed answer about a chunk has brought so far."""
    return [f for item in read_partly(text, SaidFact) if (f := _fact(item, events, users)) is not None]


def partial_lines(text: str, facts: Sequence[Fact]) -> list[Fact]:
    """The lines that a streamed, folded answer has brought so far."""
    return [f for item in read_partly(text, SaidLine) if (f := _line(item, facts)) is not None]

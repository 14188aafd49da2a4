"""Turns an answer into text and HTML. Everything that people or models wrote is escaped."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from urllib.parse import quote

from appservices.summary_bot.answers.model import SECTIONS, Bullet, Coverage, Engine, Summary
from appservices.summary_bot.answers.split import Piece
from appservices.summary_bot.clock import DAY_MS
from appservices.summary_bot.texts import say

MAX_VIA = 3
MAX_NAME_CHARACTERS = 60


@dataclass(frozen=True, slots=True)
class Place:
    """A room, for titles and links. `via`: servers through which somebody may find it."""

    room_id: str
    name: str
    via: tuple[str, ...] = ()
    permalink_base: str = "https://matrix.to/#"

    def link(self, event_id: str) -> str:
        """The permalink of an event: https://spec.matrix.org/v1.19/appendices/#matrixto-navigation"""
        via = "&".join(f"via={quote(server, safe='')}" for server in self.via[:MAX_VIA])
        address = f"{self.permalink_base}/{quote(self.room_id, safe='')}/{quote(event_id, safe='')}"
        return f"{address}?{via}" if via else address


def inert(text: str) -> str:
    """Text that no client takes for a mention of the whole room, on one line."""
    return " ".join(text.split()).replace("@room", "@\u2060room")


def name_of(user_id: str, names: Mapping[str, str]) -> str:
    """How somebody is called in text: the display name, else the user ID without its server."""
    name = inert(names.get(user_id, ""))[:MAX_NAME_CHARACTERS]
    return name or user_id[1:].partition(":")[0][:MAX_NAME_CHARACTERS]


def summary_pieces(
    summary: Summary, place: Place, names: Mapping[str, str], language: str, title: str, *, is_whole: bool = True
) -> list[Piece]:
    """The pieces of an answer: title, sections, and, of one that is whole, coverage and what made it."""
    pieces = [heading(title)]
    number = 0
    for section in SECTIONS:
        bullets = summary.sections.get(section, [])
        if bullets:
            pieces.append(heading(say(language, section), level=4))
        for bullet in bullets:
            number += 1
            pieces.append(bullet_piece(bullet, number, place, names, language))
    closing = closing_lines(summary.coverage, summary.engine, language) if is_whole else []
    return pieces + [small(line) for line in (*summary.notes, *closing)]


def heading(text: str, level: int = 3) -> Piece:
    """A heading. Plain text shows it by a colon or by itself."""
    text = inert(text)
    return Piece(text if level == 3 else f"\n{text}:", f"<h{level}>{escape(text, quote=False)}</h{level}>")


def paragraph(text: str) -> Piece:
    """A paragraph."""
    return Piece(text, f"<p>{escape(text, quote=False)}</p>")


def small(text: str) -> Piece:
    """A line about the answer."""
    return Piece(f"\n{text}", f"<p><em>{escape(inert(text), quote=False)}</em></p>")


def bullet_piece(bullet: Bullet, number: int, place: Place, names: Mapping[str, str], language: str) -> Piece:
    """A line with its number, its owner or speaker, and a permalink per source."""
    text = inert(bullet.text)
    if bullet.speaker is not None:
        text = f"“{text}” – {name_of(bullet.speaker, names)}"
    if bullet.owner is not None:
        text = f"{say(language, 'owner', owner=name_of(bullet.owner, names))} {text}"
    links = [place.link(event_id) for event_id in bullet.event_ids]
    plain = f"({number}) {text} " + " ".join(f"[{position}] {link}" for position, link in enumerate(links, 1))
    anchors = " ".join(f'<a href="{escape(link)}">[{position}]</a>' for position, link in enumerate(links, 1))
    return Piece(plain, f"<b>{number}.</b> {escape(text, quote=False)} {anchors}", is_item=True)


def closing_lines(coverage: Coverage, engine: Engine, language: str) -> list[str]:
    """What was covered, what was left out, and what wrote it."""
    lines = [coverage_line(coverage, language)]
    if coverage.people_left_out:
        lines.append(say(language, "left_out", people=coverage.people_left_out))
    if coverage.unreadable:
        lines.append(say(language, "unreadable", count=coverage.unreadable))
    if coverage.total == 0:
        return lines
    if engine.name == "model":
        lines.append(say(language, "by_model", model=engine.model))
    elif engine.fell_back is not None:
        scope = say(language, f"scope_{engine.fell_back_scope}") if engine.fell_back_scope else ""
        lines.append(say(language, "fell_back", reason=say(language, f"reason_{engine.fell_back}", scope=scope)))
    else:
        lines.append(say(language, "by_engine"))
    if engine.dropped:
        lines.append(say(language, "dropped", count=engine.dropped))
    return lines


def coverage_line(coverage: Coverage, language: str) -> str:
    """Such as: 312 of 312 messages, 09:02 to 17:40."""
    if coverage.total == 0:
        return say(language, "coverage_none")
    same_day = coverage.first_ts // DAY_MS == coverage.last_ts // DAY_MS
    form = "%H:%M" if same_day and coverage.last_ts - coverage.first_ts < DAY_MS else "%Y-%m-%d %H:%M"
    return say(
        language,
        "coverage" if coverage.complete else "coverage_more",
        covered=coverage.covered,
        total=coverage.total,
        first=format_time(coverage.first_ts, form),
        last=format_time(coverage.last_ts, form),
    )


def format_time(ts: int, form: str = "%Y-%m-%d %H:%M") -> str:
    """A time in UTC. An event may claim any time: what no calendar has is the nearest that it has."""
    return datetime.fromtimestamp(min(max(ts, 0), 253_402_300_799_000) / 1000, UTC).strftime(form)


def pieces_of_lines(title: str, lines: Iterable[tuple[str, Sequence[str]]], link: Callable[[str], str]) -> list[Piece]:
    """A heading and lines with links, for answers that are no summaries."""
    pieces = [heading(title)]
    for text, event_ids in lines:
        links = [link(event_id) for event_id in event_ids]
        anchors = " ".join(f'<a href="{escape(url)}">[{n}]</a>' for n, url in enumerate(links, 1))
        pieces.append(
            Piece(
                " ".join([inert(text), *links]), f"{escape(inert(text), quote=False)} {anchors}".strip(), is_item=True
            )
        )
    return pieces


def markdown_pieces(text: str) -> list[Piece]:
    """Our own texts, which know paragraphs, lines and `code`."""
    pieces = []
    for block in text.split("\n\n"):
        lines = []
        for line in block.split("\n"):
            parts = escape(line, quote=False).split("`")
            lines.append("".join(f"<code>{part}</code>" if n % 2 else part for n, part in enumerate(parts)))
        pieces.append(Piece(block + "\n", f"<p>{'<br>'.join(lines)}</p>"))
    return pieces

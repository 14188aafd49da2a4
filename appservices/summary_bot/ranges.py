"""What part of a room's history is asked about. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Literal

from appservices.summary_bot.clock import DAY_MS, HOUR_MS, MINUTE_MS
from appservices.summary_bot.events import Message

MAX_DURATION_MS = 366 * DAY_MS
UNITS_MS = {"m": MINUTE_MS, "h": HOUR_MS, "d": DAY_MS, "w": 7 * DAY_MS}
DEFAULT_DURATION_MS = DAY_MS

_DURATION = re.compile(r"(\d{1,5})([mhdw])")
_COUNT = re.compile(r"\d{1,6}")
_DATES = re.compile(r"(\d{4})-(\d{2})-(\d{2})(?:\.\.(?:(\d{4})-)?(?:(\d{2})-)?(\d{2}))?")


class RangeError(ValueError):
    """Words that look like a range and are none."""


@dataclass(frozen=True, slots=True)
class Range:
    """A part of the history: what is new to the asker, a span of time, or a number of messages."""

    kind: Literal["unread", "duration", "today", "yesterday", "count", "dates"] = "unread"
    duration_ms: int = 0
    count: int = 0
    first: date | None = None
    last: date | None = None

    def span(self, now: int) -> tuple[int, int] | None:
        """From when (inclusive) to when (exclusive), in milliseconds; None where time does not decide. Days are UTC."""
        midnight = now - now % DAY_MS
        if self.kind == "duration":
            return now - self.duration_ms, now + DAY_MS
        if self.kind == "today":
            return midnight, midnight + DAY_MS
        if self.kind == "yesterday":
            return midnight - DAY_MS, midnight
        if self.kind == "dates":
            assert self.first is not None
            assert self.last is not None
            return _midnight_ms(self.first), _midnight_ms(self.last) + DAY_MS
        return None


UNREAD = Range()
LAST_DAY = Range("duration", duration_ms=DEFAULT_DURATION_MS)


def _midnight_ms(day: date) -> int:
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp() * 1000)


def parse_range(word: str, *, max_messages: int) -> Range | None:
    """The range that a word says, or None if it says none. Raises RangeError for one that cannot be."""
    word = word.lower()
    if word in ("today", "yesterday", "unread"):
        return Range(word)  # type: ignore[arg-type]
    if match := _DURATION.fullmatch(word):
        duration_ms = int(match[1]) * UNITS_MS[match[2]]
        if not 0 < duration_ms <= MAX_DURATION_MS:
            raise RangeError(word)
        return Range("duration", duration_ms=duration_ms)
    if _COUNT.fullmatch(word):
        if not 0 < int(word) <= max_messages:
            raise RangeError(word)
        return Range("count", count=int(word))
    if match := _DATES.fullmatch(word):
        return _dates(match)
    return None


def _dates(match: re.Match[str]) -> Range:
    year, month, day, last_year, last_month, last_day = match.groups()
    if last_year and not last_month:
        raise RangeError(match[0])
    try:
        first = date(int(year), int(month), int(day))
        last = date(int(last_year or year), int(last_month or month), int(last_day or day))
    except ValueError:
        raise RangeError(match[0]) from None
    if not first <= last <= first + timedelta(days=366) or first.year < 2014:  # Matrix has no messages from before
        raise RangeError(match[0])
    return Range("dates", first=first, last=last)


def select(
    messages: Sequence[Message], asked: Range, *, now: int, unread_after: str | None = None
) -> Sequence[Message]:
    """The messages (oldest first) that a range takes in.

    `unread_after`: the last event that the asker has read; when it is not among the messages all of them are new.
    """
    span = asked.span(now)
    if span is not None:
        return [message for message in messages if span[0] <= message.ts < span[1]]
    if asked.kind == "count":
        return messages[-asked.count :]
    for position, message in enumerate(messages):
        if message.event_id == unread_after:
            return messages[position + 1 :]
    return messages

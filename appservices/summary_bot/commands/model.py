"""The commands there are, as values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from appservices.summary_bot.ranges import UNREAD, Range

Verb = Literal[
    "summary", "catchup", "actions", "decisions", "ask", "digest", "transcribe", "role", "lang", "why", "usage",
    "budget", "optout", "optin", "ignore", "unignore", "help", "enable", "disable", "local",
]  # fmt: skip

VERBS: tuple[Verb, ...] = (
    "summary", "catchup", "actions", "decisions", "ask", "digest", "transcribe", "role", "lang", "why", "usage",
    "budget", "optout", "optin", "ignore", "unignore", "help", "enable", "disable", "local",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Scope:
    """Which messages are asked about, and where the answer goes."""

    range: Range = UNREAD
    sender: str | None = None
    """A user ID, or the part of one before the colon."""
    thread: bool = False
    about: str | None = None
    here: bool = False
    """Answer in the room, for everybody."""
    room: str | None = None
    """Another room than the one that was written in: an ID or an alias."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """When a digest comes: minutes after midnight in a time zone, each day or on one day of the week (0 is Monday)."""

    minute_of_day: int
    zone: str
    weekday: int | None = None

    @property
    def every(self) -> str:
        return "day" if self.weekday is None else f"week:{self.weekday}"


@dataclass(frozen=True, slots=True)
class Command:
    """What somebody wants. Which fields count depends on the verb."""

    verb: Verb
    scope: Scope = field(default_factory=Scope)
    words: tuple[str, ...] = ()
    """Arguments of the small commands, checked."""
    text: str = ""
    schedule: Schedule | None = None


@dataclass(frozen=True, slots=True)
class Mistake:
    """What cannot be understood: `hint` names a line of help, `word` what it is about."""

    hint: str
    word: str = ""

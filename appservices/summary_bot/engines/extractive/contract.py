"""What goes to the built-in engine and what comes back: all that the bot itself has to know of it."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from appservices.summary_bot.answers.model import Bullet, SectionName
from appservices.summary_bot.events import Message

Purpose = Literal["summary", "actions", "decisions", "ask"]


class Request(Struct, frozen=True):
    """What the engine is given."""

    messages: list[Message]
    purpose: Purpose = "summary"
    question: str = ""


class Picked(Struct, frozen=True):
    """What it gives back."""

    sections: dict[SectionName, list[Bullet]]


class Order(Struct, frozen=True):
    """A request, or the question which of its messages are about a topic."""

    request: Request
    topic: str | None = None

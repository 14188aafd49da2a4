"""What an engine is asked, whichever it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Purpose = Literal["summary", "actions", "decisions", "ask"]


@dataclass(frozen=True, slots=True)
class Ask:
    """A question about a transcript: who asks, in which room, in which language, in which role."""

    room_id: str
    asker: str
    purpose: Purpose = "summary"
    question: str = ""
    language: str = "en"
    role: str = "assistant"
    local_only: bool = False
    seen_by_all: bool = False
    """Whether the answer is for everybody in the room."""
    keep_facts: bool = True
    """Whether what a model draws from the messages may be kept: not where these were encrypted."""

"""Downloads that wait for a file which is being uploaded to a name that is known already."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

MAX_WAITING: Final = 1000
"""Requests that may wait at once, for all files together."""


class Arrivals:
    """Wakes who waits for a file."""

    def __init__(self) -> None:
        self._waiting: dict[tuple[str, str], list[asyncio.Event]] = {}
        self._count = 0

    @property
    def is_full(self) -> bool:
        """Whether so many wait that one more has to be sent away."""
        return self._count >= MAX_WAITING

    @contextmanager
    def expected(self, origin: str, media_id: str) -> Iterator[asyncio.Event]:
        """An event that is set when the file has come, from the moment of entering on."""
        event, key = asyncio.Event(), (origin, media_id)
        self._waiting.setdefault(key, []).append(event)
        self._count += 1
        try:
            yield event
        finally:
            self._count -= 1
            waiting = self._waiting[key]
            waiting.remove(event)
            if not waiting:
                del self._waiting[key]

    def announce(self, origin: str, media_id: str) -> None:
        """The file is there, committed."""
        for event in self._waiting.get((origin, media_id), ()):
            event.set()

    def stop(self) -> None:
        """Wakes everybody: the server stops."""
        for waiting in self._waiting.values():
            for event in waiting:
                event.set()

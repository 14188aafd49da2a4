"""Shows an answer while it is being written: a message, and edits of it, at most one a second."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from appservices.summary_bot.answers.split import Part
from appservices.summary_bot.engines.models.engine import Sections
from appservices.summary_bot.matrix.client import MatrixFailure
from appservices.summary_bot.matrix.courier import Courier, Target

EDIT_INTERVAL_S = 1.0

log = logging.getLogger(__name__)

Render = Callable[[Sections], Awaitable[Part]]
"""Makes the message that shows what is there so far; notes its sources first."""


class Streamer:
    """Sends what is newest whenever it may; what comes in between is never sent."""

    def __init__(self, courier: Courier, target: Target, key: str, render: Render) -> None:
        self._courier = courier
        self._target = target
        self._key = key
        self._render = render
        self._newest: Sections | None = None
        self._news = asyncio.Event()
        self._ended = asyncio.Event()
        self._edits = 0
        self.event_id: str | None = None
        """The message that shows the answer, once there is one."""

    def show(self, sections: Sections) -> None:
        """Says what is there so far."""
        self._newest = sections
        self._news.set()

    async def run(self) -> None:
        """Sends until `end`. A homeserver that refuses an edit is asked again with the next one."""
        while True:
            await self._news.wait()
            self._news.clear()
            if self._ended.is_set():
                return
            if not self._newest:
                continue
            try:
                await self.put(await self._render(self._newest))
            except MatrixFailure as failure:
                log.info("an answer could not be shown so far: %s", failure)
            try:
                async with asyncio.timeout(EDIT_INTERVAL_S):
                    await self._ended.wait()
            except TimeoutError:
                continue

    def end(self) -> None:
        """Ends `run` after what it is sending: a message broken off in between might come after the whole answer, or,
        with the same transaction ID, in its place."""
        self._ended.set()
        self._news.set()

    async def put(self, part: Part) -> str:
        """Sends the message, or an edit of it; the message's event ID."""
        if self.event_id is None:
            (self.event_id,) = await self._courier.send([part], self._target, f"{self._key}.p")
        else:
            self._edits += 1
            await self._courier.edit(part, self._target.room_id, self.event_id, f"{self._key}.e{self._edits}")
        return self.event_id

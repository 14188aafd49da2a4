"""Runs the built-in engine in a child process that is there only while it is needed."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from collections.abc import Sequence

import msgspec

from appservices.summary_bot.engines.extractive.contract import Order, Picked, Request
from appservices.summary_bot.events import Message

IDLE_S = 60.0
TIMEOUT_S = 120.0
MAX_LINE_BYTES = 256 * 1024 * 1024

log = logging.getLogger(__name__)


class EngineError(Exception):
    """The engine did not answer."""


class ExtractiveEngine:
    """One child at most, one request at a time: it never takes more than one core."""

    def __init__(self, idle_s: float = IDLE_S, timeout_s: float = TIMEOUT_S) -> None:
        self._idle_s = idle_s
        self._timeout_s = timeout_s
        self._lock = asyncio.Lock()
        self._process: asyncio.subprocess.Process | None = None
        self._idle: asyncio.TimerHandle | None = None

    async def summarise(self, request: Request) -> Picked:
        """The sections for a request. Raises EngineError."""
        return msgspec.json.decode(await self._ask(Order(request)), type=Picked)

    async def relevant(self, messages: Sequence[Message], topic: str) -> list[Message]:
        """The messages about a topic. Raises EngineError."""
        answer = await self._ask(Order(Request(list(messages)), topic))
        wanted = set(msgspec.json.decode(answer, type=list[str]))
        return [message for message in messages if message.event_id in wanted]

    async def _ask(self, order: Order) -> bytes:
        line = msgspec.json.encode(order) + b"\n"
        async with self._lock:
            if self._idle is not None:
                self._idle.cancel()
            try:
                async with asyncio.timeout(self._timeout_s):
                    return await self._exchange(line)
            except (OSError, TimeoutError, asyncio.IncompleteReadError, ValueError) as error:
                await self._stop()
                raise EngineError(f"the built-in engine failed: {type(error).__name__}") from None
            except asyncio.CancelledError:
                await self._stop()  # it would answer what nobody waits for any more
                raise
            finally:
                self._idle = asyncio.get_running_loop().call_later(self._idle_s, self._end)

    async def _exchange(self, line: bytes) -> bytes:
        if self._process is None or self._process.returncode is not None:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "appservices.summary_bot.engines.extractive.child",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                limit=MAX_LINE_BYTES,
            )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(line)
        await self._process.stdin.drain()
        answer = await self._process.stdout.readline()
        if not answer:
            raise asyncio.IncompleteReadError(b"", None)
        return answer

    def _end(self) -> None:
        """Lets the child go: it ends when its input does."""
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
            self._process = None

    async def _stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    async def close(self) -> None:
        """Ends the child."""
        if self._idle is not None:
            self._idle.cancel()
        await self._stop()

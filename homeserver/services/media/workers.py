"""Processes that read hostile files for the server: a few, started when there is work, ended when there is none."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any, Final

from homeserver.logs import get_logger
from homeserver.services.errors import LimitExceeded

log = get_logger(__name__)

MAX_WORKERS: Final = 2
MAX_WAITING_JOBS: Final = 100
JOB_TIMEOUT_S: Final = 20.0
IDLE_S: Final = 60.0
BUSY_RETRY_MS: Final = 2000
MAX_ANSWER_BYTES: Final = 256 * 1024


class Workers:
    """Does jobs of `homeserver.services.media.worker`, not more at once than there are processes."""

    def __init__(self, *, max_pixels: int) -> None:
        self._max_pixels = max_pixels
        self._slots = asyncio.Semaphore(MAX_WORKERS)
        self._jobs = 0
        self._idle: list[tuple[asyncio.subprocess.Process, asyncio.TimerHandle]] = []

    async def run(self, job: dict[str, Any]) -> dict[str, Any]:
        """The answer to a job: `{"error": …}` also where the process did not survive it. Raises LimitExceeded."""
        if self._jobs >= MAX_WAITING_JOBS:
            raise LimitExceeded(BUSY_RETRY_MS)
        self._jobs += 1
        try:
            async with self._slots:
                return await self._run(job)
        finally:
            self._jobs -= 1

    async def _run(self, job: dict[str, Any]) -> dict[str, Any]:
        process = self._take_idle()
        if process is not None and (answer := await self._ask(process, job)) is not None:
            return answer
        # One that has waited may have been killed for other reasons than the file: that takes a new one to say.
        answer = await self._ask(await self._start(), job)
        return {"error": "unreadable"} if answer is None else answer

    async def _ask(self, process: asyncio.subprocess.Process, job: dict[str, Any]) -> dict[str, Any] | None:
        """The answer of a process; None if it did not survive the job, in time or in memory or at all."""
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps(job).encode() + b"\n")
            line = await asyncio.wait_for(process.stdout.readline(), JOB_TIMEOUT_S)
            answer: dict[str, Any] = json.loads(line)
        except TimeoutError:
            log.warning("a worker took too long for a file", job=job["job"])
            await _end(process)
            return {"error": "unreadable"}
        except (OSError, ValueError) as error:
            log.warning("a worker did not survive a file", job=job["job"], error=repr(error))
            await _end(process)
            return None
        except asyncio.CancelledError:
            await _end(process)
            raise
        self._rest(process)
        return answer

    async def _start(self) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "homeserver.services.media.worker", str(self._max_pixels)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            limit=MAX_ANSWER_BYTES,
            env={"PYTHONPATH": ":".join(path for path in sys.path if path)},  # nothing that a file could find out
        )

    def _take_idle(self) -> asyncio.subprocess.Process | None:
        while self._idle:
            process, timer = self._idle.pop()
            timer.cancel()
            if process.returncode is None:
                return process
        return None

    def _rest(self, process: asyncio.subprocess.Process) -> None:
        timer = asyncio.get_running_loop().call_later(IDLE_S, self._retire, process)
        self._idle.append((process, timer))

    def _retire(self, process: asyncio.subprocess.Process) -> None:
        self._idle = [(other, timer) for other, timer in self._idle if other is not process]
        assert process.stdin is not None
        process.stdin.close()  # it ends by itself when no more jobs can come

    async def close(self) -> None:
        """Ends the processes that wait for work."""
        while (process := self._take_idle()) is not None:
            await _end(process)


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.kill()
    await process.wait()

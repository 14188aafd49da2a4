"""A server in a process of its own, which can be killed."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import psutil

START_TIMEOUT_S = 40.0
STOP_TIMEOUT_S = 20.0

CONFIG = """
server_name: weft.test
data_dir: {data_dir}
listeners: [{{address: 127.0.0.1, port: {port}, resources: [client, health]}}]
registration: {{mode: open}}
rate_limits: {{enabled: false}}
logging: {{level: ERROR}}
database: {{url: {url}}}
"""


def write_config(directory: Path, *, database_url: str | None = None) -> Path:
    """The configuration of a server with its data (and, without a URL, its own PostgreSQL) in a directory."""
    path = directory / "homeserver.yaml"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"'{database_url}'" if database_url else "null"
    path.write_text(CONFIG.format(data_dir=directory / "data", port=port, url=url))
    return path


class ServerProcess:
    """A `weft serve`. `base_url` is where it answers."""

    def __init__(self, process: asyncio.subprocess.Process, base_url: str) -> None:
        self._process = process
        self.base_url = base_url

    @classmethod
    async def start(cls, config: Path) -> ServerProcess:
        """Starts a server and waits until it answers."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "homeserver.cli", "serve", "--config", str(config), stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None
        try:
            line = (await asyncio.wait_for(process.stdout.readline(), START_TIMEOUT_S)).decode()
            found = re.search(r" on ([0-9.]+:[0-9]+)", line)
            assert found, f"the server does not start: {line!r}"
        except BaseException:
            await cls(process, "").kill()
            raise
        return cls(process, f"http://{found[1]}")

    @property
    def pid(self) -> int:
        """Its process ID."""
        return self._process.pid

    async def kill(self) -> None:
        """`kill -9`."""
        with suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()

    def terminate(self) -> None:
        """`kill -TERM`: asks it to stop."""
        self._process.terminate()

    def signal(self, number: signal.Signals) -> None:
        """Sends it another signal."""
        self._process.send_signal(number)

    async def wait(self) -> int:
        """Its exit status, once it has ended."""
        return await asyncio.wait_for(self._process.wait(), STOP_TIMEOUT_S)


@asynccontextmanager
async def server_process(config: Path) -> AsyncIterator[ServerProcess]:
    """A server inside the `async with`, killed in the end if it still runs."""
    server = await ServerProcess.start(config)
    try:
        yield server
    finally:
        await server.kill()


def postmaster_pid(data_dir: Path) -> int | None:
    """The process ID of the embedded PostgreSQL in a server's data directory, if one runs or was killed there."""
    path = data_dir / "postgres" / "postmaster.pid"
    return int(path.read_text().split()[0]) if path.exists() else None


def kill_postgres(data_dir: Path) -> None:
    """`kill -9` of the embedded PostgreSQL's first process, and the end of the others, which follow it."""
    pid = postmaster_pid(data_dir)
    assert pid is not None
    others = psutil.Process(pid).children(recursive=True)
    os.kill(pid, signal.SIGKILL)
    _, alive = psutil.wait_procs(others, timeout=STOP_TIMEOUT_S)
    assert not alive

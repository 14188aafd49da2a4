"""Rooms converge, whatever the network and the servers do.

https://spec.matrix.org/v1.19/server-server-api/#room-state-resolution
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from tests.databases import Clones
from tests.simulation.__main__ import MAX_SERVERS

SEED = int(os.environ.get("SEED", "1"))
ROUNDS = int(os.environ.get("ROUNDS", "8"))
LAST_LINES = 400


@pytest.fixture
async def urls(clones: Clones) -> AsyncIterator[list[str]]:
    """As many databases as a world may have servers."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(clones.one()) for _ in range(MAX_SERVERS)]


@pytest.mark.parametrize("seed", range(SEED, SEED + ROUNDS))
async def test_servers_converge(seed: int, urls: list[str]) -> None:
    # In a process of its own, where the order of sets is the same each time: a seed tells all that happens.
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.simulation",
        str(seed),
        *urls,
        env=os.environ | {"PYTHONHASHSEED": "0"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    last = output.decode().splitlines()[-LAST_LINES:]
    assert process.returncode == 0, "\n".join([*last, f"replay it with: make simulate SEED={seed} ROUNDS=1"])

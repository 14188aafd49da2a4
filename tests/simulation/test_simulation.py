"""Rooms converge, whatever the network and the servers do: here a hundred of them, ten in each world.

In every third world one server is malicious. `make simulate SEED=1 ROUNDS=100` looks at more. Each server must have
exactly the state that follows from the events it stands on, worked out anew from the first (`expectation`).
https://spec.matrix.org/v1.19/server-server-api/#room-state-resolution
"""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import AsyncExitStack

from tests.databases import Clones
from tests.simulation.__main__ import MAX_SERVERS

SEED = int(os.environ.get("SEED", "1"))
ROUNDS = int(os.environ.get("ROUNDS", "10"))
AT_ONCE = 2
LAST_LINES = 400


async def test_servers_converge(clones: Clones) -> None:
    seeds = iter(range(SEED, SEED + ROUNDS))
    failures = []

    async def look() -> None:
        for seed in seeds:
            is_well, output = await outcome_of(seed, clones)
            if not is_well:
                replay = f"replay it with: make simulate SEED={seed} ROUNDS=1"
                failures.append("\n".join([*output[-LAST_LINES:], replay]))
                print("A world fails,", replay, flush=True)

    await asyncio.gather(*(look() for _ in range(AT_ONCE)))
    assert not failures, "\n".join(failures)


async def test_a_seed_replays_exactly(clones: Clones) -> None:
    outcomes = [await outcome_of(SEED, clones) for _ in range(2)]
    first, second = ([line for line in output if "history" in line] for _, output in outcomes)
    assert first == second != []


async def outcome_of(seed: int, clones: Clones) -> tuple[bool, list[str]]:
    """Whether all is well in a world, and the lines that it prints."""
    async with AsyncExitStack() as stack:
        urls = [await stack.enter_async_context(clones.one()) for _ in range(MAX_SERVERS)]
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
    return process.returncode == 0, output.decode().splitlines()

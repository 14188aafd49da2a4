"""Rooms converge, whatever the network and the servers do: https://spec.matrix.org/v1.19/server-server-api/#room-state-resolution"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from storage.embedded import EmbeddedPostgres
from tests.conftest import cloned_database
from tests.simulation.virtual_time import VirtualTimeLoop
from tests.simulation.world import World

SEED = int(os.environ.get("SEED", "1"))
ROUNDS = int(os.environ.get("ROUNDS", "8"))
MAX_SERVERS = 5
ROOMS_PER_ROUND = 4
ACTIONS_PER_ROOM = 25


async def simulate(seed: int, urls: list[str]) -> None:
    """One world, from a seed, on databases of its own."""
    world = World(seed, urls)
    await world.start()
    try:
        for _ in range(ROOMS_PER_ROUND):
            await world.room(ACTIONS_PER_ROOM)
    finally:
        await world.stop()


@pytest.fixture
async def urls(postgres: EmbeddedPostgres, template: str) -> AsyncIterator[list[str]]:
    """As many databases as a world may have servers."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(cloned_database(postgres, template)) for _ in range(MAX_SERVERS)]


@pytest.mark.parametrize("seed", range(SEED, SEED + ROUNDS))
def test_servers_converge(seed: int, urls: list[str]) -> None:
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(simulate(seed, urls[: 3 + seed % (MAX_SERVERS - 2)]))

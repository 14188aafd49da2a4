"""One world from a seed: `python -m tests.simulation SEED URL…`, with PYTHONHASHSEED=0 and migrated databases."""

from __future__ import annotations

import asyncio
import random
import secrets
import sys
from typing import Any

from tests.simulation.virtual_time import VirtualTimeLoop
from tests.simulation.world import World

MAX_SERVERS = 7
ROOMS_PER_WORLD = 10
ACTIONS_PER_ROOM = 25


async def simulate(seed: int, urls: list[str]) -> None:
    """Lets everything happen. Raises AssertionError where servers do not agree in the end."""
    world = World(seed, urls[: 3 + seed % (MAX_SERVERS - 2)])
    await world.start()
    try:
        for _ in range(ROOMS_PER_WORLD):
            await world.room(ACTIONS_PER_ROOM)
    finally:
        await world.stop()


def make_chance_certain(seed: int) -> None:
    """Has the servers' random names follow from the seed as well: they decide ties."""
    rng = random.Random(-seed)
    certain: dict[str, Any] = {
        "token_bytes": rng.randbytes,
        "token_hex": lambda count=16: rng.randbytes(count).hex(),
        "token_urlsafe": lambda count=16: rng.randbytes(count).hex(),
        "randbelow": rng.randrange,
    }
    for name, function in certain.items():
        setattr(secrets, name, function)


def main() -> None:
    """Runs it."""
    seed = int(sys.argv[1])
    make_chance_certain(seed)
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(simulate(seed, sys.argv[2:]))


if __name__ == "__main__":
    main()

"""Waiting for what has to become true."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

POLL_S = 0.01


async def eventually(condition: Callable[[], object], *, within_s: float = 20.0) -> None:
    """Returns once the condition holds; fails when it does not in time."""
    deadline = asyncio.get_running_loop().time() + within_s
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, "it did not happen in time"
        await asyncio.sleep(POLL_S)

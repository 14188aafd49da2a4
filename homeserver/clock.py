"""The only reader of the wall clock. Everything else is given a `Clock`, so that tests can be given another."""

from __future__ import annotations

import time
from collections.abc import Callable

Clock = Callable[[], int]
"""Milliseconds since the epoch."""


def now_ms() -> int:
    """The time, as events have it."""
    return time.time_ns() // 1_000_000

"""Seeds for randomised tests: printed, so that a failure is replayed with `WEFT_SEED=<number> pytest …`."""

from __future__ import annotations

import os
import random
import secrets


def seeded_random() -> random.Random:
    """A source of randomness whose seed stands in the output of a failing test."""
    seed = int(os.environ.get("WEFT_SEED") or secrets.randbits(32))
    print(f"WEFT_SEED={seed}")
    return random.Random(seed)

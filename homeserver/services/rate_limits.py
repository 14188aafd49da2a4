"""Token buckets per kind of action and per who does it."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace

from config.schema import RateLimits
from homeserver.clock import Clock
from homeserver.services.errors import LimitExceeded

MAX_BUCKETS = 50_000


class RateLimiter:
    """Counts actions against the configured limits. Buckets are bounded: the least recently used are forgotten.

    https://spec.matrix.org/v1.19/client-server-api/#rate-limiting
    """

    def __init__(self, limits: RateLimits, clock: Clock) -> None:
        self._limits = limits
        self._clock = clock
        self._buckets: OrderedDict[tuple[str, str], tuple[float, int]] = OrderedDict()

    def lifted(self) -> RateLimiter:
        """One that lets everything pass, for those whom no limit counts for."""
        return RateLimiter(replace(self._limits, enabled=False), self._clock)

    def check(self, kind: str, who: str, *, cost: int = 1) -> None:
        """Takes `cost` actions of `kind` (an option of `rate_limits`) from a bucket, or raises LimitExceeded."""
        limit = getattr(self._limits, kind)
        if limit is None or not self._limits.enabled:
            return
        now = self._clock()
        tokens, then = self._buckets.get((kind, who), (float(limit.burst), now))
        tokens = min(float(limit.burst), tokens + max(0, now - then) * limit.per_second / 1000)
        if tokens < min(cost, limit.burst):
            raise LimitExceeded(int((min(cost, limit.burst) - tokens) * 1000 / limit.per_second) + 1)
        self._buckets[kind, who] = (tokens - min(cost, limit.burst), now)
        self._buckets.move_to_end((kind, who))
        if len(self._buckets) > MAX_BUCKETS:
            self._buckets.popitem(last=False)

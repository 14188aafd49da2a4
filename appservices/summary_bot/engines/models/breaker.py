"""A circuit breaker: a provider that fails again and again is left alone for a while. Pure; time is an argument."""

from __future__ import annotations

from dataclasses import dataclass

FAILURES_TO_OPEN = 3
FIRST_PAUSE_MS = 15_000
MAX_PAUSE_MS = 10 * 60_000


@dataclass(slots=True)
class Breaker:
    """For one model of one provider. After a pause one call may try; its failure doubles the next pause."""

    failures: int = 0
    pause_ms: int = FIRST_PAUSE_MS
    open_until: int = 0
    is_trying: bool = False

    def may_call(self, now: int) -> bool:
        """Whether a call may be made; while the breaker is half open only the first one may."""
        if self.failures < FAILURES_TO_OPEN:
            return True
        if now < self.open_until or self.is_trying:
            return False
        self.is_trying = True
        return True

    def succeed(self) -> None:
        """A call went well."""
        self.failures, self.pause_ms, self.is_trying = 0, FIRST_PAUSE_MS, False

    def fail(self, now: int) -> None:
        """A call failed."""
        if self.failures >= FAILURES_TO_OPEN:
            self.pause_ms = min(2 * self.pause_ms, MAX_PAUSE_MS)
        self.failures += 1
        self.is_trying = False
        self.open_until = now + self.pause_ms

    def forget_try(self) -> None:
        """A call ended without telling anything about the provider."""
        self.is_trying = False

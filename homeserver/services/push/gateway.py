"""What delivering needs of the network: somebody who takes a notification to a push gateway."""

from __future__ import annotations

from typing import Protocol


class PushFailed(Exception):
    """A push did not get there, and is to be tried again: after `retry_after_ms` at the earliest, if that is known."""

    def __init__(self, reason: str, *, retry_after_ms: int | None = None) -> None:
        super().__init__(reason)
        self.retry_after_ms = retry_after_ms


class PushGateway(Protocol):
    """Takes notifications to push gateways."""

    async def notify(self, url: str, body: bytes) -> frozenset[str]:
        """Posts a notification (JSON) to a URL; returns the pushkeys that are rejected. Raises PushFailed.

        https://spec.matrix.org/v1.19/push-gateway-api/#post_matrixpushv1notify
        """

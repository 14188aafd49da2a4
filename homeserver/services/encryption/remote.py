"""What other servers do for the encryption of their users: federation provides these, where it stands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from storage.stream import Writes


class RemoteKeys(Protocol):
    """Asks other servers for their users' keys. Both raise `RemoteFailure`, and check nothing of what comes back."""

    async def query(self, server: str, wanted: Mapping[str, Sequence[str]], *, timeout_ms: int) -> dict[str, Any]:
        """The answer to a query for user ID -> device IDs, none for all.

        https://spec.matrix.org/v1.19/server-server-api/#post_matrixfederationv1userkeysquery
        """
        ...

    async def claim(self, server: str, wanted: Mapping[str, Mapping[str, str]], *, timeout_ms: int) -> dict[str, Any]:
        """The answer to a claim for user ID -> device ID -> algorithm.

        https://spec.matrix.org/v1.19/server-server-api/#post_matrixfederationv1userkeysclaim
        """
        ...


class RemoteDevices(Protocol):
    """Carries messages to devices of other servers' users."""

    def add(
        self, writes: Writes, position: int, sender: str, type: str, messages: Mapping[str, Mapping[str, object]]
    ) -> None:
        """Adds to `writes` what makes sure that messages (user ID -> device ID or * -> content) are sent on.

        It is durable together with the messages for local devices, at their position.
        https://spec.matrix.org/v1.19/server-server-api/#send-to-device-messaging
        """
        ...

    def publish(self, writes: Writes) -> None:
        """Says that `writes` are durable now."""
        ...

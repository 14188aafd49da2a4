"""What other servers do for the encryption of their users: federation provides these, where it stands."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from homeserver.services.remote import RemoteFailure
from homeserver.services.rooms.user_rooms import UserRoom
from storage.stream import Writes

C = TypeVar("C")


class RemoteKeys(Protocol):
    """Finds keys of other servers' users, and checks nothing of what their servers say."""

    async def query(
        self, server: str, wanted: Mapping[str, Sequence[str]], *, timeout_ms: int
    ) -> tuple[dict[str, Any], RemoteFailure | None]:
        """The answer to a query for user ID -> device IDs, none for all; and why some of it could not be had.

        https://spec.matrix.org/v1.19/server-server-api/#post_matrixfederationv1userkeysquery
        """
        ...

    async def claim(self, server: str, wanted: Mapping[str, Mapping[str, str]], *, timeout_ms: int) -> dict[str, Any]:
        """The answer to a claim for user ID -> device ID -> algorithm. Raises RemoteFailure.

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


class RemoteLists(Protocol[C]):
    """Tells other servers of changed devices."""

    async def servers(self, user_id: str, rooms: Mapping[str, UserRoom]) -> set[str]:
        """The other servers in a user's rooms; none for a user of another server."""
        ...

    async def load(self, user_id: str, servers: set[str]) -> C:
        """What servers have not been told of a user's devices and keys."""
        ...

    def add(self, writes: Writes, changes: C, next_position: Callable[[], int]) -> int:
        """Has changes told, durably, each at a position of its own; returns the last one's, the list's from now on."""
        ...

    async def load_introduction(self, user_id: str) -> dict[str, object] | None:
        """What a server is told that has not followed a user's list; None where there are no devices to tell of."""
        ...

    def introduce(self, writes: Writes, position: int, content: dict[str, object], servers: set[str]) -> None:
        """Has that told, durably. Each server may be told one thing at a position."""
        ...

    def publish(self, writes: Writes) -> None:
        """Says that `writes` are durable now."""
        ...

"""The events of a room's state, as another server tells them: checked while the others still arrive, kept as text.

The state of a large room is tens of megabytes, and ten times as much once it is parsed: it never is, as a whole.
https://spec.matrix.org/v1.19/server-server-api/#retrieving-events
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final

from homeserver.logs import get_logger
from homeserver.services.federation.outliers import Packed
from homeserver.services.federation.verification import Verification, Verified
from homeserver.services.remote import RemoteMisbehaved
from matrix.room_versions import RoomVersion

log = get_logger(__name__)

MAX_STATE_EVENTS: Final = 200_000
MAX_AUTH_CHAIN_EVENTS: Final = 200_000
BATCHES_AT_ONCE: Final = 4
"""How many batches are checked side by side: each waits for the keys of its servers, of which some are slow."""

MAX_CHECK_S: Final = 600.0
"""How long the keys of all servers may take that have signed events of a state: some are slow, many are gone."""


class Gathering:
    """Collects and checks what arrives (`take`); `whole` waits for the last of it. It has to be closed (`aclose`).

    Events of other rooms, and those without the signatures that they need, are left out.
    """

    def __init__(self, verification: Verification, version: RoomVersion, room_id: str) -> None:
        self._verification = verification
        self._version = version
        self._room_id = room_id
        self._gate = asyncio.Semaphore(BATCHES_AT_ONCE)
        self._tasks: list[asyncio.Task[None]] = []
        self.events: dict[str, Packed] = {}
        self.lists: dict[str, set[str]] = {}

    async def aclose(self) -> None:
        """Ends what is under way: it is not wanted any more."""
        for task in self._tasks:
            task.cancel()
        # What went wrong was raised by `whole`, or something else was before that.
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def take(self, items: Sequence[tuple[str, bytes]]) -> None:
        """Takes events as they come, each with the list that it stands in (`remote.TakeItems`).

        It does not wait for them to be checked: the other server would, and might lose patience.
        """
        self._tasks.append(asyncio.create_task(self._check(items), name=f"check state of {self._room_id}"))

    async def _check(self, items: Sequence[tuple[str, bytes]]) -> None:
        async with self._gate:
            checked = await self._verification.verify_texts([text for _, text in items], self._version)
            left_out = 0
            for (name, _), one in zip(items, checked, strict=True):
                if not isinstance(one, Verified) or one.pdu.room_id != self._room_id:
                    left_out += 1
                    continue
                self.lists.setdefault(name, set()).add(one.pdu.event_id)
                self.events.setdefault(one.pdu.event_id, Packed.of(one.pdu))
            if left_out:
                log.info("events were left out of a room's state", room_id=self._room_id, count=left_out)

    async def whole(self, origin: str) -> None:
        """Waits until all is checked that a server told. Raises RemoteMisbehaved where that takes for ever."""
        try:
            async with asyncio.timeout(MAX_CHECK_S):
                await asyncio.gather(*self._tasks)
        except TimeoutError:
            raise RemoteMisbehaved(origin, "it told events whose keys cannot be had in time") from None


def lists_of(state: str) -> Mapping[str, int]:
    """The lists of an answer that tells a room's state under this key, and how long they may be."""
    return {state: MAX_STATE_EVENTS, "auth_chain": MAX_AUTH_CHAIN_EVENTS}

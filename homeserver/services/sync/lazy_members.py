"""Which member events a device has been sent already, so that lazy loading need not repeat them.

https://spec.matrix.org/v1.19/client-server-api/#lazy-loading-room-members
"""

from __future__ import annotations

from collections import OrderedDict

MAX_DEVICE_ROOMS = 20_000


class LazyMembers:
    """Remembers, for each device and room, which position of whose member event went out in which answer."""

    def __init__(self) -> None:
        self._sent: OrderedDict[tuple[int, int], dict[str, tuple[int, int]]] = OrderedDict()

    def unsent(self, device: int, room: int, wanted: dict[str, int], since: int) -> dict[str, int]:
        """Those of `wanted` (user ID -> position) that the device cannot have, who has all up to `since`."""
        sent = self._sent.get((device, room), {})
        return {
            user_id: position
            for user_id, position in wanted.items()
            if (known := sent.get(user_id)) is None or known[0] != position or known[1] > since
        }

    def note(self, device: int, room: int, sent: dict[str, int], next_batch: int) -> None:
        """Notes that these go out in the answer with this token."""
        if not sent:
            return
        known = self._sent.setdefault((device, room), {})
        self._sent.move_to_end((device, room))
        for user_id, position in sent.items():
            known[user_id] = (position, next_batch)
        if len(self._sent) > MAX_DEVICE_ROOMS:
            self._sent.popitem(last=False)

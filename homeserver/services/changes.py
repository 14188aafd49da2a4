"""The ring of recent changes: which rooms changed after a position."""

from __future__ import annotations

from bisect import bisect_right

MAX_CHANGES = 20_000


class Changes:
    """The newest (position, room ID) pairs, in order; complete after `complete_after`."""

    def __init__(self) -> None:
        self._positions: list[int] = []
        self._room_ids: list[str] = []
        self.complete_after = 0

    def start(self, position: int) -> None:
        """Begins at a position: of what came before nothing is known."""
        self.complete_after = position

    def add(self, position: int, room_id: str) -> None:
        """Notes a change, newer than all before."""
        self._positions.append(position)
        self._room_ids.append(room_id)
        if len(self._positions) >= 2 * MAX_CHANGES:
            self.complete_after = self._positions[MAX_CHANGES - 1]
            del self._positions[:MAX_CHANGES]
            del self._room_ids[:MAX_CHANGES]

    def since(self, position: int) -> set[str] | None:
        """The rooms that changed after a position; None when that is longer ago than the ring goes back."""
        if position < self.complete_after:
            return None
        return set(self._room_ids[bisect_right(self._positions, position) :])

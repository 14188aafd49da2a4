"""How a user's events are counted, in which room and from when on (docs/adr/0007)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from storage.unread import CountingModeRow

GENERAL = ""


class CountingModes:
    """The changes of one user's counting modes.

    A member's events are counted as a difference of the room's running counts, or, in the *own* mode, by what is
    personal alone. A room follows the general mode where it has none of its own.
    """

    __slots__ = ("_changes",)

    def __init__(self, rows: Iterable[CountingModeRow]) -> None:
        self._changes: dict[str, list[tuple[int, bool | None]]] = {}
        self.add(rows)

    def add(self, rows: Iterable[CountingModeRow]) -> None:
        """Takes in changes, newer than all before."""
        for row in rows:
            self._changes.setdefault(row.room_id, []).append((row.position, row.is_own))

    def changes_to(self, general: bool, rooms: Mapping[str, bool]) -> dict[str, bool | None]:
        """What has to change for the modes to be these: room ID or GENERAL -> mode, None for the general one."""
        current = {room_id: changes[-1][1] for room_id, changes in self._changes.items()}
        wanted: dict[str, bool | None] = dict.fromkeys(current, None)
        wanted.update(rooms)
        wanted[GENERAL] = general
        current.setdefault(GENERAL, False)
        return {room_id: mode for room_id, mode in wanted.items() if mode != current.get(room_id)}

    def is_own(self, room_id: str) -> bool:
        """Whether events in a room are counted by themselves now."""
        changes = self._changes.get(room_id)
        if changes is not None and (mode := changes[-1][1]) is not None:
            return mode
        changes = self._changes.get(GENERAL)
        return changes is not None and changes[-1][1] is True

    def difference_spans(self, room_id: str, after: int, up_to: int) -> list[tuple[int, int]]:
        """The parts of after < p <= up_to in which a room's events are counted as differences, oldest first."""
        steps = [(position, False, mode) for position, mode in self._changes.get(room_id, ())]
        steps += [(position, True, mode) for position, mode in self._changes.get(GENERAL, ())]
        spans: list[tuple[int, int]] = []
        own: bool | None = None
        general = False
        begin = 0
        for position, is_general, mode in [*sorted(steps, key=lambda step: step[:2]), (up_to, True, None)]:
            is_own = general if own is None else own
            low, high = max(begin, after), min(position, up_to)
            if not is_own and low < high:
                if spans and spans[-1][1] == low:
                    low = spans.pop()[0]
                spans.append((low, high))
            begin = position
            if is_general:
                general = mode is True
            else:
                own = mode
            if position >= up_to:
                break
        return spans

"""A room's threads, as far as unread counts have to know them (docs/adr/0007)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from storage.unread import ThreadEventRow, ThreadRow

MAX_THREAD_LOG_EVENTS = 256
"""How many of the newest counting events in threads are kept, for bringing members' counts up to date."""


class ThreadLogEntry(NamedTuple):
    """What an event in a thread did to everyone's counts but its sender's."""

    position: int
    thread: str
    sender: str
    notify: int
    highlight: int


class RoomThreads:
    """Running counts of each thread: `tip` runs ahead for the next event, `published` is what readers see.

    `log` has the newest events that count for everyone, complete after `log_after`.
    """

    __slots__ = ("_tip", "_tip_highlight", "_tip_notify", "log", "log_after", "published")

    def __init__(self, rows: Iterable[ThreadRow] = (), *, position: int = 0) -> None:
        self.published: dict[str, ThreadRow] = {row.thread: row for row in rows}
        self._tip = {row.thread: (row.notify_count, row.highlight_count) for row in self.published.values()}
        self._tip_notify = sum(notify for notify, _ in self._tip.values())
        self._tip_highlight = sum(highlight for _, highlight in self._tip.values())
        self.log: list[ThreadLogEntry] = []
        self.log_after = position

    def advance(self, room: int, position: int, thread: str, *, notify: bool, highlight: bool) -> ThreadEventRow:
        """Counts an event that is being made in a thread."""
        counts = self._tip.get(thread, (0, 0))
        counts = self._tip[thread] = (counts[0] + notify, counts[1] + highlight)
        self._tip_notify += notify
        self._tip_highlight += highlight
        return ThreadEventRow(room, position, thread, *counts, self._tip_notify, self._tip_highlight)

    def publish(self, row: ThreadEventRow, sender: str) -> None:
        """Shows an event in a thread, now durable, to readers."""
        before = self.published.get(row.thread)
        notify = row.notify_count - (before.notify_count if before else 0)
        highlight = row.highlight_count - (before.highlight_count if before else 0)
        self.published[row.thread] = ThreadRow(row.thread, row.position, row.notify_count, row.highlight_count)
        if not notify:
            return
        self.log.append(ThreadLogEntry(row.position, row.thread, sender, notify, highlight))
        if len(self.log) >= 2 * MAX_THREAD_LOG_EVENTS:
            self.log_after = self.log[MAX_THREAD_LOG_EVENTS - 1].position
            del self.log[:MAX_THREAD_LOG_EVENTS]

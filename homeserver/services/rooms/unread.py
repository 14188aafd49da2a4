"""One member's unread counts, as a difference of the room's running counts (docs/adr/0004, docs/adr/0007)."""

from __future__ import annotations

from homeserver.services.rooms.threads import RoomThreads

Counts = tuple[int, int]
"""(notification_count, highlight_count)"""


class UnreadCounts:
    """A member's counts over all threads, as what the room's running counts have to be lessened by; and those threads
    that are not 0, as they were at the position `threads_at`.

    `is_own`: this member's counts do not follow the room's running counts, but only what is personal. `ignored` are
    those whose messages do not count. `sent` has, by thread, the member's own newest message (MAIN: in the main
    timeline), up to which that is read; those alone that are newer than what receipts say.
    """

    __slots__ = ("_highlight_base", "_notify_base", "ignored", "is_own", "sent", "threads", "threads_at")

    def __init__(
        self,
        running: Counts,
        *,
        is_own: bool,
        position: int,
        total: Counts = (0, 0),
        threads: dict[str, Counts] | None = None,
        ignored: frozenset[str] = frozenset(),
        sent: dict[str, int] | None = None,
    ) -> None:
        self.is_own = is_own
        self.ignored = ignored
        self.sent = sent or {}
        self._notify_base, self._highlight_base = -total[0], -total[1]
        if not is_own:
            self._notify_base += running[0]
            self._highlight_base += running[1]
        self.threads = threads or {}
        self.threads_at = position

    def notifications(self, running: int) -> int:
        """The `notification_count` of all threads, where the room's running count is `running`."""
        return max(0, (0 if self.is_own else running) - self._notify_base)

    def highlights(self, running: int) -> int:
        """The `highlight_count`, likewise."""
        return max(0, (0 if self.is_own else running) - self._highlight_base)

    def add(self, notify: int, highlight: int, thread: str | None) -> None:
        """Counts what is the member's alone."""
        self._notify_base -= notify
        self._highlight_base -= highlight
        if thread is not None:
            self._add_to_thread(thread, notify, highlight)

    def _add_to_thread(self, thread: str, notify: int, highlight: int) -> None:
        before = self.threads.get(thread, (0, 0))
        self.threads[thread] = (before[0] + notify, before[1] + highlight)

    def follow(self, threads: RoomThreads, user_id: str, position: int) -> bool:
        """Brings the threads' counts up to what is published; False if that is no longer known: count anew."""
        if self.threads_at < threads.log_after:
            return False
        if not self.is_own:
            for entry in reversed(threads.log):
                if entry.position <= self.threads_at:
                    break
                if entry.sender != user_id and entry.sender not in self.ignored:
                    self._add_to_thread(entry.thread, entry.notify, entry.highlight)
        self.threads_at = position
        return True

    def read_thread(self, thread: str) -> None:
        """Notes that a thread is read to its end; `follow` first."""
        notify, highlight = self.threads.pop(thread, (0, 0))
        self._notify_base += notify
        self._highlight_base += highlight

    def read_main(self, running: Counts) -> None:
        """Notes that the main timeline is read to its end, where the room's running counts are `running`;
        `follow` first.
        """
        notify, highlight = self.in_threads()
        self._notify_base = (0 if self.is_own else running[0]) - notify
        self._highlight_base = (0 if self.is_own else running[1]) - highlight

    def in_threads(self) -> Counts:
        """What all threads have together."""
        return sum(n for n, _ in self.threads.values()), sum(h for _, h in self.threads.values())

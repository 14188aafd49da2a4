"""Counting what a member has not read, from the database (docs/adr/0004, docs/adr/0007).

https://spec.matrix.org/v1.19/client-server-api/#receiving-notifications
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from homeserver.services.push_rules import PushRules
from homeserver.services.rooms.room import Room
from homeserver.services.rooms.unread import Counts, UnreadCounts
from storage.unread import MAIN, Running, UnreadRepository
from storage.user_data import ReceiptRow

MAIN_THREAD = "main"
UNTHREADED = ""


@dataclass(slots=True, frozen=True)
class ReadUpTo:
    """How far a member has read: everything, or since they joined, up to `position`, and single threads further.

    `threads` has MAIN for the main timeline.
    """

    position: int
    threads: dict[str, int]

    @classmethod
    def of(cls, joined: int, receipts: Iterable[ReceiptRow]) -> ReadUpTo:
        """From a member's own receipts of all types, and the position of their join."""
        furthest: dict[str, int] = {}
        for row in receipts:
            furthest[row.thread_id] = max(furthest.get(row.thread_id, 0), row.event_position)
        position = max(joined, furthest.pop(UNTHREADED, 0))
        if MAIN_THREAD in furthest:
            furthest[MAIN] = furthest.pop(MAIN_THREAD)
        return cls(position, {thread: at for thread, at in furthest.items() if at > position})

    def of_thread(self, thread: str) -> int:
        """How far a thread is read."""
        return self.threads.get(thread, self.position)

    def with_sent(self, sent: Mapping[str, int]) -> ReadUpTo:
        """The same, where the member has sent messages: thread (MAIN among them) -> position of the newest.

        Who sends a message has read what is before it, in its thread. For the specification says that a receipt is
        moved "either by using the API or by sending an event".
        https://spec.matrix.org/v1.19/client-server-api/#marking-notifications-as-read
        """
        further = {thread: at for thread, at in sent.items() if at > self.of_thread(thread)}
        return ReadUpTo(self.position, {**self.threads, **further}) if further else self


class UnreadCounting:
    """Counts for one member at a time, in a few queries over what the difference of running counts does not say."""

    def __init__(self, repository: UnreadRepository, push_rules: PushRules) -> None:
        self._repository = repository
        self._push_rules = push_rules

    async def count(
        self, room: Room, user_id: str, read: ReadUpTo, up_to: int, ignored: frozenset[str]
    ) -> UnreadCounts:
        """A member's counts, as the room is published up to a position; `read` is what their receipts say.

        Messages of `ignored` users do not count.
        """
        modes = (await self._push_rules.load(user_id)).modes
        running = (room.notify_count, room.highlight_count)
        if up_to <= read.position:
            return UnreadCounts(running, is_own=modes.is_own(room.room_id), position=up_to, ignored=ignored)
        sent = await self._repository.load_sent(room.room, user_id, after=read.position, up_to=up_to)
        read = read.with_sent(sent)
        spans = modes.difference_spans(room.room_id, read.position, up_to)
        counts = await self._repository.load_corrections(
            room.room, user_id, read.position, up_to, read.threads, spans, ignored
        )
        for thread, more in (await self._differences(room, read, spans)).items():
            before = counts.get(thread, Running())
            counts[thread] = Running(before.notify + more.notify, before.highlight + more.highlight)
        total: Counts = (sum(c.notify for c in counts.values()), sum(c.highlight for c in counts.values()))
        threads = {thread: (c.notify, c.highlight) for thread, c in counts.items() if thread != MAIN and any(c)}
        return UnreadCounts(
            running,
            is_own=modes.is_own(room.room_id),
            position=up_to,
            total=total,
            threads=threads,
            ignored=ignored,
            sent=sent,
        )

    async def _differences(self, room: Room, read: ReadUpTo, spans: list[tuple[int, int]]) -> dict[str, Running]:
        """Thread -> by how much its running counts have grown in these spans, beyond where it is read."""
        unread = [t for t, row in room.threads.published.items() if row.position > read.of_thread(t)]
        parts = [
            (thread, max(after, read.of_thread(thread)), up_to)
            for thread in (MAIN, *unread)
            for after, up_to in spans
            if up_to > read.of_thread(thread)
        ]
        main = {position for thread, *part in parts if thread == MAIN for position in part}
        others = {(thread, position) for thread, *part in parts if thread != MAIN for position in part}
        at = await self._repository.load_threads_running(room.room, sorted(others))
        if main:
            found = await self._repository.load_running(room.room, sorted(main))
            at.update({(MAIN, position): running for position, running in found.items()})
        counts: dict[str, Running] = {}
        for thread, after, up_to in parts:
            before, begin, end = counts.get(thread, Running()), at[thread, after], at[thread, up_to]
            notify, highlight = end.notify - begin.notify, end.highlight - begin.highlight
            counts[thread] = Running(before.notify + notify, before.highlight + highlight)
        return counts

"""What unread counts are made of beside the events: threads, counting modes, corrections (docs/adr/0007)."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

import asyncpg

from storage.user_data import GLOBAL

MAIN = ""
"""The main timeline, among threads."""

MAX_COUNTING_MODES = 2_000
"""How many changes of a user's counting modes are kept; of those before, counts know nothing any more."""


class CountingModeRow(NamedTuple):
    """How a user's events are counted from a position on; `room_id` "" is for all rooms without rows of their own."""

    user_id: str
    room_id: str
    position: int
    is_own: bool | None


class ThreadEventRow(NamedTuple):
    """An event in a thread, with the running counts of that thread and of all threads of the room."""

    room: int
    position: int
    thread: str
    notify_count: int
    highlight_count: int
    threads_notify_count: int
    threads_highlight_count: int


class ThreadRow(NamedTuple):
    """A thread as it is now: its newest event's position, and its running counts."""

    thread: str
    position: int
    notify_count: int
    highlight_count: int


class RoomHighlightRow(NamedTuple):
    """An event that highlights for everybody."""

    room: int
    position: int


class Running(NamedTuple):
    """Running counts at a position."""

    notify: int = 0
    highlight: int = 0


INSERT_COUNTING_MODES = """
INSERT INTO counting_modes (user_id, room_id, position, is_own)
SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bool[])
"""
DELETE_OLD_COUNTING_MODES = """
DELETE FROM counting_modes WHERE (user_id, room_id, position) IN (
    SELECT user_id, room_id, position FROM counting_modes WHERE user_id = $1 ORDER BY position DESC OFFSET $2)
"""
COUNTING_MODES = "SELECT user_id, room_id, position, is_own FROM counting_modes WHERE user_id = $1 ORDER BY position"

INSERT_THREAD_EVENTS = """
INSERT INTO thread_events
    (room, position, thread, notify_count, highlight_count, threads_notify_count, threads_highlight_count)
SELECT * FROM unnest($1::int[], $2::bigint[], $3::text[], $4::int[], $5::int[], $6::int[], $7::int[])
"""
UPSERT_THREADS = """
INSERT INTO threads (room, thread, position, notify_count, highlight_count)
SELECT * FROM unnest($1::int[], $2::text[], $3::bigint[], $4::int[], $5::int[])
ON CONFLICT (room, thread) DO UPDATE SET position = excluded.position, notify_count = excluded.notify_count,
    highlight_count = excluded.highlight_count
"""
THREADS_OF_ROOM = "SELECT thread, position, notify_count, highlight_count FROM threads WHERE room = $1"
THREADS_OF_EVENTS = """
SELECT position, thread FROM thread_events WHERE room = $1 AND position = ANY($2::bigint[])
"""

INSERT_ROOM_HIGHLIGHTS = "INSERT INTO room_highlights (room, position) SELECT * FROM unnest($1::int[], $2::bigint[])"

# The running counts of a room's main timeline at positions: those of the room without those of its threads.
RUNNING_AT = """
SELECT at.position,
    coalesce(e.notify_count, 0) - coalesce(t.threads_notify_count, 0) AS notify,
    coalesce(e.highlight_count, 0) - coalesce(t.threads_highlight_count, 0) AS highlight
FROM unnest($2::bigint[]) AS at (position)
LEFT JOIN LATERAL (SELECT notify_count, highlight_count FROM events
    WHERE room = $1 AND kind = 0 AND position <= at.position ORDER BY position DESC LIMIT 1) e ON true
LEFT JOIN LATERAL (SELECT threads_notify_count, threads_highlight_count FROM thread_events
    WHERE room = $1 AND position <= at.position ORDER BY position DESC LIMIT 1) t ON true
"""
THREADS_RUNNING_AT = """
SELECT at.thread, at.position, coalesce(t.notify_count, 0) AS notify, coalesce(t.highlight_count, 0) AS highlight
FROM unnest($2::text[], $3::bigint[]) AS at (thread, position)
LEFT JOIN LATERAL (SELECT notify_count, highlight_count FROM thread_events
    WHERE room = $1 AND thread = at.thread AND position <= at.position ORDER BY position DESC LIMIT 1) t ON true
"""

# A member's newest messages, by thread: those that notify the others.
SENT = """
SELECT coalesce(t.thread, '') AS thread, max(e.position) AS position
FROM events e LEFT JOIN thread_events t ON t.room = $1 AND t.position = e.position
WHERE e.room = $1 AND e.sender = $2 AND e.notifies AND e.position > $3 AND e.position <= $4
    AND e.snapshot <> e.position
GROUP BY 1
"""

# What the differences of running counts have to be corrected by, for one member and by thread, in $3 < position <= $4:
# own events, messages of those whom the member ignores ($9) and redacted ones notify nobody ($7, $8: only where counts
# are such differences at all); mentions and the like are the member's alone. $5, $6 tell how far single threads are
# read beyond $3. (A state event's snapshot is its own position.)
CORRECTIONS = """
WITH items AS (
    SELECT e.position, -1 AS notify, CASE WHEN h.position IS NULL THEN 0 ELSE -1 END AS highlight
    FROM (
        SELECT position FROM events
        WHERE room = $1 AND sender = $2 AND notifies AND position > $3 AND position <= $4
        UNION ALL
        SELECT position FROM events
        WHERE room = $1 AND sender = ANY($9::text[]) AND notifies AND position > $3 AND position <= $4
            AND snapshot <> position
        UNION ALL
        SELECT position FROM events WHERE room = $1 AND sender <> $2 AND notifies AND redacted_by <= $4
            AND position > $3 AND position <= $4 AND (sender <> ALL($9::text[]) OR snapshot = position)
    ) e LEFT JOIN room_highlights h ON h.room = $1 AND h.position = e.position
    WHERE EXISTS (SELECT FROM unnest($7::bigint[], $8::bigint[]) AS span (after, up_to)
        WHERE e.position > span.after AND e.position <= span.up_to)
    UNION ALL
    SELECT position, notify, highlight FROM personal_counts
    WHERE room = $1 AND user_id = $2 AND position > $3 AND position <= $4 AND (cardinality($9::text[]) = 0
        OR NOT EXISTS (SELECT FROM events e WHERE e.position = personal_counts.position
            AND e.sender = ANY($9::text[]) AND e.snapshot <> e.position))
)
SELECT coalesce(t.thread, '') AS thread, sum(i.notify)::int AS notify, sum(i.highlight)::int AS highlight
FROM items i
LEFT JOIN thread_events t ON t.room = $1 AND t.position = i.position
LEFT JOIN unnest($5::text[], $6::bigint[]) AS read (thread, position) ON read.thread = coalesce(t.thread, '')
WHERE i.position > coalesce(read.position, $3)
GROUP BY 1
"""

# The push rules of those of a room's members who have changed theirs.
PUSH_RULES_OF_ROOM = """
SELECT a.user_id, a.content FROM memberships m
JOIN account_data a ON a.user_id = m.user_id AND a.room = $2 AND a.type = 'm.push_rules'
WHERE m.room = $1 AND m.membership = 'join'
"""

# What may have notified a user, newest first, from each of some rooms: what notifies everybody, and what is the user's.
NOTIFICATIONS = """
SELECT found.position FROM unnest($1::int[], $2::bigint[]) AS own (room, after)
CROSS JOIN LATERAL (
    (SELECT position FROM events WHERE room = own.room AND kind = 0 AND notifies AND sender <> $3
        AND position > own.after AND position < $4 AND redacted_by IS NULL ORDER BY position DESC LIMIT $5)
    UNION
    (SELECT position FROM personal_counts WHERE room = own.room AND user_id = $3 AND notify + highlight > 0
        AND position > own.after AND position < $4 ORDER BY position DESC LIMIT $5)
) found
ORDER BY found.position DESC LIMIT $5
"""


async def insert_counting_modes(connection: asyncpg.Connection, rows: Sequence[CountingModeRow]) -> None:
    """Writes changes of counting modes in one statement, and drops the oldest where there are too many."""
    await connection.execute(INSERT_COUNTING_MODES, *map(list, zip(*rows, strict=True)))
    for user_id in {row.user_id for row in rows}:
        await connection.execute(DELETE_OLD_COUNTING_MODES, user_id, MAX_COUNTING_MODES)


async def insert_thread_events(connection: asyncpg.Connection, rows: Sequence[ThreadEventRow]) -> None:
    """Writes events' threads, and where the threads stand then."""
    await connection.execute(INSERT_THREAD_EVENTS, *map(list, zip(*rows, strict=True)))
    newest = {(row.room, row.thread): row for row in rows}.values()
    columns = zip(*((row.room, row.thread, row.position, *row[3:5]) for row in newest), strict=True)
    await connection.execute(UPSERT_THREADS, *map(list, columns))


async def insert_room_highlights(connection: asyncpg.Connection, rows: Sequence[RoomHighlightRow]) -> None:
    """Writes which events highlight for everybody."""
    await connection.execute(INSERT_ROOM_HIGHLIGHTS, *map(list, zip(*rows, strict=True)))


class UnreadRepository:
    """Reads of what unread counts are made of."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def load_counting_modes(self, user_id: str) -> list[CountingModeRow]:
        """The changes of a user's counting modes, oldest first."""
        return [CountingModeRow(*row) for row in await self._pool.fetch(COUNTING_MODES, user_id)]

    async def load_push_rules_of_room(self, room: int) -> dict[str, bytes]:
        """User ID -> m.push_rules, of the joined members who have changed theirs."""
        return {row["user_id"]: row["content"] for row in await self._pool.fetch(PUSH_RULES_OF_ROOM, room, GLOBAL)}

    async def load_threads(self, room: int) -> list[ThreadRow]:
        """All threads of a room."""
        return [ThreadRow(*row) for row in await self._pool.fetch(THREADS_OF_ROOM, room)]

    async def load_threads_of_events(self, room: int, positions: Iterable[int]) -> dict[int, str]:
        """Position -> thread, of those of the events that are in one."""
        rows = await self._pool.fetch(THREADS_OF_EVENTS, room, list(positions))
        return {row["position"]: row["thread"] for row in rows}

    async def load_running(self, room: int, positions: Iterable[int]) -> dict[int, Running]:
        """The running counts of a room's main timeline at positions."""
        rows = await self._pool.fetch(RUNNING_AT, room, list(positions))
        return {row["position"]: Running(row["notify"], row["highlight"]) for row in rows}

    async def load_threads_running(self, room: int, at: Sequence[tuple[str, int]]) -> dict[tuple[str, int], Running]:
        """The running counts of threads at positions."""
        if not at:
            return {}
        threads, positions = zip(*at, strict=True)
        rows = await self._pool.fetch(THREADS_RUNNING_AT, room, list(threads), list(positions))
        return {(row["thread"], row["position"]): Running(row["notify"], row["highlight"]) for row in rows}

    async def load_sent(self, room: int, user_id: str, *, after: int, up_to: int) -> dict[str, int]:
        """Thread (MAIN among them) -> position of the newest message that a member sent in after < p <= up_to."""
        rows = await self._pool.fetch(SENT, room, user_id, after, up_to)
        return {row["thread"]: row["position"] for row in rows}

    async def load_corrections(
        self,
        room: int,
        user_id: str,
        after: int,
        up_to: int,
        read: Mapping[str, int],
        spans: Sequence[tuple[int, int]],
        ignored: Collection[str],
    ) -> dict[str, Running]:
        """Thread (MAIN among them) -> what corrects a member's counts of the events in after < p <= up_to.

        `read` tells how far threads are read beyond `after`; `spans` where counts are differences of running ones;
        messages of `ignored` users do not count.
        """
        begins, ends = [span[0] for span in spans], [span[1] for span in spans]
        args = (list(read), list(read.values()), begins, ends, list(ignored))
        rows = await self._pool.fetch(CORRECTIONS, room, user_id, after, up_to, *args)
        return {row["thread"]: Running(row["notify"], row["highlight"]) for row in rows}

    async def load_notifications(self, user_id: str, rooms: Mapping[int, int], *, before: int, limit: int) -> list[int]:
        """The newest positions before one of what may have notified a user. `rooms`: number -> position of the join."""
        rows = await self._pool.fetch(NOTIFICATIONS, list(rooms), list(rooms.values()), user_id, before, limit)
        return [row["position"] for row in rows]

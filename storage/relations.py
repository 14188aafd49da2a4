"""Which events relate to which: written with the event that relates, found by the one it relates to.

https://spec.matrix.org/v1.19/client-server-api/#forming-relationships-between-events
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import asyncpg

MAX_REFERENCES = 100
"""Most references that are listed with an event; the newest."""


class RelationRow(NamedTuple):
    """An event (the child, at `position`) that relates to the event with the ID `parent`; type and sender are its."""

    position: int
    room: int
    parent: str
    rel_type: str
    type: str
    sender: str


class Children(NamedTuple):
    """What relates to an event, of the kinds that are aggregated, as it is for a reader who sees and ignores nobody.

    `edit` is the position of the newest valid edit; `thread` maps senders to how many events of theirs are in the
    event's thread, and the newest one's position; `references` are (event ID, sender) in the order of positions.
    """

    edit: int | None
    thread: Mapping[str, tuple[int, int]]
    references: tuple[tuple[str, str], ...]


NO_CHILDREN = Children(None, {}, ())


def with_child(children: Children | None, row: RelationRow, event_id: str) -> Children | None:
    """What relates to an event once another event does, which may be counted already; None if that has to be read."""
    if children is None or row.rel_type == "m.replace":
        return None
    if row.rel_type == "m.thread":
        count, newest = children.thread.get(row.sender, (0, 0))
        if newest >= row.position:
            return children
        return children._replace(thread={**children.thread, row.sender: (count + 1, row.position)})
    if row.rel_type == "m.reference" and (event_id, row.sender) not in children.references:
        return children._replace(references=(*children.references, (event_id, row.sender))[-MAX_REFERENCES:])
    return children


INSERT_RELATIONS = """
INSERT INTO relations (position, room, parent, rel_type, type, sender)
SELECT * FROM unnest($1::bigint[], $2::int[], $3::text[], $4::text[], $5::text[], $6::text[])
"""
DELETE_RELATIONS = "DELETE FROM relations WHERE position = ANY($1::bigint[])"

# What is aggregated of the events that relate to some parents: their threads by sender, their newest edits, their
# references. Whether a parent may have edits or a thread at all is not looked at.
CHILDREN = """
SELECT parent, rel_type, sender, count(*) AS count, max(position) AS position, NULL AS event_id
FROM relations WHERE room = $1 AND parent = ANY($2::text[]) AND rel_type = 'm.thread'
GROUP BY parent, rel_type, sender
UNION ALL (
    SELECT DISTINCT ON (r.parent) r.parent, r.rel_type, r.sender, 1, r.position, c.event_id
    FROM relations r JOIN events c ON c.position = r.position
        JOIN events p ON p.event_id = r.parent AND p.room = r.room AND p.sender = r.sender AND p.type = r.type
    WHERE r.room = $1 AND r.parent = ANY($2::text[]) AND r.rel_type = 'm.replace'
    ORDER BY r.parent, c.origin_server_ts DESC, c.event_id COLLATE "C" DESC)
UNION ALL
SELECT p.parent, 'm.reference', r.sender, 1, r.position, c.event_id
FROM unnest($2::text[]) AS p (parent)
    CROSS JOIN LATERAL (
        SELECT position, sender FROM relations
        WHERE room = $1 AND parent = p.parent AND rel_type = 'm.reference' ORDER BY position DESC LIMIT $3) r
    JOIN events c ON c.position = r.position
ORDER BY position
"""

# The newest children of each of some parents, of the kinds that are aggregated.
NEWEST_CHILDREN = """
SELECT p.parent, r.position
FROM unnest($2::text[]) AS p (parent)
    CROSS JOIN LATERAL (
        SELECT position FROM relations
        WHERE room = $1 AND parent = p.parent AND rel_type IN ('m.thread', 'm.replace', 'm.reference')
        ORDER BY position DESC LIMIT $3) r
"""

# A page of a parent's children with after < position <= up_to, newest or oldest first, of any or of one rel_type and
# type. {order} is DESC or ASC.
DIRECT_CHILDREN = """
SELECT position FROM relations
WHERE room = $1 AND parent = $2 AND ($3::text IS NULL OR rel_type = $3) AND ($4::text IS NULL OR type = $4)
    AND position > $5 AND position <= $6
ORDER BY position {order} LIMIT $7
"""

# The same with the children's children, and theirs, up to a depth. Those in between have to fit the filter too.
ALL_CHILDREN = """
WITH RECURSIVE related (position, event_id, depth) AS (
    SELECT r.position, e.event_id, 1
    FROM relations r JOIN events e ON e.position = r.position
    WHERE r.room = $1 AND r.parent = $2 AND ($3::text IS NULL OR r.rel_type = $3) AND ($4::text IS NULL OR r.type = $4)
    UNION
    SELECT r.position, e.event_id, p.depth + 1
    FROM related p JOIN relations r ON r.room = $1 AND r.parent = p.event_id
        JOIN events e ON e.position = r.position
    WHERE p.depth < $8 AND ($3::text IS NULL OR r.rel_type = $3) AND ($4::text IS NULL OR r.type = $4))
SELECT DISTINCT position FROM related WHERE position > $5 AND position <= $6
ORDER BY position {order} LIMIT $7
"""

# The roots of a room's threads by their newest events, which stand at or before a position; nothing by ignored users
# counts, and nothing after `up_to`.
LATEST_THREADS = """
SELECT t.parent, t.position FROM relations t
WHERE t.room = $1 AND t.rel_type = 'm.thread' AND t.position <= $2 AND t.sender <> ALL($4::text[])
    AND NOT EXISTS (SELECT FROM relations n WHERE n.room = $1 AND n.parent = t.parent AND n.rel_type = 'm.thread'
        AND n.position > t.position AND n.position <= $3 AND n.sender <> ALL($4::text[]))
ORDER BY t.position DESC
"""
THREADS = LATEST_THREADS + "LIMIT $5"

# The same of the threads that a user has started or written in. (OFFSET and the inner LIMITs keep the planner from
# reading everything that the user has sent.)
THREADS_OF_USER = f"""
SELECT latest.parent, latest.position FROM ({LATEST_THREADS} OFFSET 0) latest
WHERE (SELECT p.sender FROM events p WHERE p.event_id = latest.parent LIMIT 1) = $6
    OR (SELECT true FROM relations o WHERE o.room = $1 AND o.parent = latest.parent AND o.rel_type = 'm.thread'
        AND o.sender = $6 AND o.position <= $3 LIMIT 1)
ORDER BY latest.position DESC LIMIT $5
"""

# What a user has annotated an event with, by events of one type.
ANNOTATIONS = """
SELECT position FROM relations
WHERE room = $1 AND parent = $2 AND rel_type = 'm.annotation' AND sender = $3 AND type = $4
ORDER BY position DESC LIMIT $5
"""


async def insert_relations(connection: asyncpg.Connection, rows: Sequence[RelationRow]) -> None:
    """Writes relations in one statement."""
    await connection.execute(INSERT_RELATIONS, *map(list, zip(*rows, strict=True)))


async def delete_relations(connection: asyncpg.Connection, positions: Sequence[int]) -> None:
    """Takes redacted children from their parents."""
    await connection.execute(DELETE_RELATIONS, list(positions))


class RelationRepository:
    """Reads of relations."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def load_children(self, room: int, parents: Collection[str]) -> dict[str, Children]:
        """What is aggregated of the children of these events (by their IDs), in one query; none is left out."""
        edits: dict[str, int] = {}
        threads: dict[str, dict[str, tuple[int, int]]] = {}
        references: dict[str, list[tuple[str, str]]] = {}
        for row in await self._pool.fetch(CHILDREN, room, list(parents), MAX_REFERENCES):
            parent = row["parent"]
            match row["rel_type"]:
                case "m.replace":
                    edits[parent] = row["position"]
                case "m.thread":
                    threads.setdefault(parent, {})[row["sender"]] = (row["count"], row["position"])
                case _:
                    references.setdefault(parent, []).append((row["event_id"], row["sender"]))
        found = {*edits, *threads, *references}
        return {
            parent: Children(edits.get(parent), threads.get(parent, {}), tuple(references.get(parent, ())))
            if parent in found
            else NO_CHILDREN
            for parent in parents
        }

    async def load_newest(self, room: int, parents: Collection[str], *, limit: int) -> dict[str, list[int]]:
        """The positions of up to `limit` of the newest children of each of these events, of the aggregated kinds."""
        found: dict[str, list[int]] = {}
        for row in await self._pool.fetch(NEWEST_CHILDREN, room, list(parents), limit):
            found.setdefault(row["parent"], []).append(row["position"])
        return found

    async def load_page(
        self,
        room: int,
        parent: str,
        rel_type: str | None,
        type: str | None,
        *,
        after: int,
        up_to: int,
        limit: int,
        backwards: bool,
        depth: int,
    ) -> list[int]:
        """Positions of what relates to an event, directly or in up to `depth` steps, in the direction's order."""
        order = "DESC" if backwards else "ASC"
        args = (room, parent, rel_type, type, after, up_to, limit)
        if depth == 1:
            rows = await self._pool.fetch(DIRECT_CHILDREN.format(order=order), *args)
        else:
            rows = await self._pool.fetch(ALL_CHILDREN.format(order=order), *args, depth)
        return [row["position"] for row in rows]

    async def load_threads(
        self, room: int, *, start: int, up_to: int, ignored: Collection[str], limit: int, participant: str | None
    ) -> list[tuple[str, int]]:
        """(root's event ID, newest event's position) of threads, the most recent first; `start` is where to begin.

        With a `participant` only of those that this user has started or written in.
        """
        args = (room, start, up_to, list(ignored), limit)
        if participant is None:
            rows = await self._pool.fetch(THREADS, *args)
        else:
            rows = await self._pool.fetch(THREADS_OF_USER, *args, participant)
        return [(row["parent"], row["position"]) for row in rows]

    async def load_annotations(self, room: int, parent: str, sender: str, type: str, *, limit: int) -> list[int]:
        """Positions of what a user has annotated an event with, the newest first."""
        rows = await self._pool.fetch(ANNOTATIONS, room, parent, sender, type, limit)
        return [row["position"] for row in rows]

"""What is to be sent to other servers, what they sent, and how far each of them has got."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import asyncpg


class PendingRedaction(NamedTuple):
    """A redaction of an event that is not known yet; `position` is the redaction's."""

    redacts: str
    room: int
    position: int


class OutgoingEdu(NamedTuple):
    """An EDU that its destination must get, as JSON."""

    destination: str
    position: int
    edu: bytes


INSERT_OUTGOING = "INSERT INTO outgoing_events (position) SELECT unnest($1::bigint[])"
INSERT_PENDING_REDACTIONS = """
INSERT INTO pending_redactions (redacts, room, position)
SELECT * FROM unnest($1::text[], $2::int[], $3::bigint[]) ON CONFLICT DO NOTHING
"""
PENDING_REDACTIONS = "SELECT redacts, room, position FROM pending_redactions WHERE redacts = ANY($1::text[])"
AWAITED = "SELECT DISTINCT redacts FROM pending_redactions LIMIT $1"

INSERT_OUTGOING_EDUS = """
INSERT INTO outgoing_edus (destination, position, edu) SELECT * FROM unnest($1::text[], $2::bigint[], $3::bytea[])
"""
OUTGOING_EDUS = """
SELECT destination, position, edu FROM outgoing_edus WHERE destination = $1 AND position > $2 ORDER BY position LIMIT $3
"""
DELETE_OUTGOING_EDUS = "DELETE FROM outgoing_edus WHERE destination = $1 AND position <= $2"
DESTINATIONS_WITH_EDUS = "SELECT DISTINCT destination FROM outgoing_edus ORDER BY destination"

UPSERT_DESTINATIONS = """
INSERT INTO destination_positions (destination, position) SELECT * FROM unnest($1::text[], $2::bigint[])
ON CONFLICT (destination) DO UPDATE SET position = greatest(destination_positions.position, excluded.position)
"""
# A destination begins where its first user joins: that it is one must not be forgotten before it was first sent to.
INSERT_DESTINATIONS = """
INSERT INTO destination_positions (destination, position) SELECT * FROM unnest($1::text[], $2::bigint[])
ON CONFLICT DO NOTHING
"""
# Who lacks events: by the newest that is for each server, in rooms that it is in (or, where not all members are known,
# is said to be in), and of those that showed it out.
DESTINATIONS_BEHIND = """
WITH outgoing AS (SELECT o.position, e.room FROM outgoing_events o JOIN events e USING (position)),
newest AS (SELECT room, max(position) AS position FROM outgoing GROUP BY room),
due AS (
    SELECT substr(m.user_id, strpos(m.user_id, ':') + 1) AS destination, n.position
    FROM newest n JOIN memberships m USING (room) WHERE m.membership = 'join'
    UNION ALL SELECT unnest(p.servers), n.position
    FROM newest n JOIN partial_rooms p USING (room) WHERE NOT p.is_complete
    UNION ALL SELECT substr(m.user_id, strpos(m.user_id, ':') + 1), o.position
    FROM outgoing o JOIN memberships m USING (room, position) WHERE m.membership IN ('leave', 'ban')
)
SELECT destination, coalesce(d.position, 0) AS position, max(due.position) AS newest
FROM due LEFT JOIN destination_positions d USING (destination)
GROUP BY destination, d.position HAVING max(due.position) > coalesce(d.position, 0)
ORDER BY destination
"""
# Events for a destination after a position: in rooms that it is in, and those that showed it out.
OUTGOING_EVENTS = """
FROM outgoing_events o JOIN events e USING (position)
WHERE o.position > $1 AND (
    EXISTS (SELECT FROM memberships m WHERE m.room = e.room AND m.membership = 'join'
        AND substr(m.user_id, strpos(m.user_id, ':') + 1) = $2)
    OR EXISTS (SELECT FROM partial_rooms p WHERE p.room = e.room AND NOT p.is_complete AND $2 = ANY(p.servers))
    OR EXISTS (SELECT FROM memberships m WHERE m.room = e.room AND m.position = o.position
        AND m.membership IN ('leave', 'ban') AND substr(m.user_id, strpos(m.user_id, ':') + 1) = $2))
"""
OLDEST_OUTGOING = f"SELECT o.position {OUTGOING_EVENTS} ORDER BY o.position LIMIT $3"
NEWEST_OF_ROOMS = (
    f"SELECT max(o.position) AS position {OUTGOING_EVENTS} AND o.position <= $3 GROUP BY e.room ORDER BY 1 DESC"
)
ADVANCE_OTHERS = """
UPDATE destination_positions SET position = $2 WHERE position < $2 AND destination <> ALL($1::text[])
"""
PRUNE_OUTGOING = """
DELETE FROM outgoing_events WHERE added_ts < $1 OR position <= (SELECT min(position) FROM destination_positions)
"""
PRUNE_OUTGOING_EDUS = "DELETE FROM outgoing_edus WHERE added_ts < $1"

RECEIVED_ANSWER = "SELECT answer FROM received_transactions WHERE origin = $1 AND transaction_id = $2"
INSERT_RECEIVED = """
INSERT INTO received_transactions (origin, transaction_id, answer, received_ts) VALUES ($1, $2, $3, $4)
ON CONFLICT DO NOTHING
"""
PRUNE_RECEIVED = "DELETE FROM received_transactions WHERE received_ts < $1"


async def insert_outgoing(connection: asyncpg.Connection, positions: Sequence[int]) -> None:
    """Notes events that are for this server to send."""
    await connection.execute(INSERT_OUTGOING, list(positions))


class DestinationRow(NamedTuple):
    """A server that is sent events, from a position on."""

    destination: str
    position: int


class DestinationBehind(NamedTuple):
    """A server that has events up to `position`, and not the newest that is for it."""

    destination: str
    position: int
    newest: int


async def insert_destinations(connection: asyncpg.Connection, rows: Sequence[DestinationRow]) -> None:
    """Notes servers that are to be sent events from now on; what is known of others stays."""
    first = {row.destination: row.position for row in reversed(rows)}
    await connection.execute(INSERT_DESTINATIONS, list(first), list(first.values()))


async def insert_outgoing_edus(connection: asyncpg.Connection, rows: Sequence[OutgoingEdu]) -> None:
    """Keeps EDUs until they are sent."""
    await connection.execute(INSERT_OUTGOING_EDUS, *map(list, zip(*rows, strict=True)))


async def insert_pending_redactions(connection: asyncpg.Connection, rows: Sequence[PendingRedaction]) -> None:
    """Keeps redactions of unknown events in mind."""
    await connection.execute(INSERT_PENDING_REDACTIONS, *map(list, zip(*rows, strict=True)))


class FederationRepository:
    """Reads, and what no stream carries: how far destinations have got, and answered transactions."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def load_answer(self, origin: str, transaction_id: str) -> bytes | None:
        """What a transaction was answered."""
        answer: bytes | None = await self._pool.fetchval(RECEIVED_ANSWER, origin, transaction_id)
        return answer

    async def persist_answer(self, origin: str, transaction_id: str, answer: bytes, now_ms: int) -> None:
        """Keeps what a transaction was answered."""
        await self._pool.execute(INSERT_RECEIVED, origin, transaction_id, answer, now_ms)

    async def prune_answers(self, before_ms: int) -> None:
        """Forgets the answers of transactions that were received before a time."""
        await self._pool.execute(PRUNE_RECEIVED, before_ms)

    async def load_pending_redactions(self, event_ids: Iterable[str]) -> list[PendingRedaction]:
        """The redactions of these events that came before them."""
        return [PendingRedaction(*row) for row in await self._pool.fetch(PENDING_REDACTIONS, list(event_ids))]

    async def load_awaited(self, *, limit: int) -> set[str]:
        """The IDs of events whose redactions came before them."""
        return {row["redacts"] for row in await self._pool.fetch(AWAITED, limit)}

    async def load_destinations_behind(self) -> list[DestinationBehind]:
        """The destinations that lack events; one of which nothing is known lacks all of them."""
        return [DestinationBehind(*row) for row in await self._pool.fetch(DESTINATIONS_BEHIND)]

    async def persist_destinations(self, positions: Mapping[str, int]) -> None:
        """Notes how far destinations have got."""
        await self._pool.execute(UPSERT_DESTINATIONS, list(positions), list(positions.values()))

    async def load_outgoing(self, destination: str, after: int, *, limit: int) -> list[int]:
        """The positions of events that a destination is to be sent, oldest first."""
        return [row["position"] for row in await self._pool.fetch(OLDEST_OUTGOING, after, destination, limit)]

    async def load_newest_outgoing(self, destination: str, after: int, *, up_to: int) -> list[int]:
        """The position of the newest of these events of each room, newest first."""
        return [row["position"] for row in await self._pool.fetch(NEWEST_OF_ROOMS, after, destination, up_to)]

    async def advance_others(self, lacking: Sequence[str], position: int) -> None:
        """Notes that all destinations but these have everything up to a position."""
        await self._pool.execute(ADVANCE_OTHERS, list(lacking), position)

    async def prune_outgoing(self, before_ts: int) -> None:
        """Forgets which events were to be sent, where all have them, and what was to be sent before a time (ms)."""
        await self._pool.execute(PRUNE_OUTGOING, before_ts)
        await self._pool.execute(PRUNE_OUTGOING_EDUS, before_ts)

    async def load_outgoing_edus(self, destination: str, after: int, *, limit: int) -> list[OutgoingEdu]:
        """The EDUs that wait for a destination, oldest first."""
        return [OutgoingEdu(*row) for row in await self._pool.fetch(OUTGOING_EDUS, destination, after, limit)]

    async def delete_outgoing_edus(self, destination: str, up_to: int) -> None:
        """Forgets EDUs that a destination has got."""
        await self._pool.execute(DELETE_OUTGOING_EDUS, destination, up_to)

    async def load_destinations_with_edus(self) -> list[str]:
        """The destinations for which EDUs wait."""
        return [row["destination"] for row in await self._pool.fetch(DESTINATIONS_WITH_EDUS)]

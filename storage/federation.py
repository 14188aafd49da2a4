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
DESTINATIONS_WITH_EDUS = "SELECT DISTINCT destination FROM outgoing_edus"

UPSERT_DESTINATIONS = """
INSERT INTO destination_positions (destination, position) SELECT * FROM unnest($1::text[], $2::bigint[])
ON CONFLICT (destination) DO UPDATE SET position = greatest(destination_positions.position, excluded.position)
"""
# A destination begins where its first user joins: that it is one must not be forgotten before it was first sent to.
INSERT_DESTINATIONS = """
INSERT INTO destination_positions (destination, position) SELECT * FROM unnest($1::text[], $2::bigint[])
ON CONFLICT DO NOTHING
"""
DESTINATIONS = "SELECT destination, position FROM destination_positions"

# Events for a destination after a position, in rooms that it may know: the newest, at most so many.
OUTGOING_EVENTS = """
SELECT o.position, e.room FROM outgoing_events o JOIN events e USING (position)
WHERE o.position > $1 AND e.room = ANY($2::int[]) ORDER BY o.position LIMIT $3
"""
ROOMS_OF_SERVER = """
SELECT DISTINCT room FROM memberships WHERE membership = 'join' AND substr(user_id, strpos(user_id, ':') + 1) = $1
"""
LAST_OUTGOING = "SELECT coalesce(max(position), 0) FROM outgoing_events"
PRUNE_OUTGOING = "DELETE FROM outgoing_events WHERE position <= $1"

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

    async def load_destinations(self) -> dict[str, int]:
        """Destination -> the position up to which it was sent events."""
        return {row["destination"]: row["position"] for row in await self._pool.fetch(DESTINATIONS)}

    async def persist_destinations(self, positions: Mapping[str, int]) -> None:
        """Notes how far destinations have got."""
        await self._pool.execute(UPSERT_DESTINATIONS, list(positions), list(positions.values()))

    async def load_rooms_of_server(self, server_name: str) -> list[int]:
        """The rooms in which a server has joined members."""
        return [row["room"] for row in await self._pool.fetch(ROOMS_OF_SERVER, server_name)]

    async def load_outgoing(self, after: int, rooms: Sequence[int], *, limit: int) -> list[tuple[int, int]]:
        """(position, room) of events that are to be sent, oldest first."""
        rows = await self._pool.fetch(OUTGOING_EVENTS, after, list(rooms), limit)
        return [(row["position"], row["room"]) for row in rows]

    async def load_last_outgoing(self) -> int:
        """The position of the newest event that is to be sent."""
        return int(await self._pool.fetchval(LAST_OUTGOING))

    async def prune_outgoing(self, up_to: int) -> None:
        """Forgets which events were to be sent, up to a position that all destinations have passed."""
        await self._pool.execute(PRUNE_OUTGOING, up_to)

    async def load_outgoing_edus(self, destination: str, after: int, *, limit: int) -> list[OutgoingEdu]:
        """The EDUs that wait for a destination, oldest first."""
        return [OutgoingEdu(*row) for row in await self._pool.fetch(OUTGOING_EDUS, destination, after, limit)]

    async def delete_outgoing_edus(self, destination: str, up_to: int) -> None:
        """Forgets EDUs that a destination has got."""
        await self._pool.execute(DELETE_OUTGOING_EDUS, destination, up_to)

    async def load_destinations_with_edus(self) -> list[str]:
        """The destinations for which EDUs wait."""
        return [row["destination"] for row in await self._pool.fetch(DESTINATIONS_WITH_EDUS)]

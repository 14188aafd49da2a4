"""What is kept of application services: who they act as, how far they were told, which rooms they list."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import asyncpg


class MasqueradeRow(NamedTuple):
    """A user whom a service acts as. `device` is the number of the device that it named, None without one."""

    is_admin: bool
    locked: bool
    suspended: bool
    deactivated: bool
    appservice_device: int | None
    device: int | None


class StreamRow(NamedTuple):
    """How far a service was told, and the transaction that is on its way to it.

    That has the events at these positions and `extra`, the rest of its JSON; handed over, it moves `position` to
    `up_to`. `transaction_id` is None when there is none.
    """

    service: str
    position: int
    transaction_id: str | None = None
    up_to: int | None = None
    events: Sequence[int] = ()
    extra: bytes = b"{}"


class PassingRow(NamedTuple):
    """What decides whom an event interests, of events that were not seen passing. `snapshot` is the state after it."""

    position: int
    room: int
    snapshot: int
    type: str


MASQUERADE = """
SELECT u.is_admin, u.locked, u.suspended, u.deactivated, u.appservice_device, d.device
FROM users u LEFT JOIN devices d ON d.user_id = u.user_id AND d.device_id = $2 WHERE u.user_id = $1
"""
NUMBER_APPSERVICE_DEVICE = """
UPDATE users SET appservice_device = coalesce(appservice_device, nextval('appservice_devices')::int)
WHERE user_id = $1 RETURNING appservice_device
"""
INSERT_DEVICE = """
INSERT INTO devices (user_id, device_id, display_name) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING RETURNING device
"""

STREAM = "SELECT service, position, transaction_id, up_to, events, extra FROM appservice_streams WHERE service = $1"
INSERT_STREAM = "INSERT INTO appservice_streams (service, position) VALUES ($1, $2) ON CONFLICT DO NOTHING"
UPDATE_STREAM = """
UPDATE appservice_streams SET position = $2, transaction_id = $3, up_to = $4, events = $5, extra = $6
WHERE service = $1
"""
MOVE_STREAMS = """
UPDATE appservice_streams s SET position = new.position FROM unnest($1::text[], $2::bigint[]) new (service, position)
WHERE s.service = new.service AND s.transaction_id IS NULL
"""

# Everything that was published in after < position <= up_to, whatever the room.
PASSING = """
SELECT position, room, snapshot, type FROM events
WHERE kind = 0 AND position > $1 AND position <= $2 ORDER BY position LIMIT $3
"""
LOCAL_JOINS = """
SELECT room, user_id, position FROM memberships
WHERE room = ANY($1::int[]) AND membership = 'join' AND right(user_id, length($2)) = $2
"""
MEMBER_KEYS = "SELECT key, state_key FROM state_keys WHERE room = $1 AND type = 'm.room.member'"
ALIASES_OF_ROOMS = "SELECT alias, room FROM aliases WHERE room = ANY($1::int[])"

LIST_NETWORK_ROOM = """
INSERT INTO network_rooms (network, room, service) VALUES ($1, $2, $3)
ON CONFLICT (network, room) DO UPDATE SET service = excluded.service
"""
UNLIST_NETWORK_ROOM = "DELETE FROM network_rooms WHERE network = $1 AND room = $2 AND service = $3"


class AppserviceRepository:
    """Reads and writes about application services. Each write is durable when it returns."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def load_masquerade(self, user_id: str, device_id: str | None) -> MasqueradeRow | None:
        """The user, and the device of this ID; None without such a user."""
        row = await self._pool.fetchrow(MASQUERADE, user_id, device_id)
        return MasqueradeRow(*row) if row else None

    async def number_appservice_device(self, user_id: str) -> int:
        """The number that stands for a device where a service acts as this user without one."""
        return int(await self._pool.fetchval(NUMBER_APPSERVICE_DEVICE, user_id))

    async def insert_device(self, user_id: str, device_id: str, display_name: str | None) -> bool:
        """Makes a device without an access token; False if it is there already."""
        return await self._pool.fetchval(INSERT_DEVICE, user_id, device_id, display_name) is not None

    async def open_stream(self, service: str, position: int) -> StreamRow:
        """How far a service was told; a new one from `position` on."""
        await self._pool.execute(INSERT_STREAM, service, position)
        row = await self._pool.fetchrow(STREAM, service)
        events, extra = row["events"] or (), row["extra"] or b"{}"
        return StreamRow(row["service"], row["position"], row["transaction_id"], row["up_to"], events, extra)

    async def save_stream(self, row: StreamRow) -> None:
        """Keeps how far a service was told, and what is on its way to it."""
        if row.transaction_id is None:
            await self._pool.execute(UPDATE_STREAM, row.service, row.position, None, None, None, None)
        else:
            events = list(row.events)
            await self._pool.execute(
                UPDATE_STREAM, row.service, row.position, row.transaction_id, row.up_to, events, row.extra
            )

    async def move_streams(self, positions: dict[str, int]) -> None:
        """Moves services on, past what was of no interest to them; not those that have something on its way."""
        await self._pool.execute(MOVE_STREAMS, list(positions), list(positions.values()))

    async def load_passing(self, after: int, up_to: int, limit: int) -> list[PassingRow]:
        """The first timeline events of all rooms with after < position <= up_to."""
        return [PassingRow(*row) for row in await self._pool.fetch(PASSING, after, up_to, limit)]

    async def load_local_joins(self, rooms: Iterable[int], domain: str) -> list[tuple[int, str, int]]:
        """(room, user, position of the join) of the members whose IDs end with `domain`, which begins with a colon."""
        return [tuple(row) for row in await self._pool.fetch(LOCAL_JOINS, list(rooms), domain)]

    async def load_member_keys(self, room: int) -> list[tuple[int, str]]:
        """(number in snapshots, user) of everyone who ever had a membership in a room."""
        return [tuple(row) for row in await self._pool.fetch(MEMBER_KEYS, room)]

    async def load_aliases_of_rooms(self, rooms: Iterable[int]) -> list[tuple[str, int]]:
        """(alias, room) of the aliases that rooms have here."""
        return [tuple(row) for row in await self._pool.fetch(ALIASES_OF_ROOMS, list(rooms))]

    async def list_network_room(self, network: str, room: int, service: str) -> None:
        """Puts a room on a network's list."""
        await self._pool.execute(LIST_NETWORK_ROOM, network, room, service)

    async def unlist_network_room(self, network: str, room: int, service: str) -> None:
        """Takes a room off a network's list, if this service put it there."""
        await self._pool.execute(UNLIST_NETWORK_ROOM, network, room, service)

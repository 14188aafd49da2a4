"""What is kept of application services: who they act as, how far they were told, which rooms they list."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import asyncpg

from storage.accounts import DeviceIdIsKey
from storage.cross_signing import IS_SIGNING_KEY


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


class TakenMessage(NamedTuple):
    """A message for a device of a service's user, as it waits in the database."""

    device: int
    position: int
    user_id: str
    device_id: str
    json: bytes


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

# Everything that was published in after < position <= up_to, whatever the room. Memberships in rooms that nobody here
# is in are outliers, which notify.
PASSING = """
SELECT position, room, snapshot, type FROM events
WHERE (kind = 0 OR kind = 1 AND notifies) AND position > $1 AND position <= $2 ORDER BY position LIMIT $3
"""
LOCAL_JOINS = """
SELECT room, user_id, position FROM memberships
WHERE room = ANY($1::int[]) AND membership = 'join' AND right(user_id, length($2)) = $2
"""
MEMBER_KEYS = "SELECT key, state_key FROM state_keys WHERE room = $1 AND type = 'm.room.member'"
ALIASES_OF_ROOMS = "SELECT alias, room FROM aliases WHERE room = ANY($1::int[])"

# Of the users that a service has made.
RECIPIENTS = """
SELECT u.user_id FROM users u WHERE u.appservice_id = $1 AND EXISTS (
    SELECT FROM devices d JOIN to_device_messages m USING (device) WHERE d.user_id = u.user_id)
"""
DEVICES = """
SELECT d.user_id, d.device_id, d.device FROM users u JOIN devices d USING (user_id)
WHERE u.appservice_id = $1 ORDER BY d.device LIMIT $2
"""
CHANGED_DEVICE_LISTS = """
SELECT l.user_id FROM device_lists l WHERE l.position > $2 AND EXISTS (
    SELECT FROM memberships o JOIN memberships m USING (room) JOIN users u ON u.user_id = m.user_id
    WHERE o.user_id = l.user_id AND o.membership = 'join' AND m.membership = 'join' AND u.appservice_id = $1)
ORDER BY l.position LIMIT $3
"""
MESSAGES = """
SELECT m.device, m.position, d.user_id, d.device_id, m.json FROM devices d JOIN to_device_messages m USING (device)
WHERE d.user_id = ANY($1::text[]) ORDER BY m.position, m.device LIMIT $2
"""
TAKE_MESSAGES = """
DELETE FROM to_device_messages m USING unnest($1::int[], $2::bigint[]) t (device, position)
WHERE m.device = t.device AND m.position = t.position
"""

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
        """Makes a device without an access token; False if it is there already. Raises DeviceIdIsKey."""
        async with self._pool.acquire() as connection, connection.transaction():
            is_new = await connection.fetchval(INSERT_DEVICE, user_id, device_id, display_name) is not None
            if is_new and await connection.fetchval(IS_SIGNING_KEY, user_id, device_id):
                raise DeviceIdIsKey
            return is_new

    async def open_stream(self, service: str, position: int) -> StreamRow:
        """How far a service was told; a new one from `position` on."""
        await self._pool.execute(INSERT_STREAM, service, position)
        row = await self._pool.fetchrow(STREAM, service)
        events, extra = row["events"] or (), row["extra"] or b"{}"
        return StreamRow(row["service"], row["position"], row["transaction_id"], row["up_to"], events, extra)

    async def save_stream(self, row: StreamRow, messages: Sequence[TakenMessage] = ()) -> None:
        """Keeps how far a service was told, and what is on its way to it: `messages` are there from now on."""
        if row.transaction_id is None:
            await self._pool.execute(UPDATE_STREAM, row.service, row.position, None, None, None, None)
            return
        values = (row.service, row.position, row.transaction_id, row.up_to, list(row.events), row.extra)
        if not messages:
            await self._pool.execute(UPDATE_STREAM, *values)
            return
        async with self._pool.acquire() as connection, connection.transaction():
            await connection.execute(UPDATE_STREAM, *values)
            await connection.execute(
                TAKE_MESSAGES, [message.device for message in messages], [message.position for message in messages]
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

    async def load_recipients(self, service: str) -> list[str]:
        """The users of a service for whose devices messages wait."""
        return [row["user_id"] for row in await self._pool.fetch(RECIPIENTS, service)]

    async def load_devices(self, service: str, *, limit: int) -> list[tuple[str, str, int]]:
        """(user, device ID, device number) of devices of a service's users, oldest first."""
        return [tuple(row) for row in await self._pool.fetch(DEVICES, service, limit)]

    async def load_changed_device_lists(self, service: str, since: int, *, limit: int) -> list[str]:
        """Users whose devices changed after a position, and who are in rooms with a service's users."""
        return [row["user_id"] for row in await self._pool.fetch(CHANGED_DEVICE_LISTS, service, since, limit)]

    async def load_messages(self, user_ids: Sequence[str], *, limit: int) -> list[TakenMessage]:
        """The oldest messages for all devices of these users."""
        return [TakenMessage(*row) for row in await self._pool.fetch(MESSAGES, user_ids, limit)]

    async def list_network_room(self, network: str, room: int, service: str) -> None:
        """Puts a room on a network's list."""
        await self._pool.execute(LIST_NETWORK_ROOM, network, room, service)

    async def unlist_network_room(self, network: str, room: int, service: str) -> None:
        """Takes a room off a network's list, if this service put it there."""
        await self._pool.execute(UNLIST_NETWORK_ROOM, network, room, service)

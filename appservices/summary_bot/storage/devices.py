"""The bot's own device, the devices of others, and the sessions with each of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from appservices.summary_bot.encryption.devices import Device
from appservices.summary_bot.storage.database import Connection, Database

MAX_SESSIONS_PER_DEVICE = 4
"""https://spec.matrix.org/v1.19/client-server-api/#molmv1curve25519-aes-sha2: at least this many are to be kept."""

LOAD_OWN = "SELECT device_id, account_pickle, master_pickle, self_signing_pickle FROM own_device"
INSERT_OWN = """
INSERT INTO own_device (device_id, account_pickle, master_pickle, self_signing_pickle) VALUES ($1, $2, $3, $4)
ON CONFLICT DO NOTHING
"""
SET_ACCOUNT = "UPDATE own_device SET account_pickle = $1"

TRACK = """
INSERT INTO tracked_users (user_id) SELECT DISTINCT * FROM unnest($1::text[]) ON CONFLICT DO NOTHING
"""
OUTDATED = """
SELECT user_id, changes FROM tracked_users WHERE user_id = ANY($1::text[]) AND fetched_changes < changes
"""
NOTE_CHANGES = "UPDATE tracked_users SET changes = changes + 1 WHERE user_id = ANY($1::text[])"
FORGET_USERS = "DELETE FROM tracked_users WHERE user_id = ANY($1::text[])"
LOAD_DEVICES = """
SELECT user_id, device_id, identity_key, signing_key, is_signed OR NOT has_identity AS is_trusted
FROM devices JOIN tracked_users USING (user_id) WHERE user_id = ANY($1::text[]) ORDER BY user_id, device_id
"""
DELETE_DEVICES = "DELETE FROM devices WHERE user_id = $1 AND NOT device_id = ANY($2::text[])"
# The signing key of a device never changes: where it seems to, what was known first stays.
UPSERT_DEVICES = """
INSERT INTO devices AS d (user_id, device_id, identity_key, signing_key, is_signed)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::boolean[])
ON CONFLICT (user_id, device_id) DO UPDATE SET identity_key = EXCLUDED.identity_key, is_signed = EXCLUDED.is_signed
WHERE d.signing_key = EXCLUDED.signing_key
"""
SET_FETCHED = """
UPDATE tracked_users SET fetched_changes = $2, has_identity = has_identity OR $3 WHERE user_id = $1
"""
NOTE_REPAIR = """
UPDATE devices SET repaired_ts = $3 WHERE user_id = $1 AND device_id = $2 AND repaired_ts < $4 RETURNING 1
"""
# Whoever is told once that no session could be made is told again only after there has been one.
NOTE_TOLD = """
UPDATE devices SET was_told = $3 FROM unnest($1::text[], $2::text[]) AS told (user_id, device_id)
WHERE devices.user_id = told.user_id AND devices.device_id = told.device_id AND was_told <> $3
RETURNING devices.user_id, devices.device_id
"""

LOAD_SESSIONS = """
SELECT session_id, pickle FROM olm_sessions WHERE user_id = $1 AND identity_key = $2 ORDER BY used_ts DESC, session_id
"""
LOAD_NEWEST = """
SELECT DISTINCT ON (user_id, identity_key) user_id, identity_key, session_id, pickle, used_ts FROM olm_sessions
JOIN unnest($1::text[], $2::text[]) AS asked (user_id, identity_key) USING (user_id, identity_key)
ORDER BY user_id, identity_key, used_ts DESC, session_id
"""
UPSERT_SESSIONS = """
INSERT INTO olm_sessions (session_id, user_id, identity_key, pickle, used_ts)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bigint[])
ON CONFLICT (session_id) DO UPDATE SET pickle = EXCLUDED.pickle, used_ts = EXCLUDED.used_ts
"""
DELETE_OLD_SESSIONS = """
DELETE FROM olm_sessions WHERE session_id IN (
    SELECT session_id FROM (
        SELECT session_id,
            row_number() OVER (PARTITION BY user_id, identity_key ORDER BY used_ts DESC, session_id) AS place
        FROM olm_sessions WHERE identity_key = ANY($1::text[])
    ) AS placed WHERE place > $2
)
"""
PURGE_SESSIONS = "DELETE FROM olm_sessions WHERE used_ts < $1"
PURGE_USERS = """
DELETE FROM tracked_users
WHERE NOT EXISTS (SELECT FROM olm_sessions WHERE olm_sessions.user_id = tracked_users.user_id)
"""


@dataclass(frozen=True, slots=True)
class OwnRow:
    """The bot's device: four pickles, of which the last two sign and do nothing else."""

    device_id: str
    account_pickle: str
    master_pickle: str
    self_signing_pickle: str


@dataclass(frozen=True, slots=True)
class SessionRow:
    """A session with one device. `used_ts`: when a message was last received in it, or else when it was made."""

    session_id: str
    user_id: str
    identity_key: str
    pickle: str
    used_ts: int


class DeviceRepository:
    """Reads and writes devices."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def load_own(self) -> OwnRow | None:
        """The bot's own device."""
        row = await self._database.pool.fetchrow(LOAD_OWN)
        return None if row is None else OwnRow(**dict(row))

    async def persist_own(self, own: OwnRow) -> None:
        """Stores the bot's device, unless there is one."""
        await self._database.pool.execute(
            INSERT_OWN, own.device_id, own.account_pickle, own.master_pickle, own.self_signing_pickle
        )

    async def set_account(self, pickle: str) -> None:
        """Replaces the pickle of the bot's device."""
        await self._database.pool.execute(SET_ACCOUNT, pickle)

    # Other people's devices -------------------------------------------------------------------------------------------

    async def load_outdated(self, user_ids: Sequence[str]) -> dict[str, int]:
        """Those of the users whose devices have to be fetched, with the state of changes that is fetched then."""
        async with self._database.transaction() as connection:
            await connection.execute(TRACK, list(user_ids))
            return {row["user_id"]: row["changes"] for row in await connection.fetch(OUTDATED, list(user_ids))}

    async def note_changes(self, user_ids: Sequence[str]) -> None:
        """Says that something has happened to the devices of these users."""
        await self._database.pool.execute(NOTE_CHANGES, list(user_ids))

    async def persist_devices(
        self, user_id: str, devices: Sequence[Device], changes: int, *, has_identity: bool
    ) -> None:
        """Replaces the devices of a user by what they were at a state of changes."""
        async with self._database.transaction() as connection:
            await connection.execute(DELETE_DEVICES, user_id, [device.device_id for device in devices])
            await connection.execute(
                UPSERT_DEVICES,
                [device.user_id for device in devices],
                [device.device_id for device in devices],
                [device.identity_key for device in devices],
                [device.signing_key for device in devices],
                [device.is_trusted for device in devices],
            )
            await connection.execute(SET_FETCHED, user_id, changes, has_identity)

    async def load_devices(self, user_ids: Sequence[str]) -> list[Device]:
        """All devices of these users."""
        return [Device(**dict(row)) for row in await self._database.pool.fetch(LOAD_DEVICES, list(user_ids))]

    async def note_repair(self, device: Device, *, now: int, before: int) -> bool:
        """Notes that a broken session is replaced; False if one was since `before`."""
        row = await self._database.pool.fetchval(NOTE_REPAIR, device.user_id, device.device_id, now, before)
        return row is not None

    async def note_told(self, devices: Sequence[Device], *, was_told: bool) -> set[tuple[str, str]]:
        """Notes of devices whether they were told that they are not reached; for which that is new."""
        users, ids = [device.user_id for device in devices], [device.device_id for device in devices]
        rows = await self._database.pool.fetch(NOTE_TOLD, users, ids, was_told)
        return {(row["user_id"], row["device_id"]) for row in rows}

    # Sessions ---------------------------------------------------------------------------------------------------------

    async def load_sessions(self, user_id: str, identity_key: str) -> list[tuple[str, str]]:
        """(session ID, pickle) of each session with a device, the one used last first."""
        rows = await self._database.pool.fetch(LOAD_SESSIONS, user_id, identity_key)
        return [(row["session_id"], row["pickle"]) for row in rows]

    async def load_newest_sessions(self, devices: Sequence[Device]) -> dict[tuple[str, str], SessionRow]:
        """The session that is to be used with each device, by (user ID, identity key)."""
        users, keys = [device.user_id for device in devices], [device.identity_key for device in devices]
        rows = await self._database.pool.fetch(LOAD_NEWEST, users, keys)
        return {(row["user_id"], row["identity_key"]): SessionRow(**dict(row)) for row in rows}

    async def persist_sessions(self, sessions: Sequence[SessionRow]) -> None:
        """Stores sessions, and lets go those that are too many of a device."""
        async with self._database.transaction() as connection:
            await write_sessions(connection, sessions)

    async def purge(self, before: int) -> None:
        """Drops sessions that have not been used for long, and what is known of users with whom there is none."""
        await self._database.pool.execute(PURGE_SESSIONS, before)
        await self._database.pool.execute(PURGE_USERS)


async def write_sessions(connection: Connection, sessions: Sequence[SessionRow]) -> None:
    """Stores sessions in a transaction that is under way."""
    await connection.execute(
        UPSERT_SESSIONS,
        [session.session_id for session in sessions],
        [session.user_id for session in sessions],
        [session.identity_key for session in sessions],
        [session.pickle for session in sessions],
        [session.used_ts for session in sessions],
    )
    keys = list({session.identity_key for session in sessions})
    await connection.execute(DELETE_OLD_SESSIONS, keys, MAX_SESSIONS_PER_DEVICE)

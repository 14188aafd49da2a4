"""Backups of room keys, encrypted by the user's clients.

https://spec.matrix.org/v1.19/client-server-api/#server-side-key-backups
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any

import orjson

from homeserver.services.errors import BadJson, InvalidParam, MatrixError, NotFound, TooLarge
from storage.key_backup import (
    BackedUpKeyRow,
    BackupRow,
    BackupState,
    KeyBackupRepository,
    NotCurrent,
    TooManyBackedUpKeys,
)

MAX_AUTH_DATA_BYTES = 65_536
MAX_SESSION_DATA_BYTES = 65_536
MAX_NAME_BYTES = 255
MAX_KEYS = 500_000
"""Most keys in one backup."""
KEYS_AT_ONCE = 500
"""How many keys are in memory at once while they are read."""
MAX_VERSION_DIGITS = 18


class WrongVersion(MatrixError):
    """403 M_WRONG_ROOM_KEYS_VERSION."""

    def __init__(self, current: int) -> None:
        extra = {"current_version": str(current)}
        super().__init__(403, "M_WRONG_ROOM_KEYS_VERSION", "This is not the current backup", extra)


class KeyBackup:
    """Makes, reads and deletes a user's backups, and what is in them. All methods raise NotFound for no such backup."""

    def __init__(self, repository: KeyBackupRepository) -> None:
        self._repository = repository

    async def create(self, user_id: str, algorithm: str, auth_data: dict[str, Any]) -> str:
        """Makes a backup; its version. Raises InvalidParam, BadJson, TooLarge."""
        check_name(algorithm)
        encoded = _encode(auth_data, MAX_AUTH_DATA_BYTES)
        return str(await self._repository.create(user_id, algorithm, encoded))

    async def access(self, user_id: str, version: str | None) -> BackupRow:
        """One of a user's backups, None for the current one."""
        if version is None:
            row = await self._repository.load_current(user_id)
        else:
            row = await self._repository.load(user_id, _decode(version))
        if row is None or row.deleted:
            raise NotFound("There is no such backup")
        return row

    async def update(self, user_id: str, version: str, algorithm: str, auth_data: dict[str, Any]) -> None:
        """Replaces the data of a backup. Raises InvalidParam, BadJson, TooLarge."""
        row = await self.access(user_id, version)
        if row.algorithm != algorithm:
            raise InvalidParam("The algorithm of a backup cannot change")
        if not await self._repository.set_auth_data(user_id, row.version, _encode(auth_data, MAX_AUTH_DATA_BYTES)):
            raise NotFound("There is no such backup")

    async def delete(self, user_id: str, version: str) -> None:
        """Deletes a backup and its keys, also one that was deleted before."""
        if not await self._repository.delete(user_id, _decode(version)):
            raise NotFound("There is no such backup")

    async def put_keys(self, user_id: str, version: str, keys: Iterable[BackedUpKeyRow]) -> BackupState:
        """Stores keys, those that are better than what is there. Raises WrongVersion, InvalidParam, TooLarge."""
        rows = list(keys)
        for row in rows:
            check_name(row.room_id)
            check_name(row.session_id)
        try:
            state = await self._repository.put_keys(user_id, _decode(version), rows, max_keys=MAX_KEYS)
        except NotCurrent as error:
            raise WrongVersion(error.current) from None
        except TooManyBackedUpKeys:
            raise TooLarge(f"A backup can have {MAX_KEYS} keys") from None
        if state is None:
            raise NotFound("There is no such backup")
        return state

    async def load_key(self, user_id: str, version: str, room_id: str, session_id: str) -> BackedUpKeyRow | None:
        """A key of a backup, if it is there."""
        backup = (await self.access(user_id, version)).backup
        rows = await self._repository.load_keys(backup, room_id, session_id, limit=1)
        return rows[0] if rows else None

    async def load_keys(
        self, user_id: str, version: str, room_id: str | None = None
    ) -> AsyncIterator[list[BackedUpKeyRow]]:
        """The keys of a backup or of one room in it, by room and session, a part at a time.

        What changes meanwhile is there as it was or as it is.
        """
        backup = (await self.access(user_id, version)).backup
        return self._parts(backup, room_id)

    async def _parts(self, backup: int, room_id: str | None) -> AsyncIterator[list[BackedUpKeyRow]]:
        after = None
        while True:
            rows = await self._repository.load_keys(backup, room_id, after=after, limit=KEYS_AT_ONCE)
            yield rows
            if len(rows) < KEYS_AT_ONCE:
                return
            after = (rows[-1].room_id, rows[-1].session_id)

    async def delete_keys(
        self, user_id: str, version: str, room_id: str | None = None, session_id: str | None = None
    ) -> BackupState:
        """Removes keys of a backup, of one room or of one session in it."""
        for name in (room_id, session_id):
            check_name(name or "")
        state = await self._repository.delete_keys(user_id, _decode(version), room_id, session_id)
        if state is None:
            raise NotFound("There is no such backup")
        return state


def backup_json(row: BackupRow) -> bytes:
    """What clients are told of a backup."""
    return orjson.dumps(
        {
            "algorithm": row.algorithm,
            "auth_data": orjson.Fragment(row.auth_data),
            "count": row.key_count,
            "etag": str(row.etag),
            "version": str(row.version),
        }
    )


def backed_up_key(
    room_id: str, session_id: str, index: int, forwarded: int, is_verified: bool, session_data: Mapping[str, Any]
) -> BackedUpKeyRow:
    """A key as it is stored. Raises BadJson, TooLarge."""
    return BackedUpKeyRow(
        room_id, session_id, index, forwarded, is_verified, _encode(session_data, MAX_SESSION_DATA_BYTES)
    )


def key_json(row: BackedUpKeyRow) -> bytes:
    """https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3room_keyskeysroomidsessionid"""
    return orjson.dumps(
        {
            "first_message_index": row.first_message_index,
            "forwarded_count": row.forwarded_count,
            "is_verified": row.is_verified,
            "session_data": orjson.Fragment(row.session_data),
        }
    )


def check_name(name: str) -> None:
    """Raises InvalidParam for an algorithm, a room ID or a session ID that nobody needs."""
    if "\0" in name or len(name.encode()) > MAX_NAME_BYTES:
        raise InvalidParam(f"Names can have {MAX_NAME_BYTES} bytes, and no NUL character")


def _encode(value: Mapping[str, Any], max_bytes: int) -> bytes:
    try:
        encoded = orjson.dumps(value)
    except orjson.JSONEncodeError:
        raise BadJson("A number is too large") from None
    if len(encoded) > max_bytes:
        raise TooLarge(f"No more than {max_bytes} bytes fit here")
    return encoded


def _decode(version: str) -> int:
    if not (version.isascii() and version.isdigit() and len(version) <= MAX_VERSION_DIGITS):
        raise NotFound("There is no such backup")
    return int(version)

"""key_backup.yaml: https://spec.matrix.org/v1.19/client-server-api/#server-side-key-backups"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any

import msgspec
import orjson

from homeserver.http.request import Request, Result, Route
from homeserver.http.streams import send_json
from homeserver.services.encryption.key_backup import backed_up_key, backup_json, key_json
from homeserver.services.errors import InvalidParam, MissingParam, NotFound
from storage.key_backup import BackedUpKeyRow, BackupState

Parts = AsyncIterator[list[BackedUpKeyRow]]
Count = Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]


class BackupBody(msgspec.Struct):
    """A backup; the version may be repeated where the path has it."""

    algorithm: str
    auth_data: dict[str, Any]
    version: str | None = None


class KeyData(msgspec.Struct):
    """A backed up key."""

    first_message_index: Count
    forwarded_count: Count
    is_verified: bool
    session_data: dict[str, Any]


class RoomKeys(msgspec.Struct):
    """Session ID -> key."""

    sessions: dict[str, KeyData]


class AllKeys(msgspec.Struct):
    """Room ID -> keys."""

    rooms: dict[str, RoomKeys]


async def post_room_keys_version(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3room_keysversion"""
    body = await request.body(BackupBody)
    return {
        "version": await request.server.key_backup.create(request.requester.user_id, body.algorithm, body.auth_data)
    }


async def get_room_keys_version_current(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3room_keysversion"""
    return backup_json(await request.server.key_backup.access(request.requester.user_id, None))


async def get_room_keys_version(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3room_keysversionversion"""
    return backup_json(await request.server.key_backup.access(request.requester.user_id, request.params["version"]))


async def put_room_keys_version(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3room_keysversionversion"""
    body, version = await request.body(BackupBody), request.params["version"]
    if body.version is not None and body.version != version:
        raise InvalidParam("The version in the body is not that in the path")
    await request.server.key_backup.update(request.requester.user_id, version, body.algorithm, body.auth_data)
    return {}


async def delete_room_keys_version(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#delete_matrixclientv3room_keysversionversion"""
    await request.server.key_backup.delete(request.requester.user_id, request.params["version"])
    return {}


async def put_room_keys(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3room_keyskeys"""
    body = await request.body(AllKeys)
    return await _put(request, (row for room_id, keys in body.rooms.items() for row in _rows(room_id, keys.sessions)))


async def put_room_keys_by_room_id(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3room_keyskeysroomid"""
    body = await request.body(RoomKeys)
    return await _put(request, _rows(request.params["roomId"], body.sessions))


async def put_room_key_by_session_id(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3room_keyskeysroomidsessionid"""
    body = await request.body(KeyData)
    return await _put(request, _rows(request.params["roomId"], {request.params["sessionId"]: body}))


async def get_room_keys(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3room_keyskeys"""
    return await send_json(request, _all_json(await _load(request)))


async def get_room_keys_by_room_id(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3room_keyskeysroomid"""
    return await send_json(request, _room_json(await _load(request)))


async def get_room_key_by_session_id(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3room_keyskeysroomidsessionid"""
    user_id, params = request.requester.user_id, request.params
    row = await request.server.key_backup.load_key(user_id, _version(request), params["roomId"], params["sessionId"])
    if row is None:
        raise NotFound("There is no such key in the backup")
    return key_json(row)


async def delete_room_keys(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#delete_matrixclientv3room_keyskeys"""
    return await _delete(request)


async def delete_room_keys_by_room_id(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#delete_matrixclientv3room_keyskeysroomid"""
    return await _delete(request)


async def delete_room_key_by_session_id(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#delete_matrixclientv3room_keyskeysroomidsessionid"""
    return await _delete(request)


def _version(request: Request) -> str:
    version = request.query.get("version")
    if version is None:
        raise MissingParam("version is needed")
    return version


def _rows(room_id: str, sessions: dict[str, KeyData]) -> Iterator[BackedUpKeyRow]:
    for session_id, key in sessions.items():
        yield backed_up_key(
            room_id, session_id, key.first_message_index, key.forwarded_count, key.is_verified, key.session_data
        )


async def _put(request: Request, rows: Iterator[BackedUpKeyRow]) -> Result:
    return _state_json(await request.server.key_backup.put_keys(request.requester.user_id, _version(request), rows))


async def _load(request: Request) -> Parts:
    room_id = request.params.get("roomId")
    return await request.server.key_backup.load_keys(request.requester.user_id, _version(request), room_id)


async def _delete(request: Request) -> Result:
    params = request.params
    state = await request.server.key_backup.delete_keys(
        request.requester.user_id, _version(request), params.get("roomId"), params.get("sessionId")
    )
    return _state_json(state)


def _state_json(state: BackupState) -> Result:
    return {"etag": str(state.etag), "count": state.key_count}


async def _all_json(parts: Parts) -> AsyncIterator[bytes]:
    """Room ID -> keys, a part at a time: a room may go on in the next one."""
    yield b'{"rooms":{'
    room_id = None
    async for rows in parts:
        pieces = []
        for row in rows:
            if row.room_id == room_id:
                pieces.append(b",")
            else:
                pieces += (b"" if room_id is None else b"}},", orjson.dumps(row.room_id), b':{"sessions":{')
                room_id = row.room_id
            pieces.append(_session_json(row))
        yield b"".join(pieces)
    yield b"}}" if room_id is None else b"}}}}"


async def _room_json(parts: Parts) -> AsyncIterator[bytes]:
    """The keys of one room, a part at a time."""
    yield b'{"sessions":{'
    separator = b""
    async for rows in parts:
        if rows:
            yield separator + b",".join(map(_session_json, rows))
            separator = b","
    yield b"}}"


def _session_json(row: BackedUpKeyRow) -> bytes:
    return orjson.dumps(row.session_id) + b":" + key_json(row)


VERSION = "/_matrix/client/v3/room_keys/version"
KEYS = "/_matrix/client/v3/room_keys/keys"
ROOM = f"{KEYS}/{{roomId}}"
SESSION = f"{ROOM}/{{sessionId}}"

ROUTES = [
    Route("POST", VERSION, "postRoomKeysVersion", post_room_keys_version, limited=True),
    Route("GET", VERSION, "getRoomKeysVersionCurrent", get_room_keys_version_current, limited=True),
    Route("GET", f"{VERSION}/{{version}}", "getRoomKeysVersion", get_room_keys_version, limited=True),
    Route("PUT", f"{VERSION}/{{version}}", "putRoomKeysVersion", put_room_keys_version, limited=True),
    Route("DELETE", f"{VERSION}/{{version}}", "deleteRoomKeysVersion", delete_room_keys_version, limited=True),
    Route("PUT", KEYS, "putRoomKeys", put_room_keys, limited=True),
    Route("PUT", ROOM, "putRoomKeysByRoomId", put_room_keys_by_room_id, limited=True),
    Route("PUT", SESSION, "putRoomKeyBySessionId", put_room_key_by_session_id, limited=True),
    Route("GET", KEYS, "getRoomKeys", get_room_keys, limited=True),
    Route("GET", ROOM, "getRoomKeysByRoomId", get_room_keys_by_room_id, limited=True),
    Route("GET", SESSION, "getRoomKeyBySessionId", get_room_key_by_session_id, limited=True),
    Route("DELETE", KEYS, "deleteRoomKeys", delete_room_keys, limited=True),
    Route("DELETE", ROOM, "deleteRoomKeysByRoomId", delete_room_keys_by_room_id, limited=True),
    Route("DELETE", SESSION, "deleteRoomKeyBySessionId", delete_room_key_by_session_id, limited=True),
]

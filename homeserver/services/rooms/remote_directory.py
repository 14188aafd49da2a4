"""Questions to room directories: what is asked, and what is believed of another server's answer.

https://spec.matrix.org/v1.19/server-server-api/#published-room-directory
"""

from __future__ import annotations

from typing import Any

import msgspec

from homeserver.services.errors import Forbidden, InvalidParam
from homeserver.services.remote import (
    RemoteFailure,
    RemoteMisbehaved,
    RemoteRefused,
    Transport,
    bad_gateway,
    for_clients,
)
from matrix.identifiers import is_room_id

PATH = "/_matrix/federation/v1/publicRooms"
TIMEOUT_MS = 20_000
MAX_ANSWER_BYTES = 4 * 1024 * 1024
DEFAULT_REMOTE_LIMIT = 100
MAX_REMOTE_LIMIT = 500


class RoomFilter(msgspec.Struct, omit_defaults=True):
    """`filter` of a query."""

    generic_search_term: str | None = None
    room_types: list[str | None] | None = None


class RoomQuery(msgspec.Struct, omit_defaults=True):
    """What is asked of a directory: the body of queryPublicRooms, of clients and of servers."""

    limit: int | None = None
    since: str | None = None
    filter: RoomFilter | None = None
    include_all_networks: bool = False
    third_party_instance_id: str | None = None


class PublishedRoom(msgspec.Struct, omit_defaults=True):
    """A PublishedRoomsChunk of another server."""

    room_id: str
    num_joined_members: int
    world_readable: bool
    guest_can_join: bool
    canonical_alias: str | None = None
    name: str | None = None
    topic: str | None = None
    avatar_url: str | None = None
    join_rule: str | None = None
    room_type: str | None = None


class _Answer(msgspec.Struct, omit_defaults=True):
    chunk: list[dict[str, Any]]
    next_batch: str | None = None
    prev_batch: str | None = None
    total_room_count_estimate: int | None = None


async def query_elsewhere(transport: Transport, server_name: str, query: RoomQuery) -> dict[str, Any]:
    """A page of another server's directory. Raises InvalidParam, Forbidden, and 502 M_UNKNOWN.

    Rooms that are not described as the specification says are left out.
    """
    asked = msgspec.structs.replace(query, limit=min(query.limit or DEFAULT_REMOTE_LIMIT, MAX_REMOTE_LIMIT))
    try:
        answer = await _ask(transport, server_name, asked)
    except RemoteRefused as refusal:
        if refusal.status == 400:
            raise InvalidParam(refusal.message or "The server does not understand the question") from None
        if refusal.status == 403:
            raise Forbidden("The server does not show its rooms") from None
        raise bad_gateway(refusal) from None
    except RemoteFailure as failure:
        raise bad_gateway(failure) from None
    rooms = [described for room in answer.chunk[:MAX_REMOTE_LIMIT] if (described := describe_room(room)) is not None]
    return {**msgspec.to_builtins(answer), "chunk": rooms}


async def _ask(transport: Transport, server_name: str, query: RoomQuery) -> _Answer:
    """GET, which every server knows, unless only POST can say it. Raises RemoteFailure."""
    content: dict[str, Any] = msgspec.to_builtins(query)
    if query.filter is None:
        answer = await transport.request(
            server_name,
            "GET",
            PATH,
            query=[(name, _query_value(value)) for name, value in content.items()],
            timeout_ms=TIMEOUT_MS,
            max_bytes=MAX_ANSWER_BYTES,
        )
    else:
        answer = await transport.request(
            server_name, "POST", PATH, content=content, timeout_ms=TIMEOUT_MS, max_bytes=MAX_ANSWER_BYTES
        )
    try:
        return msgspec.convert(for_clients(server_name, answer), _Answer)
    except msgspec.ValidationError as error:
        raise RemoteMisbehaved(server_name, f"the list of rooms is not well-formed: {error}") from None


def _query_value(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def describe_room(room: dict[str, Any]) -> dict[str, Any] | None:
    """A PublishedRoomsChunk of another server with what belongs into one; None if it is none."""
    try:
        described = msgspec.convert(room, PublishedRoom)
    except msgspec.ValidationError:
        return None
    if not is_room_id(described.room_id):
        return None
    builtins: dict[str, Any] = msgspec.to_builtins(described)
    return builtins

"""The event nearest to a moment, also where this server does not have all of a room's history.

1. What this server has tells whether something is missing there: the next event after the moment stands on others that
   are not here.
2. If so, other servers in the room are asked for theirs.
3. If theirs is nearer, history is fetched until it is here, as far as that goes: clients want to read around it.

https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1roomsroomidtimestamp_to_event
"""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import quote

from homeserver.logs import get_logger
from homeserver.services.federation.backfill import Backfill
from homeserver.services.remote import RemoteFailure, Transport
from homeserver.services.rooms.access import Reader
from homeserver.services.rooms.event_cache import EventCache
from homeserver.services.rooms.room import Room
from homeserver.services.rooms.timelines import MAX_POSITION, Timelines
from matrix.identifiers import is_event_id
from storage.events import EventKind, StoredEvent

log = get_logger(__name__)

MAX_SERVERS_TRIED = 3
MAX_FILLS = 20
ASK_TIMEOUT_MS = 5_000
FILL_TIMEOUT_S = 30


class ClosestEvents:
    """Finds events by time."""

    def __init__(self, timelines: Timelines, events: EventCache, backfill: Backfill, transport: Transport) -> None:
        self._timelines = timelines
        self._events = events
        self._backfill = backfill
        self._transport = transport

    async def find(self, reader: Reader, *, ts: int, backwards: bool) -> StoredEvent | None:
        """The visible event nearest to a moment (ms), at or before it, or at or after it; None if there is none."""
        local = await self._timelines.closest(reader, ts=ts, backwards=backwards)
        room = reader.room
        if not room.is_shared or not room.local_joined or not await self._is_gappy(room, ts):
            return local
        event_id = await self._ask(room, ts, backwards, local)
        if event_id is None:
            return local
        try:
            async with asyncio.timeout(FILL_TIMEOUT_S):
                await self._fill_to(room, event_id)
        except TimeoutError:
            log.info("history takes too long to fetch", room_id=room.room_id)
        return await self._timelines.closest(reader, ts=ts, backwards=backwards)

    async def _is_gappy(self, room: Room, ts: int) -> bool:
        """Whether events are missing right before the first one after a moment."""
        after = await self._events.load_by_time(room.room, ts=ts, position=-MAX_POSITION, limit=1, backwards=False)
        if not after:
            return False
        known = await self._events.load_ids(after[0].pdu.prev_events)
        return any(not self._is_placed(known.get(event_id)) for event_id in after[0].pdu.prev_events)

    def _is_placed(self, event: StoredEvent | None) -> bool:
        return event is not None and event.kind is not EventKind.OUTLIER

    async def _ask(self, room: Room, ts: int, backwards: bool, local: StoredEvent | None) -> str | None:
        """The event that another server has nearer to the moment than this one, if any.

        https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1timestamp_to_eventroomid
        """
        path = f"/_matrix/federation/v1/timestamp_to_event/{quote(room.room_id, safe='')}"
        query = [("ts", str(ts)), ("dir", "b" if backwards else "f")]
        servers = [name for name, _ in room.servers.most_common() if not room.domain.endswith(":" + name)]
        for server in servers[:MAX_SERVERS_TRIED]:
            try:
                answer = await self._transport.request(server, "GET", path, query=query, timeout_ms=ASK_TIMEOUT_MS)
            except RemoteFailure as failure:
                log.info("a server told no event by time", room_id=room.room_id, reason=str(failure))
                continue
            if _is_nearer(answer, ts, backwards, local):
                event_id: str = answer["event_id"]
                return event_id
        return None

    async def _fill_to(self, room: Room, event_id: str) -> None:
        """Fetches history until an event is part of it."""
        for _ in range(MAX_FILLS):
            if self._is_placed(await self._events.load_id(event_id)) or not await self._backfill.fill(room):
                return


def _is_nearer(answer: Any, ts: int, backwards: bool, local: StoredEvent | None) -> bool:
    """Whether an answer names an event on the right side of a moment, and nearer to it than this server's own."""
    event_id = answer.get("event_id") if isinstance(answer, dict) else None
    then = answer.get("origin_server_ts") if isinstance(answer, dict) else None
    if not is_event_id(event_id) or type(then) is not int or (then > ts if backwards else then < ts):
        return False
    return local is None or abs(then - ts) < abs(local.pdu.origin_server_ts - ts)

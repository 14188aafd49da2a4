"""What other servers may read of the rooms that they are in.

https://spec.matrix.org/v1.19/server-server-api/#backfilling-and-retrieving-missing-events
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from heapq import heappop, heappush
from typing import Any

import orjson

from homeserver.services.errors import Forbidden, NotFound
from homeserver.services.federation.resident import Resident
from homeserver.services.rooms.access import HISTORY_VISIBILITY, Access
from homeserver.services.rooms.branches import Branches, State
from homeserver.services.rooms.erasure import served_json
from homeserver.services.rooms.event_cache import EventCache
from homeserver.services.rooms.room import Room
from homeserver.services.rooms.timelines import MAX_POSITION
from matrix.history_visibility import INVITED, SHARED, WORLD_READABLE, visibility_of
from matrix.identifiers import get_domain
from matrix.redaction import redact_event
from storage.events import EventKind, StoredEvent

MAX_BACKFILLED_EVENTS = 100
MAX_MISSING_EVENTS = 20
MAX_WALKED_EVENTS = 1000
NOT_THERE = "Your server was not in the room then"


class History:
    """Reads rooms for other servers."""

    def __init__(self, access: Access, resident: Resident, events: EventCache, branches: Branches) -> None:
        self._access = access
        self._resident = resident
        self._events = events
        self._branches = branches

    async def access_room(self, origin: str, room_id: str, *, whole: bool = False) -> Room:
        """A room that another server takes or took part in, `whole` with all members known. Raises Forbidden, NotFound.

        Who was shown out may still ask for what was before: without it they would not understand that they were. And
        this server, once all of its users have left, still gives what they said last, and the states before it: nobody
        else may have it.
        """
        room = await self._resident.access_room(origin, room_id, whole=whole, may_have_left=True)
        if origin not in room.servers and not any(get_domain(user_id) == origin for user_id in room.members):
            raise Forbidden("Your server is not in the room")
        return room

    async def access_event(self, origin: str, event_id: str, room: Room | None = None) -> StoredEvent:
        """An event of a room that another server takes part in. Raises Forbidden, NotFound."""
        event = await self._events.load_id(event_id)
        if event is None or event.kind == EventKind.REJECTED or (room is not None and event.room != room.room):
            raise NotFound("No such event")
        if room is None:
            await self.access_room(origin, event.pdu.room_id)
        return event

    async def event(self, origin: str, event_id: str) -> dict[str, Any]:
        """https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1eventeventid"""
        event = await self.access_event(origin, event_id)
        room = await self.access_room(origin, event.pdu.room_id)
        for shown in await self._shown(origin, room, [event]):
            return shown
        raise Forbidden(NOT_THERE)

    async def state_before(self, origin: str, room_id: str, event_id: str) -> list[StoredEvent]:
        """The state before an event. Raises Forbidden, NotFound."""
        room = await self.access_room(origin, room_id, whole=True)
        event = await self.access_event(origin, event_id, room)
        if not room.has_state_of(event):
            raise NotFound("The state at this event is not known")
        await self._check_was_there(origin, room, event)
        state = await self._access.state_before(room, event)
        return list((await self._events.load(state.values())).values())

    async def auth_chain(self, origin: str, room_id: str, event_id: str) -> list[StoredEvent]:
        """The auth chain of an event. Raises Forbidden, NotFound."""
        room = await self.access_room(origin, room_id)
        event = await self.access_event(origin, event_id, room)
        await self._check_was_there(origin, room, event)
        return await self._resident.auth_chain([event])

    async def _check_was_there(self, origin: str, room: Room, event: StoredEvent) -> None:
        """Raises Forbidden to a server that is not in the room, but for events that it was there for."""
        if not _is_in(room, origin) and not await self._may_see(origin, room, event):
            raise Forbidden(NOT_THERE)

    async def serve(self, origin: str, room_id: str, events: Iterable[StoredEvent]) -> bytes:
        """State events as another server is served them: JSON, the members of an array."""
        erased = await self._access.erased_for_server(await self.access_room(origin, room_id), origin)
        return b",".join(orjson.dumps(served_json(event, erased)) for event in events)

    async def chain_of(self, events: Sequence[StoredEvent]) -> list[StoredEvent]:
        """The auth chains of a state."""
        return await self._resident.auth_chain(events)

    async def backfill(self, origin: str, room_id: str, event_ids: Iterable[str], limit: int) -> list[dict[str, Any]]:
        """Events up to and with the given ones, newest first.

        https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1backfillroomid
        """
        room = await self.access_room(origin, room_id)
        return await self._shown(origin, room, await self._walk(room, event_ids, min(limit, MAX_BACKFILLED_EVENTS)))

    async def closest(self, origin: str, room_id: str, *, ts: int, backwards: bool) -> StoredEvent:
        """The event nearest to a moment, in milliseconds, on one side of it. Raises Forbidden, NotFound.

        https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1timestamp_to_eventroomid
        """
        room = await self.access_room(origin, room_id)
        position = MAX_POSITION if backwards else -MAX_POSITION
        found = await self._events.load_by_time(room.room, ts=ts, position=position, limit=1, backwards=backwards)
        if not found or (not _is_in(room, origin) and not await self._may_see(origin, room, found[0])):
            raise NotFound("There is no event on this side of the timestamp")
        return found[0]

    async def missing(
        self, origin: str, room_id: str, earliest: Iterable[str], latest: Iterable[str], limit: int, min_depth: int
    ) -> list[dict[str, Any]]:
        """The events before the latest that do not go back beyond the earliest, oldest first.

        https://spec.matrix.org/v1.19/server-server-api/#post_matrixfederationv1get_missing_eventsroomid
        """
        room = await self.access_room(origin, room_id)
        known = set(earliest)
        loaded = await self._events.load_ids(latest)
        start = {before for event in loaded.values() if event.room == room.room for before in event.pdu.prev_events}
        found = await self._walk(room, start - known, min(limit, MAX_MISSING_EVENTS), known, min_depth)
        return await self._shown(origin, room, found[::-1])

    async def _walk(
        self,
        room: Room,
        event_ids: Iterable[str],
        limit: int,
        known: Iterable[str] = (),
        min_depth: int = 0,
    ) -> list[StoredEvent]:
        """Events and those before them, the deepest first, without those that are known and what is before these."""
        seen = set(known)
        queue: list[tuple[int, str, StoredEvent]] = []
        found: list[StoredEvent] = []

        async def enqueue(ids: Iterable[str]) -> None:
            new = [event_id for event_id in dict.fromkeys(ids) if event_id not in seen]
            seen.update(new)
            for event in (await self._events.load_ids(new)).values():
                if event.room == room.room and event.snapshot and event.pdu.depth >= min_depth:
                    heappush(queue, (-event.pdu.depth, event.event_id, event))

        await enqueue(event_ids)
        for _ in range(MAX_WALKED_EVENTS):
            if not queue or len(found) >= limit:
                break
            event = heappop(queue)[2]
            if event.kind != EventKind.REJECTED:
                found.append(event)
            await enqueue(event.pdu.prev_events)
        return found

    async def _shown(self, origin: str, room: Room, events: Sequence[StoredEvent]) -> list[dict[str, Any]]:
        """Events as another server may see them: redacted where the room did not show them to its users.

        A server that is not in the room, since its users have left it, were invited or have knocked, needs none of
        these to understand what it was there for, and does not get them at all: who is in the room stands in them, too.

        https://spec.matrix.org/v1.19/client-server-api/#server-behaviour-6
        """
        visibility = room.pinned.get(HISTORY_VISIBILITY)
        erased = await self._access.erased_for_server(room, origin)
        is_shared = visibility is None or (
            visibility.replaces is None and visibility_of(visibility.pdu.content) in (SHARED, WORLD_READABLE)
        )
        if is_shared and origin in room.servers:
            return [served_json(event, erased) for event in events]
        shown = []
        verdicts: dict[int, bool] = {}
        for event in events:
            is_own = get_domain(event.pdu.sender) == origin or _is_about(event, origin)
            if not is_own and event.snapshot not in verdicts:
                verdicts[event.snapshot] = await self._may_see(origin, room, event)
            if is_own or verdicts[event.snapshot]:
                shown.append(served_json(event, erased))
            elif _is_in(room, origin):
                shown.append(redact_event(event.pdu.json, room.version))
        return shown

    async def _may_see(self, origin: str, room: Room, event: StoredEvent) -> bool:
        """Whether the state at an event shows it to somebody of another server.

        "shared" is for those who are in the room, or will be: of those who have gone, for what they were there for.
        """
        if _is_about(event, origin):
            return True
        if room.partial is not None and event.position > room.partial.ground and origin in room.partial.servers:
            return True  # it was sent what has happened here since: that its members are there is not known yet
        state = State(event.snapshot)
        loaded = await self._branches.load_auth_state(room, state, [HISTORY_VISIBILITY])
        found = loaded.get(HISTORY_VISIBILITY)
        visibility = visibility_of(found.content if found is not None else None)
        if visibility == WORLD_READABLE or (visibility == SHARED and origin in room.servers):
            return True
        wanted = ("join", "invite") if visibility == INVITED else ("join",)
        members = [key for key in room.keys if key[0] == "m.room.member" and get_domain(key[1]) == origin]
        there = await self._branches.load_auth_state(room, state, members)
        return any(member.content.get("membership") in wanted for member in there.values())


def _is_about(event: StoredEvent, server_name: str) -> bool:
    """Whether an event says of a user of a server whether they are in the room."""
    return event.pdu.type == "m.room.member" and get_domain(event.pdu.state_key or "") == server_name


def _is_in(room: Room, server_name: str) -> bool:
    """Whether users of a server are in a room, or said to be, where not all members are known."""
    return server_name in room.servers or (room.partial is not None and server_name in room.partial.servers)

"""What an event refers to and this server does not have is asked of the server that sent the event.

https://spec.matrix.org/v1.19/server-server-api/#backfilling-and-retrieving-missing-events
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Sequence
from contextlib import aclosing
from typing import Any
from urllib.parse import quote

from homeserver.logs import get_logger
from homeserver.services.federation.gathering import MAX_AUTH_CHAIN_EVENTS, MAX_STATE_EVENTS, Gathering, lists_of
from homeserver.services.federation.outliers import Outliers
from homeserver.services.federation.verification import Verification, Verified
from homeserver.services.remote import RemoteFailure, RemoteMisbehaved, RemoteUnreachable, Transport
from homeserver.services.rooms.branches import Branches, State
from homeserver.services.rooms.event_cache import EventCache
from homeserver.services.rooms.room import Room
from matrix.identifiers import is_event_id
from matrix.room_versions import RoomVersion
from storage.snapshots import GONE

log = get_logger(__name__)

MAX_MISSING_EVENTS = 50
MAX_SINGLE_EVENTS = 20
"""Up to how many events are asked for one by one; beyond, the whole state is."""


class MissingEvents:
    """Fetches events from other servers, and checks them as all that comes from there."""

    def __init__(
        self,
        transport: Transport,
        verification: Verification,
        outliers: Outliers,
        events: EventCache,
        branches: Branches,
    ) -> None:
        self._transport = transport
        self._verification = verification
        self._outliers = outliers
        self._events = events
        self._branches = branches

    async def fetch_between(self, origin: str, room: Room, latest: str) -> list[Verified]:
        """The events between what the room has and an event, oldest first. Raises RemoteFailure.

        https://spec.matrix.org/v1.19/server-server-api/#post_matrixfederationv1get_missing_eventsroomid
        """
        content = {
            "earliest_events": [extremity.reference.event_id for extremity in room.tip.extremities],
            "latest_events": [latest],
            "limit": MAX_MISSING_EVENTS,
            # What was before this server's time in the room is history, which is fetched when somebody reads it.
            "min_depth": room.entered_depth,
        }
        path = f"/_matrix/federation/v1/get_missing_events/{quote(room.room_id, safe='')}"
        answer = await self._transport.request(origin, "POST", path, content=content)
        events = list_of(origin, answer, "events", MAX_MISSING_EVENTS * 2)
        verified = await self._verified(events, room.version)
        return sorted((one for one in verified if one.pdu.depth >= room.entered_depth), key=lambda one: one.pdu.depth)

    async def fetch_event(self, origin: str, version: RoomVersion, event_id: str) -> Verified:
        """One event. Raises RemoteFailure."""
        answer = await self._transport.request(
            origin, "GET", f"/_matrix/federation/v1/event/{quote(event_id, safe='')}"
        )
        events = list_of(origin, answer, "pdus", 1)
        for verified in await self._verified(events, version):
            if verified.pdu.event_id == event_id:
                return verified
        raise RemoteMisbehaved(origin, "it answered another event than was asked for")

    async def fetch_auth_chain(self, origin: str, room: Room, event_id: str) -> None:
        """Fetches and keeps what an event is authorised by. Raises RemoteFailure.

        https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1event_authroomideventid
        """
        path = f"/_matrix/federation/v1/event_auth/{quote(room.room_id, safe='')}/{quote(event_id, safe='')}"
        async with aclosing(self.gathering(room.version, room.room_id)) as gathering:
            lists = {"auth_chain": MAX_AUTH_CHAIN_EVENTS}
            rest = await self._transport.request_lists(origin, "GET", path, lists=lists, take=gathering.take)
            list_of(origin, rest, "auth_chain", 0)
            await gathering.whole(origin)
            await self._outliers.persist_packed(room.room, room.version, gathering.events)

    async def fetch_state_before(self, origin: str, room: Room, event_id: str) -> State:
        """The state before an event, by the word of another server; its events are judged like all others.

        Raises RemoteFailure. https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1state_idsroomid
        """
        path = f"/_matrix/federation/v1/state_ids/{quote(room.room_id, safe='')}"
        answer = await self._transport.request(origin, "GET", path, query=[("event_id", event_id)])
        state_ids = ids_of(origin, answer, "pdu_ids", MAX_STATE_EVENTS)
        chain_ids = ids_of(origin, answer, "auth_chain_ids", MAX_AUTH_CHAIN_EVENTS)
        wanted = list(dict.fromkeys((*chain_ids, *state_ids)))
        placed = await self._outliers.placed(room.room, wanted)
        missing = [event_id for event_id in wanted if event_id not in placed]
        if missing:
            if len(missing) > MAX_SINGLE_EVENTS or not await self._fetch_single(origin, room, missing):
                await self._fetch_whole_state(origin, room, event_id)
            placed.update(await self._outliers.placed(room.room, missing))
        told = [placed[event_id] for event_id in state_ids if event_id in placed]
        state = {one.key: one.position for one in told if one.key is not None}
        return await self.as_state(room, state)

    async def as_state(self, room: Room, positions: dict[tuple[str, str], int]) -> State:
        """A whole state as what differs from the room's state at the tip."""
        tip = State(room.tip.snapshot)
        current = await self._branches.load_all(room, tip)
        changes = {key: position for key, position in positions.items() if current.get(key) != position}
        changes.update({key: GONE for key in current if key not in positions})
        return State(tip.snapshot, changes)

    async def whole(self, room: Room, state: State) -> dict[tuple[str, str], int]:
        """All of a state: key -> position."""
        return await self._branches.load_all(room, state)

    async def _fetch_whole_state(self, origin: str, room: Room, event_id: str) -> None:
        async with aclosing(self.gathering(room.version, room.room_id)) as gathering:
            await self.gather_state(origin, gathering, room.room_id, event_id)
            await self._outliers.persist_packed(room.room, room.version, gathering.events)

    def gathering(self, version: RoomVersion, room_id: str) -> Gathering:
        """What takes the events of a room's state as they arrive."""
        return Gathering(self._verification, version, room_id)

    async def gather_state(self, origin: str, gathering: Gathering, room_id: str, event_id: str) -> None:
        """Fetches the state before an event, and all that it rests on, into `pdus` and `auth_chain` of a gathering.

        Raises RemoteFailure. https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1stateroomid
        """
        path = f"/_matrix/federation/v1/state/{quote(room_id, safe='')}"
        rest = await self._transport.request_lists(
            origin, "GET", path, query=[("event_id", event_id)], lists=lists_of("pdus"), take=gathering.take
        )
        for key in lists_of("pdus"):
            list_of(origin, rest, key, 0)
        await gathering.whole(origin)

    async def _fetch_single(self, origin: str, room: Room, event_ids: Collection[str]) -> bool:
        """Whether all of these events could be had. Of some a server may say no more than that they are in a state."""

        async def fetch(event_id: str) -> Verified | None:
            try:
                return await self.fetch_event(origin, room.version, event_id)
            except RemoteUnreachable:
                raise  # without it the state would be another one
            except RemoteFailure as failure:
                log.info("an event could not be fetched", event_id=event_id, reason=str(failure))
                return None

        fetched = await asyncio.gather(*(fetch(event_id) for event_id in event_ids))
        await self._outliers.persist(room.room, [one for one in fetched if one and one.pdu.room_id == room.room_id])
        return None not in fetched

    async def _verified(self, events: Sequence[object], version: RoomVersion) -> list[Verified]:
        checked = await self._verification.verify(events, version)
        return [one for one in checked if isinstance(one, Verified)]


def list_of(origin: str, answer: Any, key: str, max_items: int) -> list[Any]:
    """What an answer has under a key. Raises RemoteMisbehaved unless it is a list of at most so many."""
    items = answer.get(key) if isinstance(answer, dict) else None
    if not isinstance(items, list) or len(items) > max_items:
        raise RemoteMisbehaved(origin, f"{key} is not a list of at most {max_items} events")
    return items


def ids_of(origin: str, answer: Any, key: str, max_items: int) -> list[str]:
    """The same for event IDs; what is none is left out. Raises RemoteMisbehaved."""
    items: Iterable[Any] = list_of(origin, answer, key, max_items)
    return [item for item in items if is_event_id(item)]

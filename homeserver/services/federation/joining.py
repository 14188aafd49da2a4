"""Users of this server join, leave and knock on rooms that this server is not in.

1. A server in the room gives a template; the event is made of it and accepted there (`handshake`).
2. It answers with the state before the join, and all that this rests on. Every event of it is checked like any other.
3. These are kept as outliers; the join stands on their state, and is the room's only extremity.

https://spec.matrix.org/v1.19/server-server-api/#joining-rooms
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from homeserver.logs import get_logger
from homeserver.services.errors import MatrixError
from homeserver.services.federation.foreign_rooms import ForeignRooms, is_stripped_event
from homeserver.services.federation.handshake import Accomplished, Handshake
from homeserver.services.federation.incoming_events import IncomingEvents
from homeserver.services.federation.outliers import Outliers
from homeserver.services.federation.receiving import Dropped, Receiving
from homeserver.services.federation.verification import Verification, Verified
from homeserver.services.rooms.branches import State
from homeserver.services.rooms.event_cache import EventCache
from homeserver.services.rooms.registry import RoomRegistry
from homeserver.services.rooms.room import CREATE, Room
from matrix.identifiers import get_domain
from matrix.pdu import Pdu
from storage.events import EventKind
from storage.snapshots import EMPTY

log = get_logger(__name__)

MAX_STATE_EVENTS = 200_000


class Joining:
    """Brings users into rooms of other servers, and out of them."""

    def __init__(
        self,
        registry: RoomRegistry,
        events: EventCache,
        foreign_rooms: ForeignRooms,
        handshake: Handshake,
        verification: Verification,
        outliers: Outliers,
        incoming: IncomingEvents,
        receiving: Receiving,
    ) -> None:
        self._registry = registry
        self._events = events
        self._foreign_rooms = foreign_rooms
        self._handshake = handshake
        self._verification = verification
        self._outliers = outliers
        self._incoming = incoming
        self._receiving = receiving

    async def join(self, user_id: str, room_id: str, servers: Sequence[str], content: dict[str, Any]) -> Room:
        """Joins a user to a room through servers that are in it. Raises MatrixError."""
        async with self._incoming.lock(room_id):
            room = await self._registry.load(room_id)
            if room is not None and room.local_joined:
                return room  # somebody else of this server has joined meanwhile
            invite = await self._foreign_rooms.load_membership_event(user_id, room_id)
            known = [] if invite is None else [get_domain(invite.pdu.sender)]
            done = await self._handshake.run("join", user_id, room_id, [*known, *servers], content)
            room = await self._registry.load(room_id)  # which may have gone out of memory meanwhile
            return await self._take_over(room, done)

    async def join_through(self, room: Room, user_id: str, servers: Sequence[str], content: dict[str, Any]) -> None:
        """Joins a user to a room that this server is in, but into which only another one can let them."""
        done = await self._handshake.run("join", user_id, room.room_id, servers, content)
        join = await self._accepted_join(done)
        await self._incoming.receive_own(done.server, room.room_id, join)

    async def _take_over(self, room: Room | None, done: Accomplished) -> Room:
        """The room as another server describes it, with the user in it."""
        version, room_id = done.pdu.room_version, done.pdu.room_id
        join = await self._accepted_join(done)
        room_row = None
        if room is None:
            room, room_row = await self._foreign_rooms.room_for(room_id, version)
        chain = await self._verified(_events_of(done, "auth_chain"), done)
        state_events = await self._verified(_events_of(done, "state"), done)
        known = await self._outliers.persist(room.room, [*chain, *state_events], room_row)
        state_ids = {one.pdu.event_id for one in state_events}
        state = {
            event.pdu.state_key_pair: event.position
            for event_id in state_ids
            if (event := known.get(event_id)) is not None
            and event.pdu.state_key is not None
            and event.kind != EventKind.REJECTED
        }
        create = next((e.pdu for e in known.values() if e.pdu.type == CREATE[0] and e.event_id in state_ids), None)
        if create is None or CREATE not in state or not _is_create_of(create, join):
            raise MatrixError(502, "M_UNKNOWN", f"{done.server} told the state of another room")
        try:
            taken = await self._receiving.take_over(room, join, State(EMPTY, state))
        except Dropped as error:
            room.stale = True
            raise MatrixError(502, "M_UNKNOWN", f"{done.server} gave no usable state: {error}") from None
        self._registry.add(room)
        if taken is not None:
            await taken
        stored = await self._events.load_id(join.event_id)
        if stored is None or stored.kind != EventKind.TIMELINE:
            room.stale = True
            raise MatrixError(502, "M_UNKNOWN", f"By the state that {done.server} told, you may not join")
        return room

    async def _accepted_join(self, done: Accomplished) -> Pdu:
        """The join as the server in the room accepted it, which may have put its signature beside ours."""
        event = done.answer.get("event")
        if event is None:
            return done.pdu
        checked = (await self._verification.verify([event], done.pdu.room_version))[0]
        if not isinstance(checked, Verified) or checked.pdu.event_id != done.pdu.event_id:
            raise MatrixError(502, "M_UNKNOWN", f"{done.server} answered with another event")
        return checked.pdu

    async def _verified(self, events: Sequence[object], done: Accomplished) -> list[Verified]:
        checked = await self._verification.verify(events, done.pdu.room_version)
        good = [one for one in checked if isinstance(one, Verified) and one.pdu.room_id == done.pdu.room_id]
        if len(good) < len(events):
            log.info("events were left out of a room's state", room_id=done.pdu.room_id, count=len(events) - len(good))
        return good

    async def knock(self, user_id: str, room_id: str, servers: Sequence[str], content: dict[str, Any]) -> None:
        """Knocks on a room. Raises MatrixError. https://spec.matrix.org/v1.19/server-server-api/#knocking-rooms"""
        async with self._incoming.lock(room_id):
            done = await self._handshake.run("knock", user_id, room_id, servers, content)
            told = done.answer.get("knock_room_state")
            stripped = [event for event in told if is_stripped_event(event)] if isinstance(told, list) else []
            await self._foreign_rooms.persist_membership(done.pdu, stripped, "knock_room_state")

    async def leave(self, user_id: str, room_id: str, content: dict[str, Any]) -> bool:
        """Declines an invitation or takes back a knock; False where there is none of a room that is not known.

        Where no server of the room can be reached, the user is out of it as far as this server is concerned.
        https://spec.matrix.org/v1.19/server-server-api/#leaving-rooms-rejecting-invites
        """
        async with self._incoming.lock(room_id):
            return await self._leave(user_id, room_id, content)

    async def _leave(self, user_id: str, room_id: str, content: dict[str, Any]) -> bool:
        room = await self._registry.load(room_id)
        if room is not None and room.local_joined:
            return False  # somebody has joined meanwhile, and the room's own rules hold
        before = await self._foreign_rooms.load_membership_event(user_id, room_id)
        if before is None or before.pdu.content.get("membership") not in ("invite", "knock"):
            return False
        servers = [get_domain(before.pdu.sender)]
        if (of_room := get_domain(room_id)) and of_room not in servers:
            servers.append(of_room)
        try:
            pdu = (await self._handshake.run("leave", user_id, room_id, servers, content)).pdu
        except MatrixError as error:
            log.info("a room was left without telling its servers", room_id=room_id, reason=error.message)
            pdu = self._handshake.leave_alone(before.pdu, user_id, content)
        await self._foreign_rooms.persist_membership(pdu, [], "invite_room_state")
        return True


def _events_of(done: Accomplished, key: str) -> list[Any]:
    events = done.answer.get(key)
    if not isinstance(events, list) or len(events) > MAX_STATE_EVENTS:
        raise MatrixError(502, "M_UNKNOWN", f"{done.server} told no usable state of the room")
    return events


def _is_create_of(create: Pdu, join: Pdu) -> bool:
    version = create.content.get("room_version", "1")
    return create.room_id == join.room_id and version == join.room_version.identifier

"""Users of this server join, leave and knock on rooms that this server is not in.

1. A server in the room gives a template; the event is made of it and accepted there (`handshake`).
2. It answers with the state before the join, as a rule without most members, and all that this rests on. Every event of
   it is checked like any other, while the others still arrive (`gathering`).
3. These are kept as outliers; the join stands on their state, and is the room's only extremity.
4. The members who are lacking are fetched when the user is in (`partial_rooms`).

https://spec.matrix.org/v1.19/server-server-api/#joining-rooms
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any

from homeserver.logs import get_logger
from homeserver.services.errors import MatrixError
from homeserver.services.federation.foreign_rooms import (
    MAX_STRIPPED_EVENTS,
    ForeignRooms,
    is_stripped_event,
    server_behind,
)
from homeserver.services.federation.gathering import Gathering, lists_of
from homeserver.services.federation.handshake import Accomplished, Handshake
from homeserver.services.federation.incoming_events import IncomingEvents
from homeserver.services.federation.missing_events import MissingEvents
from homeserver.services.federation.outliers import Outliers
from homeserver.services.federation.partial_rooms import PartialRooms
from homeserver.services.federation.receiving import Dropped, Receiving
from homeserver.services.federation.verification import Verification, Verified
from homeserver.services.remote import RemoteFailure, bad_gateway
from homeserver.services.rooms.branches import State
from homeserver.services.rooms.event_cache import EventCache
from homeserver.services.rooms.missing_state import members_unknown
from homeserver.services.rooms.registry import RoomRegistry
from homeserver.services.rooms.room import CREATE, Room, StateKey
from matrix.identifiers import get_domain, is_server_name
from matrix.pdu import Pdu
from matrix.room_versions import RoomVersion
from storage.events import EventKind
from storage.partial_rooms import PartialRoomRow
from storage.rooms import RoomRow

log = get_logger(__name__)

MAX_SERVERS = 20_000
"""How many servers may be in a room; the largest rooms that there are have half of them."""


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
        missing_events: MissingEvents,
        incoming: IncomingEvents,
        receiving: Receiving,
        partial_rooms: PartialRooms,
    ) -> None:
        self._missing_events = missing_events
        self._partial_rooms = partial_rooms
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
            async with AsyncExitStack() as stack:
                gathering: Gathering | None = None

                def gather(version: RoomVersion) -> Gathering:
                    nonlocal gathering
                    gathering = self._missing_events.gathering(version, room_id)
                    stack.push_async_callback(gathering.aclose)
                    return gathering

                done = await self._handshake.run("join", user_id, room_id, [*known, *servers], content, gather)
                assert gathering is not None
                try:
                    await gathering.whole(done.server)
                except RemoteFailure as failure:
                    raise bad_gateway(failure) from None
                room = await self._registry.load(room_id)  # which may have gone out of memory meanwhile
                return await self._take_over(room, done, gathering)

    async def join_through(self, room: Room, user_id: str, servers: Sequence[str], content: dict[str, Any]) -> None:
        """Joins a user to a room that this server is in, but into which only another one can let them.

        Raises MatrixError, also while it is not known who is in the room: the join could not be judged here.
        """
        if room.partial is not None:
            raise members_unknown()
        done = await self._handshake.run("join", user_id, room.room_id, servers, content)
        join = await self._accepted_join(done)
        await self._incoming.receive_own(done.server, room.room_id, join)

    async def _take_over(self, room: Room | None, done: Accomplished, gathering: Gathering) -> Room:
        """The room as another server describes it, with the user in it."""
        version, room_id = done.pdu.room_version, done.pdu.room_id
        join = await self._accepted_join(done)
        room_row = None
        if room is None:
            room, room_row = await self._foreign_rooms.room_for(room_id, version)
        state = await self._state(room, done, join, gathering, room_row)
        ground = await self._outliers.persist_ground(room, state)
        partial = None
        if done.answer.get("members_omitted") is True:
            partial = PartialRoomRow(room.room, join.event_id, ground, _servers_in_room(done), room_id=room_id)
        try:
            taken = await self._receiving.take_over(room, join, State(ground), partial)
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
        await self._partial_rooms.begin(room, partial)
        return room

    async def _state(
        self, room: Room, done: Accomplished, join: Pdu, gathering: Gathering, room_row: RoomRow | None
    ) -> dict[StateKey, int]:
        """The state that another server told, key -> position, its events kept. Raises MatrixError."""
        for key in lists_of("state"):
            if not isinstance(done.answer.get(key), list):
                raise MatrixError(502, "M_UNKNOWN", f"{done.server} told no usable state of the room")
        placed = await self._outliers.persist_packed(room.room, room.version, gathering.events, room_row)
        told = [placed[event_id] for event_id in gathering.lists.get("state", ()) if event_id in placed]
        state = {one.key: one.position for one in told if one.key is not None}
        create = (await self._events.load([state[CREATE]])).get(state[CREATE]) if CREATE in state else None
        if create is None or not _is_create_of(create.pdu, join):
            raise MatrixError(502, "M_UNKNOWN", f"{done.server} told the state of another room")
        return state

    async def _accepted_join(self, done: Accomplished) -> Pdu:
        """The join as the server in the room accepted it, which may have put its signature beside ours."""
        event = done.answer.get("event")
        if event is None:
            return done.pdu
        checked = (await self._verification.verify([event], done.pdu.room_version))[0]
        if not isinstance(checked, Verified) or checked.pdu.event_id != done.pdu.event_id:
            raise MatrixError(502, "M_UNKNOWN", f"{done.server} answered with another event")
        return checked.pdu

    async def knock(self, user_id: str, room_id: str, servers: Sequence[str], content: dict[str, Any]) -> None:
        """Knocks on a room. Raises MatrixError. https://spec.matrix.org/v1.19/server-server-api/#knocking-rooms"""
        async with self._incoming.lock(room_id):
            done = await self._handshake.run("knock", user_id, room_id, servers, content)
            told = done.answer.get("knock_room_state")
            shown = await self._identifying(done.pdu, told) if isinstance(told, list) else []
            await self._foreign_rooms.persist_membership(done.pdu, shown, "knock_room_state", via=done.server)

    async def _identifying(self, knock: Pdu, told: Sequence[object]) -> list[object]:
        """What a server told of a room, without what is none of its events where that can be found out.

        Of rooms of older versions many servers tell no more than stripped state, which bears no signatures.
        """
        shown = [event for event in told[:MAX_STRIPPED_EVENTS] if is_stripped_event(event)]
        if not knock.room_version.room_id_is_create_event_hash:
            return shown
        checked = await self._verification.verify(shown, knock.room_version)
        return [
            event
            for event, one in zip(shown, checked, strict=True)
            if isinstance(one, Verified) and one.pdu.room_id == knock.room_id
        ]

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
        servers = [server_behind(before)]
        if (of_room := get_domain(room_id)) and of_room not in servers:
            servers.append(of_room)
        try:
            pdu = (await self._handshake.run("leave", user_id, room_id, servers, content)).pdu
        except MatrixError as error:
            log.info("a room was left without telling its servers", room_id=room_id, reason=error.message)
            pdu = self._handshake.leave_alone(before.pdu, user_id, content)
        await self._foreign_rooms.persist_membership(pdu, [], "invite_room_state")
        return True


def _servers_in_room(done: Accomplished) -> list[str]:
    """The servers that are in the room as one of them told, which is the first."""
    told = done.answer.get("servers_in_room")
    servers = [name for name in told if is_server_name(name)] if isinstance(told, list) else []
    return list(dict.fromkeys([done.server, *servers]))[:MAX_SERVERS]


def _is_create_of(create: Pdu, join: Pdu) -> bool:
    version = create.content.get("room_version", "1")
    return create.room_id == join.room_id and version == join.room_version.identifier

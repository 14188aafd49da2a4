"""Users of other servers join, leave and knock on rooms that this server is in.

https://spec.matrix.org/v1.19/server-server-api/#joining-rooms
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any

import orjson

from homeserver.services.errors import Forbidden, InvalidParam, MatrixError, NotFound
from homeserver.services.federation.handshake import Step
from homeserver.services.federation.incoming_events import IncomingEvents
from homeserver.services.federation.policy_servers import PolicyServers
from homeserver.services.federation.receiving import Dropped, Receiving
from homeserver.services.federation.verification import Verification, Verified
from homeserver.services.rooms.acceptance import Origin
from homeserver.services.rooms.access import Access, is_admitted
from homeserver.services.rooms.authoring import Authoring, Draft
from homeserver.services.rooms.erasure import served_json
from homeserver.services.rooms.event_cache import EventCache
from homeserver.services.rooms.missing_state import MissingState
from homeserver.services.rooms.room import NotLoaded, Room
from homeserver.services.sync.summary import heroes_of, is_named
from matrix.identifiers import get_domain, is_user_id
from matrix.pdu import Pdu
from matrix.room_versions import EventIdFormat
from matrix.signatures import SigningKey, sign_event
from storage.events import EventKind, StoredEvent

MAX_LOADS = 8
CHUNK_EVENTS = 1000
OMIT_FROM_EVENTS = 100
"""How large a state is from which on members are left out for who joins."""


class Resident:
    """Lets other servers' users in, as far as the rules do."""

    def __init__(
        self,
        access: Access,
        authoring: Authoring,
        missing: MissingState,
        events: EventCache,
        verification: Verification,
        incoming: IncomingEvents,
        receiving: Receiving,
        policy_servers: PolicyServers,
        authorise: Callable[[str, Room], Awaitable[str | None]],
        *,
        server_name: str,
        signing_key: SigningKey,
    ) -> None:
        """`authorise` says in whose name a user may join a restricted room, None for rooms that are not.

        It raises M_UNABLE_TO_AUTHORISE_JOIN, M_UNABLE_TO_GRANT_JOIN and Forbidden.
        """
        self._access = access
        self._authoring = authoring
        self._missing = missing
        self._events = events
        self._verification = verification
        self._incoming = incoming
        self._receiving = receiving
        self._policy_servers = policy_servers
        self._authorise = authorise
        self._server_name = server_name
        self._signing_key = signing_key
        self.omit_from_events = OMIT_FROM_EVENTS

    async def make(
        self, step: Step, origin: str, room_id: str, user_id: str, versions: Collection[str]
    ) -> dict[str, Any]:
        """A template for a member event. Raises Forbidden, NotFound, M_INCOMPATIBLE_ROOM_VERSION and the like.

        https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1make_joinroomiduserid
        """
        if not is_user_id(user_id) or get_domain(user_id) != origin:
            raise Forbidden("The user is not of your server")
        room = await self.access_room(origin, room_id)
        if step != "leave" and room.version.identifier not in versions:
            raise MatrixError(
                400,
                "M_INCOMPATIBLE_ROOM_VERSION",
                "Your homeserver does not support the features required to join this room",
                {"room_version": room.version.identifier},
            )
        content: dict[str, Any] = {"membership": step}
        if step == "join" and (authoriser := await self._authorise(user_id, room)) is not None:
            content["join_authorised_via_users_server"] = authoriser
        pdu = await self.build(room, Draft("m.room.member", user_id, content, user_id))
        unsigned = {key: value for key, value in pdu.json.items() if key not in ("hashes", "signatures")}
        if room.version.event_id_format is EventIdFormat.OPAQUE:
            unsigned.pop("event_id", None)
        return {"room_version": room.version.identifier, "event": {**unsigned, "origin": self._server_name}}

    async def access_room(self, origin: str, room_id: str, *, whole: bool = True, may_have_left: bool = False) -> Room:
        """A room that this server is in and that lets the other server in. Raises NotFound, Forbidden.

        With `whole`, a room whose members are not all known here is left to other servers; with `may_have_left`, this
        server need not be in it any more.
        """
        room = await self._access.access_room(room_id)
        if not room.local_joined and not may_have_left:
            raise NotFound("This server is not in the room")
        if whole and room.partial is not None:
            raise NotFound("This server does not know yet who is in the room")
        if not is_admitted(room, origin):
            raise Forbidden("Your server is kept out of this room")
        return room

    async def build(self, room: Room, draft: Draft) -> Pdu:
        """An event on the tip that the rules allow, signed, but not taken in. Raises MatrixError."""
        for _ in range(MAX_LOADS):
            if room.stale:
                room = await self._access.access_room(room.room_id)
            try:
                if room.resolving is not None:
                    raise NotLoaded((), busy=room.resolving)
                return self._authoring.build(room, draft)
            except NotLoaded as missing:
                await self._missing.load(missing)
        raise MatrixError(503, "M_LIMIT_EXCEEDED", "The server is overloaded", {"retry_after_ms": 1000})

    async def accept(self, step: Step, origin: str, room_id: str, event_id: str, event: object) -> StoredEvent:
        """Takes in the signed event of a template. Raises InvalidParam, Forbidden, NotFound.

        https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv2send_joinroomideventid
        """
        room = await self.access_room(origin, room_id)
        [one] = await self._policy_servers.check(room, [await self._checked(step, origin, room, event_id, event)])
        async with self._incoming.lock(room_id):
            room = await self.access_room(origin, room_id)
            await self._receiving.settle(room)
            await self._events.load_ids((event_id,))  # it may be known already
            try:
                done = await self._receiving.take_in(room, one.pdu, origin=Origin(), is_recommended=one.is_recommended)
            except Dropped as error:
                raise InvalidParam(str(error)) from None
            if done is not None:
                await done
        stored = await self._events.load_id(event_id)
        if stored is None or stored.kind != EventKind.TIMELINE or stored.room != room.room:
            raise Forbidden("The room's rules do not allow it")
        return stored

    async def _checked(self, step: Step, origin: str, room: Room, event_id: str, event: object) -> Verified:
        """The event, if it is what it has to be, signed by this server too where it lets somebody in."""
        authoriser = self._own_authoriser(room, event) if isinstance(event, dict) and step == "join" else None
        if isinstance(event, dict) and authoriser is not None:
            if room.membership(authoriser) != "join":
                raise InvalidParam("join_authorised_via_users_server is no member of this server")
            event = sign_event(event, room.version, self._server_name, self._signing_key)
        checked = (await self._verification.verify([event], room.version))[0]
        if not isinstance(checked, Verified):
            raise InvalidParam(str(checked))
        pdu = checked.pdu
        is_right = (
            pdu.event_id == event_id
            and pdu.room_id == room.room_id
            and pdu.type == "m.room.member"
            and pdu.state_key == pdu.sender
            and get_domain(pdu.sender) == origin
            and pdu.content.get("membership") == step
        )
        if not is_right:
            raise InvalidParam(f"The event is not the {step} of a user of your server in this room")
        if authoriser is not None:
            await self._authorise(pdu.sender, room)  # nobody has to have asked for a template before
        return checked

    def _own_authoriser(self, room: Room, event: dict[str, Any]) -> str | None:
        content = event.get("content")
        authoriser = content.get("join_authorised_via_users_server") if isinstance(content, dict) else None
        is_ours = isinstance(authoriser, str) and get_domain(authoriser) == self._server_name
        return authoriser if room.version.restricted_allowed and is_ours else None

    async def joined(self, origin: str, event: StoredEvent, *, omit_members: bool) -> bytes:
        """What is answered to a join: the state before it, and all that this and the join rest on.

        With `omit_members`, of the members only those that the state rests on and that name the room, unless it is
        small: then one answer is better than two.
        """
        room = await self._access.access_room(event.pdu.room_id)
        state = await self._access.state_before(room, event)
        servers = sorted(room.servers.keys() - ({origin} if room.servers[origin] <= 1 else set()))
        omit_members = omit_members and len(state) >= self.omit_from_events
        if omit_members:
            heroes = () if is_named(room) else heroes_of(room, event.pdu.sender)
            kept = {("m.room.member", user_id) for user_id in (*heroes, event.pdu.sender)}
            state = {key: at for key, at in state.items() if key[0] != "m.room.member" or key in kept}
        members = list((await self._events.load(state.values())).values())
        chain = await self.auth_chain([event, *members])
        if omit_members:
            shown = {member.event_id for member in members}
            chain = [link for link in chain if link.event_id not in shown]
        erased = await self._access.erased_for_server(room, origin)
        parts = [
            b'{"origin":',
            orjson.dumps(self._server_name),
            b',"members_omitted":',
            b"true" if omit_members else b"false",
            b',"servers_in_room":',
            orjson.dumps(servers),
            b',"event":',
            orjson.dumps(event.pdu.json),
            b',"state":[',
            b",".join(orjson.dumps(served_json(member, erased)) for member in members),
            b'],"auth_chain":[',
            b",".join(orjson.dumps(served_json(link, erased)) for link in chain),
            b"]}",
        ]
        return b"".join(parts)

    async def auth_chain(self, events: Sequence[StoredEvent]) -> list[StoredEvent]:
        """The auth events of these, theirs, and so on, without these themselves unless they are among them."""
        found: dict[str, StoredEvent] = {}
        pending = {event_id for event in events for event_id in event.pdu.auth_events}
        if events and events[0].pdu.room_version.room_id_is_create_event_hash:
            pending.add("$" + events[0].pdu.room_id[1:])
        while pending:
            loaded = await self._events.load_ids(pending)
            found.update(loaded)
            pending = {event_id for event in loaded.values() for event_id in event.pdu.auth_events} - found.keys()
        return list(found.values())

"""Invitations that cross servers: those of this server's users, and those to them.

https://spec.matrix.org/v1.19/server-server-api/#inviting-to-a-room
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any
from urllib.parse import quote

from homeserver.services.errors import Forbidden, InvalidParam, MatrixError
from homeserver.services.federation.foreign_rooms import ForeignRooms, is_stripped_event
from homeserver.services.federation.handshake import refusal_as_error
from homeserver.services.federation.incoming_events import IncomingEvents
from homeserver.services.federation.policy_servers import PolicyServers
from homeserver.services.federation.receiving import Dropped, Receiving
from homeserver.services.federation.resident import Resident
from homeserver.services.federation.verification import Verification, Verified
from homeserver.services.remote import RemoteFailure, RemoteRefused, Transport, bad_gateway
from homeserver.services.rooms.acceptance import Origin
from homeserver.services.rooms.access import is_admitted
from homeserver.services.rooms.authoring import Draft
from homeserver.services.rooms.event_cache import EventCache
from homeserver.services.rooms.registry import RoomRegistry
from homeserver.services.rooms.room import Room
from homeserver.services.rooms.stripped_state import STRIPPED_STATE, stripped_event
from matrix.identifiers import get_domain
from matrix.pdu import InvalidPdu, Pdu, parse_pdu
from matrix.room_versions import ROOM_VERSIONS
from matrix.signatures import SigningKey, hash_and_sign_event, sign_event
from storage.events import EventKind

MAX_STRIPPED_EVENTS = 100
INVITE_TIMEOUT_MS = 30_000


class Inviting:
    """Sends and receives invitations."""

    def __init__(
        self,
        registry: RoomRegistry,
        events: EventCache,
        foreign_rooms: ForeignRooms,
        resident: Resident,
        verification: Verification,
        incoming: IncomingEvents,
        receiving: Receiving,
        policy_servers: PolicyServers,
        transport: Transport,
        check_invitable: Callable[[str], Awaitable[None]],
        *,
        server_name: str,
        signing_key: SigningKey,
    ) -> None:
        self._registry = registry
        self._events = events
        self._foreign_rooms = foreign_rooms
        self._resident = resident
        self._verification = verification
        self._incoming = incoming
        self._receiving = receiving
        self._policy_servers = policy_servers
        self._transport = transport
        self._check_invitable = check_invitable
        self._server_name = server_name
        self._signing_key = signing_key

    async def invite(self, room: Room, draft: Draft) -> None:
        """Invites a user of another server, who signs the event before it comes into the room. Raises MatrixError."""
        assert draft.state_key is not None
        made = self._with_origin(await self._resident.build(room, draft))
        pdu = await self._policy_servers.sign(room, made)
        signed = await self._ask(get_domain(draft.state_key), pdu, await self._room_state(room))
        signed = await self._policy_servers.sign(room, signed)  # if the other server has left that signature out
        async with self._incoming.lock(room.room_id):
            room = await self._resident.access_room(self._server_name, room.room_id)
            await self._receiving.settle(room)
            try:
                done = await self._receiving.take_in(room, signed, origin=Origin())
            except Dropped as error:
                raise MatrixError(503, "M_UNKNOWN", str(error)) from None
            if done is not None:
                await done
        stored = await self._events.load_id(signed.event_id)
        if stored is None or stored.kind != EventKind.TIMELINE:
            raise Forbidden("You may not invite any more")

    def _with_origin(self, pdu: Pdu) -> Pdu:
        """An invitation as the operation wants it, with the server that invites: other events have no such property."""
        event = {key: value for key, value in pdu.json.items() if key not in ("hashes", "signatures")}
        event["origin"] = self._server_name
        signed = hash_and_sign_event(event, pdu.room_version, self._server_name, self._signing_key)
        try:
            return parse_pdu(signed, pdu.room_version)
        except InvalidPdu:  # it would be larger than events may be
            return pdu

    async def _ask(self, server: str, pdu: Pdu, room_state: list[dict[str, Any]]) -> Pdu:
        """The event with the other server's signature. Raises MatrixError."""
        version = pdu.room_version
        path = f"invite/{quote(pdu.room_id, safe='')}/{quote(pdu.event_id, safe='')}"
        content = {"room_version": version.identifier, "event": pdu.json, "invite_room_state": room_state}
        try:
            try:
                answer = await self._transport.request(
                    server,
                    "PUT",
                    f"/_matrix/federation/v2/{path}",
                    content=content,
                    timeout_ms=INVITE_TIMEOUT_MS,
                )
            except RemoteRefused as refusal:
                # "Senders which receive a 400 or 404 response to this endpoint should retry using the v1 API ..."
                if refusal.status not in (400, 404) or version.identifier not in ("1", "2"):
                    raise
                event = {**pdu.json, "unsigned": {"invite_room_state": room_state}}
                answer = await self._put(server, f"/_matrix/federation/v1/{path}", event)
                answer = answer[1] if isinstance(answer, list) and len(answer) == 2 else answer
        except RemoteRefused as refusal:
            if refusal.errcode == "M_INCOMPATIBLE_ROOM_VERSION":
                # What clients know it by: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3roomsroomidinvite
                raise MatrixError(
                    400, "M_UNSUPPORTED_ROOM_VERSION", f"{server} does not support the room's version"
                ) from None
            raise refusal_as_error(refusal) from None
        except RemoteFailure as failure:
            raise bad_gateway(failure) from None
        signed = answer.get("event") if isinstance(answer, dict) else None
        checked = (await self._verification.verify([signed], version))[0]
        if not isinstance(checked, Verified) or checked.pdu.event_id != pdu.event_id:
            raise MatrixError(502, "M_UNKNOWN", f"{server} answered with another event")
        return checked.pdu

    async def _put(self, server: str, path: str, content: dict[str, Any]) -> Any:
        return await self._transport.request(server, "PUT", path, content=content, timeout_ms=INVITE_TIMEOUT_MS)

    async def _room_state(self, room: Room) -> list[dict[str, Any]]:
        """What the invited are told of the room: whole events, from which their servers can tell that they are real.

        https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv2inviteroomideventid
        """
        shown = [event for type in STRIPPED_STATE if (event := room.pinned.get((type, ""))) is not None]
        return [event.pdu.json for event in shown]

    async def receive(
        self, origin: str, room_id: str, event_id: str, version_id: str, event: object, room_state: Sequence[object]
    ) -> dict[str, Any]:
        """An invitation of a user here: the event with this server's signature. Raises MatrixError.

        https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv2inviteroomideventid
        """
        version = ROOM_VERSIONS.get(version_id)
        if version is None:
            raise MatrixError(
                400,
                "M_INCOMPATIBLE_ROOM_VERSION",
                "This server does not know the room's version",
                {"room_version": version_id},
            )
        checked = (await self._verification.verify([event], version))[0]
        if not isinstance(checked, Verified):
            raise InvalidParam(str(checked))
        pdu = checked.pdu
        is_right = (
            pdu.event_id == event_id
            and pdu.room_id == room_id
            and pdu.type == "m.room.member"
            and pdu.content.get("membership") == "invite"
            and get_domain(pdu.sender) == origin
            and pdu.state_key is not None
            and get_domain(pdu.state_key) == self._server_name
        )
        if not is_right or pdu.state_key is None:
            raise InvalidParam("The event is not an invitation of a user here by a user of your server")
        await self._check_room_state(pdu, room_state)
        await self._check_invitable(pdu.state_key)
        async with self._incoming.lock(room_id):  # a join that is under way must not be taken back by its invitation
            room = await self._registry.load(room_id)
            if room is not None and room.local_joined and not is_admitted(room, origin):
                raise Forbidden("Your server is kept out of this room")
            signed = sign_event(pdu.json, version, self._server_name, self._signing_key)
            if room is None or not room.local_joined:
                told = [*filter(is_stripped_event, room_state[:MAX_STRIPPED_EVENTS])]
                own = Pdu(version, pdu.event_id, signed)
                await self._foreign_rooms.persist_membership(own, [*told, stripped_event(pdu)], "invite_room_state")
        return signed

    async def _check_room_state(self, pdu: Pdu, room_state: Sequence[object]) -> None:
        """The validation that servers should apply in room versions from 12 on. Raises InvalidParam.

        There the room's ID is the hash of its m.room.create: nobody can claim to invite to a room of others.
        """
        if not pdu.room_version.room_id_is_create_event_hash:
            return
        events = list(room_state[:MAX_STRIPPED_EVENTS])
        checked = await self._verification.verify(events, pdu.room_version)
        pdus = [one.pdu for one in checked if isinstance(one, Verified)]
        if len(pdus) < len(events) or any(found.room_id != pdu.room_id for found in pdus):
            raise InvalidParam("invite_room_state has something that is not an event of the room")
        if not any(found.type == "m.room.create" for found in pdus):
            raise InvalidParam("invite_room_state has no m.room.create")

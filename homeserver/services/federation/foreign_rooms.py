"""Rooms that nobody here is in, but somebody was invited to or has knocked on: what is known of them is what their
servers tell in that event.

https://spec.matrix.org/v1.19/server-server-api/#inviting-to-a-room
"""

from __future__ import annotations

from typing import Any

import orjson

from homeserver.services.changes import Changes
from homeserver.services.notifier import Notifier
from homeserver.services.rooms.acceptance import PublishObserver
from homeserver.services.rooms.event_cache import EventCache
from homeserver.services.rooms.registry import RoomRegistry
from homeserver.services.rooms.room import Room
from homeserver.services.rooms.user_rooms import UserRooms
from homeserver.services.stream import Stream
from matrix.identifiers import get_domain
from matrix.pdu import Pdu
from matrix.room_versions import RoomVersion
from storage.events import EventKind, StoredEvent
from storage.rooms import MembershipRow, RoomRepository, RoomRow
from storage.stream import Writes

MAX_STRIPPED_EVENTS = 100
MAX_STRIPPED_BYTES = 256 * 1024
"""How much of what another server tells of a room is kept: with room for a few events of the largest size."""
VIA = "via"
"""What stands in `unsigned`, for this server alone, beside what was told of the room."""
STRIPPED_KEYS = ("type", "sender", "state_key", "content", "origin_server_ts", "event_id")


class ForeignRooms:
    """Keeps memberships in rooms whose state is not known here. The caller holds the room's lock."""

    def __init__(
        self,
        registry: RoomRegistry,
        rooms: RoomRepository,
        user_rooms: UserRooms,
        events: EventCache,
        stream: Stream,
        notifier: Notifier,
        changes: Changes,
    ) -> None:
        self._registry = registry
        self._rooms = rooms
        self._user_rooms = user_rooms
        self._events = events
        self._stream = stream
        self._notifier = notifier
        self._changes = changes
        self.observers: list[PublishObserver] = []
        """Told of memberships in these rooms, whose events `Acceptance` does not see."""

    async def room_for(self, room_id: str, version: RoomVersion) -> tuple[Room, RoomRow | None]:
        """The room as far as it is known, not yet kept in memory, and the row that has to be written for a new one."""
        row = await self._rooms.load_room(room_id)
        if row is None:
            room = self._registry.new(room_id, version)
            return room, RoomRow(room.room, room_id, version.identifier, "", False)
        room = self._registry.stub(row.room, room_id, version)
        for member in await self._rooms.load_memberships_of_room(row.room):
            room.publish_membership(member.user_id, member.membership)
        return room, None

    async def load_membership_event(self, user_id: str, room_id: str) -> StoredEvent | None:
        """The member event that a user has in a room whose state is not known; None if there is none."""
        user_room = (await self._user_rooms.load(user_id)).get(room_id)
        if user_room is None:
            return None
        event = (await self._events.load([user_room.position])).get(user_room.position)
        return event if event is not None and event.kind == EventKind.OUTLIER else None

    async def persist_membership(
        self, pdu: Pdu, stripped_state: list[Any], key: str, *, via: str | None = None
    ) -> None:
        """Keeps a member event with what was told of the room, `unsigned.invite_room_state` or `knock_room_state`.

        `via` is the server in the room that has taken it in, where that is not the sender's (`server_behind`).
        """
        user_id = pdu.state_key
        assert user_id is not None
        room_id = pdu.room_id
        room = await self._registry.load(room_id)
        if room is not None and room.local_joined:
            return  # the event comes in with all others of the room
        room_row = None
        if room is None:
            room, room_row = await self.room_for(room_id, pdu.room_version)
        await self._user_rooms.load(user_id)
        async with self._events.claims.holding((pdu.event_id,)):
            if (await self._events.load_id(pdu.event_id)) is None:
                unsigned = {key: _kept(stripped_state)} | ({} if via is None else {VIA: via})
                await self._store(room, room_row, pdu, user_id, unsigned)

    async def _store(
        self, room: Room, room_row: RoomRow | None, pdu: Pdu, user_id: str, unsigned: dict[str, Any]
    ) -> None:
        json = {**pdu.json, "unsigned": unsigned}
        position = self._stream.next_position()
        stored = Pdu(pdu.room_version, pdu.event_id, json)
        # It notifies, unlike other events without a place: who looks for what was missed is to find it.
        event = StoredEvent(
            position=position, room=room.room, pdu=stored, snapshot=0, kind=EventKind.OUTLIER, notifies=True
        )
        membership = pdu.content["membership"]
        writes = Writes()
        if room_row is not None:
            writes.rooms.append(room_row)
        writes.events.append(event)
        writes.memberships.append(MembershipRow(user_id, room.room, position, membership))

        def publish() -> None:
            before = room.membership(user_id)
            self._events.add(event)
            room.publish_membership(user_id, membership)
            self._user_rooms.on_membership(room, user_id, membership, position, before)
            self._changes.add(position, room.room_id)
            self._notifier.mark_users((user_id,))
            for observe in self.observers:
                observe(room, event, before)

        await self._stream.submit(position, writes, publish)


def _kept(stripped_state: list[Any]) -> list[dict[str, Any]]:
    """What is kept of a room's stripped state: as much of it as fits."""
    kept: list[dict[str, Any]] = []
    size = 0
    for event in stripped_state[:MAX_STRIPPED_EVENTS]:
        stripped = strip(event)
        try:
            added = len(orjson.dumps(stripped))
        except TypeError:  # integers beyond 64 bits, which cannot be stored
            continue
        if size + added <= MAX_STRIPPED_BYTES:
            size += added
            kept.append(stripped)
    return kept


def server_behind(event: StoredEvent) -> str:
    """A server that was in the room when a member event was made: the inviter's, or the one that heard a knock."""
    unsigned = event.pdu.json.get("unsigned")
    via = unsigned.get(VIA) if isinstance(unsigned, dict) else None
    return via if isinstance(via, str) else get_domain(event.pdu.sender)


def strip(event: Any) -> dict[str, Any]:
    """A stripped state event of what another server sent as one, which may be a whole event.

    https://spec.matrix.org/v1.19/client-server-api/#stripped-state
    """
    if not isinstance(event, dict):
        return {}
    return {key: event[key] for key in STRIPPED_KEYS if key in event}


def is_stripped_event(event: Any) -> bool:
    """Whether an event tells what stripped state has to tell."""
    return (
        isinstance(event, dict)
        and isinstance(event.get("type"), str)
        and isinstance(event.get("state_key"), str)
        and isinstance(event.get("sender"), str)
        and isinstance(event.get("content"), dict)
    )

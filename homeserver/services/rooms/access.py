"""Who may see what of a room: the one place where reading and acting in rooms is granted.

Handlers and services reach rooms through the `access_*` methods here; each checks the right that it is named for and
raises Forbidden or NotFound, in words that tell nothing about rooms the user has no part in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from homeserver.services.account_data import AccountData
from homeserver.services.errors import Forbidden, NotFound
from homeserver.services.rooms.erasure import as_redacted, is_erased
from homeserver.services.rooms.event_cache import EventCache
from homeserver.services.rooms.registry import RoomRegistry
from homeserver.services.rooms.room import Room
from homeserver.services.rooms.summaries import KNOCKABLE, allowed_room_ids, join_rule_of
from homeserver.services.rooms.user_rooms import UserRooms
from matrix.history_visibility import Standing, is_event_visible, may_see_event, visibility_of
from matrix.identifiers import get_domain
from matrix.server_acl import is_server_allowed
from storage.events import EventKind, StoredEvent
from storage.snapshots import SnapshotRepository

HISTORY_VISIBILITY = ("m.room.history_visibility", "")
SERVER_ACL = ("m.room.server_acl", "")
NOT_IN_ROOM = "You are not in this room"
NOBODY: frozenset[str] = frozenset()
MAX_SERVER_MEMBERS = 20
"""Of how many members of another server it is looked at since when they are in a room."""


class Reader(NamedTuple):
    """A room that a user may read; a user who has left sees it as it was at `up_to`, None for as it is.

    Events of `ignored` users are kept from them, but for state events; what `erased` accounts wrote, they see redacted.
    """

    room: Room
    user_id: str
    up_to: int | None
    membership: str | None
    ignored: frozenset[str] = frozenset()
    erased: frozenset[str] = frozenset()


class Access:
    """Grants access to rooms and events."""

    def __init__(
        self,
        registry: RoomRegistry,
        events: EventCache,
        snapshots: SnapshotRepository,
        user_rooms: UserRooms,
        account_data: AccountData,
    ) -> None:
        self._registry = registry
        self._events = events
        self._snapshots = snapshots
        self._user_rooms = user_rooms
        self._account_data = account_data

    async def access_room(self, room_id: str) -> Room:
        """A room that is about to be judged by the authorisation rules themselves. Raises NotFound."""
        room = self._registry.known(room_id) or await self._registry.load(room_id)
        if room is None:
            raise NotFound("No such room")
        return room

    async def find_resident_room(self, room_id: str) -> Room | None:
        """A room that is this server's to decide about; else None."""
        room = self._registry.known(room_id) or await self._registry.load(room_id)
        return room if room is not None and room.is_resident else None

    async def access_joined_room(self, user_id: str, room_id: str) -> Room:
        """A room that the user is joined to. Raises Forbidden."""
        room = self._registry.known(room_id) or await self._registry.load(room_id)
        if room is None or room.tip_membership(user_id) != "join":
            raise Forbidden(NOT_IN_ROOM)
        return room

    async def access_readable_room(self, user_id: str, room_id: str) -> Reader:
        """A room that the user is in, was in and has not forgotten, or that the world may read. Raises Forbidden.

        https://spec.matrix.org/v1.19/client-server-api/#room-history-visibility
        """
        room = self._registry.known(room_id) or await self._registry.load(room_id)
        if room is None:
            raise Forbidden(NOT_IN_ROOM)
        ignored = await self._account_data.ignored_users(user_id)
        membership = room.membership(user_id)
        if membership == "join" or self.visibility(room) == "world_readable":
            return Reader(room, user_id, None, membership, ignored, await self.erased_for(room, user_id))
        if membership in ("leave", "ban") and not await self._is_forgotten(room_id, user_id):
            left = await self.left_at(room, user_id)
            if left is not None:
                return Reader(room, user_id, left, membership, ignored, await self.erased_for(room, user_id))
        raise Forbidden(NOT_IN_ROOM)

    async def access_previewable_room(self, user_id: str | None, room_id: str) -> Room:
        """A room that may be shown in a few words: to members and the invited, and to all who may join, knock or read.

        `user_id` is None for who asks without an account. Raises NotFound.
        https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1roomsroomidhierarchy
        """
        room = self._registry.known(room_id) or await self._registry.load(room_id)
        if room is None:
            raise NotFound("No such room")
        membership = None if user_id is None else room.membership(user_id)
        if membership in ("join", "invite") or self.visibility(room) == "world_readable":
            return room
        join_rule = join_rule_of(room)
        if membership != "ban" and (join_rule == "public" or join_rule in KNOCKABLE):
            return room
        if membership != "ban" and user_id is not None and join_rule == "restricted":
            rooms = await self._user_rooms.load(user_id)
            for allowed in allowed_room_ids(room):
                if (user_room := rooms.get(allowed)) is not None and user_room.membership == "join":
                    return room
        raise NotFound("No such room")

    async def is_member(self, user_id: str, room_id: str) -> bool:
        """Whether a user is joined to a room."""
        user_room = (await self._user_rooms.load(user_id)).get(room_id)
        return user_room is not None and user_room.membership == "join"

    async def access_room_previewable_by(self, server_name: str, room_id: str) -> Room:
        """The same for users of another server: a room that some of them are in, or may join, knock on or read.

        Raises NotFound. https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1hierarchyroomid
        """
        room = self._registry.known(room_id) or await self._registry.load(room_id)
        if room is None or not room.local_joined or not is_admitted(room, server_name):
            raise NotFound("No such room")
        join_rule = join_rule_of(room)
        if server_name in room.servers or self.visibility(room) == "world_readable":
            return room
        if join_rule == "public" or join_rule in KNOCKABLE:
            return room
        for allowed_id in allowed_room_ids(room):
            allowed = self._registry.known(allowed_id) or await self._registry.load(allowed_id)
            if allowed is not None and allowed.local_joined and server_name in allowed.servers:
                return room
        raise NotFound("No such room")

    async def access_event(self, user_id: str, room_id: str, event_id: str) -> StoredEvent:
        """An event that the user may see. Raises NotFound."""
        try:
            reader = await self.access_readable_room(user_id, room_id)
        except Forbidden:
            raise NotFound("No such event") from None
        event = await self._events.load_id(event_id)
        if event is None or event.room != reader.room.room or event.kind != EventKind.TIMELINE:
            raise NotFound("No such event")
        visible = await self.visible_events(reader, [event])
        if not visible:
            raise NotFound("No such event")
        return visible[0]

    async def state_positions(self, reader: Reader) -> dict[tuple[str, str], int]:
        """The state that the reader sees: (type, state_key) -> position."""
        if reader.up_to is None:
            return reader.room.state
        return await self.state_at(reader.room, (await self._event_at(reader.up_to)).snapshot)

    async def state_at(self, room: Room, snapshot: int) -> dict[tuple[str, str], int]:
        """The room's state in a snapshot: (type, state_key) -> position."""
        state = await self._snapshots.load(snapshot)
        return {key: state[number] for key, number in room.keys.items() if number in state}

    async def state_before(self, room: Room, event: StoredEvent) -> dict[tuple[str, str], int]:
        """The room's state before an event: (type, state_key) -> position. The state after the event must be known."""
        state = await self.state_at(room, event.snapshot)
        if event.pdu.state_key is not None and event.kind != EventKind.REJECTED:
            state.pop(event.pdu.state_key_pair, None)
            if event.replaces is not None:
                state[event.pdu.state_key_pair] = event.replaces
        return state

    def visibility(self, room: Room) -> str:
        """The room's history visibility as it is now."""
        event = room.pinned.get(HISTORY_VISIBILITY)
        return visibility_of(event.pdu.content if event is not None else None)

    def sees_everything(self, reader: Reader) -> bool:
        """Whether the room shows the reader its whole timeline, without looking at each event: nearly always so.

        Whom they ignore is another matter.
        """
        if reader.membership != "join":
            return False
        event = reader.room.pinned.get(HISTORY_VISIBILITY)
        if event is None:
            return True  # it was and is "shared"
        return event.replaces is None and visibility_of(event.pdu.content) in ("shared", "world_readable")

    async def visible_events(self, reader: Reader, events: Sequence[StoredEvent]) -> Sequence[StoredEvent]:
        """Those of a room's events that the reader may see, as they may see them, in the same order."""
        events = as_shown(reader, events)
        if self.sees_everything(reader):
            return events
        joined_at = await self._last_join(reader)
        standings: dict[int, Standing] = {}
        visible = []
        for event in events:
            if reader.up_to is not None and event.position > reader.up_to:
                continue
            after = standings.get(event.snapshot)
            if after is None:
                after = standings[event.snapshot] = await self._standing(reader, event.snapshot)
            before = after if event.pdu.state_key is None else await self._standing_before(reader, event, after)
            joined_since = event.position < joined_at
            if before is after:
                seen = is_event_visible(
                    visibility=after.visibility, membership=after.membership, joined_since=joined_since
                )
            else:
                seen = may_see_event(
                    event.pdu.json, reader.user_id, before=before, after=after, joined_since=joined_since
                )
            if seen:
                visible.append(event)
        return visible

    async def _standing(self, reader: Reader, snapshot: int) -> Standing:
        room = reader.room
        member_key = ("m.room.member", reader.user_id)
        numbers = {key: room.keys[key] for key in (HISTORY_VISIBILITY, member_key) if key in room.keys}
        positions = await self._snapshots.load_keys(snapshot, list(numbers.values()))
        events = await self._events.load(positions.values())

        def content(key: tuple[str, str]) -> dict[str, object] | None:
            position = positions.get(numbers.get(key, -1))
            return None if position is None else events[position].pdu.content

        member = content(member_key)
        membership = None if member is None else member.get("membership")
        return Standing(visibility_of(content(HISTORY_VISIBILITY)), membership if isinstance(membership, str) else None)

    async def _standing_before(self, reader: Reader, event: StoredEvent, after: Standing) -> Standing:
        """The standing in the state before a state event: what it replaced, where it is of a kind that matters."""
        key = event.pdu.state_key_pair
        if key not in (HISTORY_VISIBILITY, ("m.room.member", reader.user_id)):
            return after
        replaced = None
        if event.replaces is not None:
            replaced = (await self._events.load([event.replaces]))[event.replaces].pdu.content
        if key == HISTORY_VISIBILITY:
            return Standing(visibility_of(replaced), after.membership)
        membership = None if replaced is None else replaced.get("membership")
        return Standing(after.visibility, membership if isinstance(membership, str) else None)

    async def _last_join(self, reader: Reader) -> float:
        """The position after which the user did not join again: every event before it has a later join."""
        if reader.membership == "join":
            return float("inf")
        position = reader.room.state.get(("m.room.member", reader.user_id))
        while position is not None:
            event = await self._event_at(position)
            if event.pdu.content.get("membership") == "join":
                return position
            position = event.replaces
        return 0

    async def left_at(self, room: Room, user_id: str) -> int | None:
        """Where a user who was once joined left the room; None for one who only declined or was banned from outside."""
        position = room.state.get(("m.room.member", user_id))
        left = None
        while position is not None:
            event = await self._event_at(position)
            if event.pdu.content.get("membership") == "join":
                return left
            left = position
            position = event.replaces
        return None

    async def erased_for(self, room: Room, user_id: str) -> frozenset[str]:
        """The accounts that were erased before a user came into the room, with which they have nothing in common."""
        if not room.erased:
            return NOBODY
        position, since = room.state.get(("m.room.member", user_id)), float("inf")
        while position is not None:  # back to where the last stay began, over leaving and changes of the profile
            event = await self._event_at(position)
            if event.pdu.content.get("membership") == "join":
                since = position
            elif since < float("inf"):
                break
            position = event.replaces
        return room.erased_before(since)

    async def erased_for_server(self, room: Room, server_name: str) -> frozenset[str]:
        """The accounts that were erased before anybody of another server came into the room: all, for one that left.

        https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3accountdeactivate
        """
        if not room.erased:
            return NOBODY
        domain = ":" + server_name
        there = sorted(
            (room.state[key], key[1])
            for user_id, membership in room.members.items()
            if membership == "join" and user_id.endswith(domain) and (key := ("m.room.member", user_id)) in room.state
        )
        erased = frozenset(room.erased)
        for _, user_id in there[:MAX_SERVER_MEMBERS]:  # those first whose last change is the longest ago
            if get_domain(user_id) == server_name:
                erased &= await self.erased_for(room, user_id)
            if not erased:
                break
        return erased

    async def _is_forgotten(self, room_id: str, user_id: str) -> bool:
        user_room = (await self._user_rooms.load(user_id)).get(room_id)
        return user_room is not None and user_room.forgotten

    async def _event_at(self, position: int) -> StoredEvent:
        return (await self._events.load([position]))[position]


def as_shown(reader: Reader, events: Sequence[StoredEvent]) -> Sequence[StoredEvent]:
    """Events without those that the reader ignores, and without what erased accounts said in them.

    Where there is nothing of that kind it is the very same object, as nearly always.
    https://spec.matrix.org/v1.19/client-server-api/#ignoring-users
    """
    if reader.ignored:
        kept = [e for e in events if e.pdu.state_key is not None or e.pdu.sender not in reader.ignored]
        events = kept if len(kept) < len(events) else events
    if reader.erased and any(is_erased(event, reader.erased) for event in events):
        return [as_redacted(event) if is_erased(event, reader.erased) else event for event in events]
    return events


def is_admitted(room: Room, server_name: str) -> bool:
    """Whether the room's access control list lets a server in."""
    event = room.pinned.get(SERVER_ACL)
    content: Mapping[str, Any] | None = None if event is None else event.pdu.content
    return is_server_allowed(server_name, content)

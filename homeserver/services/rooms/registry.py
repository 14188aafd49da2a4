"""The rooms in memory: loaded when first asked for, the least recently used dropped when there are too many."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable

from homeserver.metrics import Metrics
from homeserver.services.rooms.event_cache import EventCache
from homeserver.services.rooms.room import Extremity, Room
from matrix.room_versions import ROOM_VERSIONS, RoomVersion
from storage.events import EventRepository
from storage.rooms import RoomRepository
from storage.snapshots import SnapshotRepository


class RoomRegistry:
    """Finds and loads rooms. A room that has events under way is never dropped, so there is one object per room."""

    def __init__(
        self,
        rooms: RoomRepository,
        events: EventRepository,
        snapshots: SnapshotRepository,
        cache: EventCache,
        metrics: Metrics,
        *,
        server_name: str,
        max_rooms: int,
        load_counting: Callable[[Room], Awaitable[None]],
    ) -> None:
        self._load_counting = load_counting
        self._rooms = rooms
        self._events = events
        self._snapshots = snapshots
        self._cache = cache
        self._server_name = server_name
        self._max_rooms = max_rooms
        self._by_id: OrderedDict[str, Room] = OrderedDict()
        self._loading: dict[str, asyncio.Task[Room | None]] = {}
        self._figures = metrics.cache("rooms", lambda: len(self._by_id))
        self._last_room = 0
        self._erasures = 0

    async def open(self) -> None:
        """Finds out which room numbers are taken."""
        self._last_room = await self._rooms.load_last_room()

    def known(self, room_id: str) -> Room | None:
        """The room, if it is in memory and usable."""
        room = self._by_id.get(room_id)
        if room is None:
            return None
        if room.stale:
            if not room.pending:
                del self._by_id[room_id]
            return None
        self._by_id.move_to_end(room_id)
        self._figures.hits += 1
        return room

    def peek(self, room_id: str) -> Room | None:
        """The room, if it is in memory, for a look that is no use of it."""
        return self._by_id.get(room_id)

    def in_memory(self) -> Iterable[Room]:
        """All rooms in memory."""
        return self._by_id.values()

    def erase(self, user_id: str, position: int) -> None:
        """Tells the rooms in memory that an account was erased at a position."""
        self._erasures += 1
        for room in self._by_id.values():
            if user_id in room.members:
                room.erased[user_id] = position

    async def load(self, room_id: str) -> Room | None:
        """The room, from memory or from the database; None if this server does not know it."""
        if (room := self.known(room_id)) is not None:
            return room
        if "\0" in room_id:  # which PostgreSQL would not even look for
            return None
        task = self._loading.get(room_id)
        if task is None:
            self._figures.misses += 1
            task = self._loading[room_id] = asyncio.create_task(self._load(room_id), name=f"load {room_id}")
            task.add_done_callback(lambda _: self._loading.pop(room_id, None))
        return await asyncio.shield(task)

    def new(self, room_id: str, version: RoomVersion) -> Room:
        """A room that is being made here; `add` it once its events are durable."""
        self._last_room += 1
        return Room(self._last_room, room_id, version, self._server_name)

    def stub(self, room: int, room_id: str, version: RoomVersion) -> Room:
        """A room of which nothing is known but its number and name; `add` it once there is more."""
        return Room(room, room_id, version, self._server_name)

    def add(self, room: Room) -> None:
        """Keeps a room in memory."""
        self._by_id[room.room_id] = room
        if len(self._by_id) > self._max_rooms:
            for room_id, old in self._by_id.items():
                if not (old.pending or old.typing or old.partial or old is room):
                    old.stale = True  # whoever holds it still must not build on it
                    del self._by_id[room_id]
                    break

    async def _load(self, room_id: str) -> Room | None:
        row = await self._rooms.load_room(room_id)
        if row is None:
            return None
        last = await self._events.load_last(row.room)
        if last is None:
            return None
        last = self._cache.add(last)
        room = Room(row.room, row.room_id, ROOM_VERSIONS[row.version], self._server_name)
        room.keys, room.resolved = await self._rooms.load_state_keys(row.room)
        room.aliases = set(await self._rooms.load_aliases_of_room(row.room))
        state = await self._snapshots.load(last.room_snapshot or last.snapshot)
        room.state = {key: state[number] for key, number in room.keys.items() if number in state}
        for member in await self._rooms.load_memberships_of_room(row.room):
            room.publish_membership(member.user_id, member.membership)
        pinned = {key: position for key, position in room.state.items() if key[0] != "m.room.member"}
        loaded = await self._cache.load(pinned.values())
        for key, position in pinned.items():
            room.pin(key, loaded[position])
        room.completed_position = row.completed_position
        room.lacking = list(row.lacking)
        room.entered_depth = row.entered_depth
        if row.partial_servers is not None:
            room.lack_members(row.partial_ground, row.partial_servers)
            room.asked_members = None
        room.last_position = room.changed_position = room.timeline_after = last.position
        room.notify_count, room.highlight_count = last.notify_count, last.highlight_count
        extremities = [last]
        if last.extremities is not None:
            extremities = list((await self._cache.load(last.extremities)).values())
        room.tip.extremities = [Extremity.of(event) for event in extremities]
        room.tip.depth = max(event.pdu.depth for event in extremities)
        room.tip.snapshot = last.room_snapshot or last.snapshot
        room.tip.notify_count, room.tip.highlight_count = last.notify_count, last.highlight_count
        room.tip.joined_count = room.joined_count
        while True:
            erasures = self._erasures
            room.erased = await self._rooms.load_erased_members(room.room)
            await self._load_counting(room)  # last, as what it knows of push rules must hold when others see the room
            if erasures == self._erasures:  # nobody was erased meanwhile, whom the rows might lack
                break
        self.add(room)
        return room

"""Which rooms a user is in, was in, or is invited to: what every /sync starts from."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass

from homeserver.metrics import Metrics
from homeserver.services.rooms.room import Room
from storage.events import StoredEvent
from storage.rooms import RoomRepository


@dataclass(slots=True)
class UserRoom:
    """A user's membership in a room, and the position of the event that made it so."""

    room: int
    room_id: str
    membership: str
    position: int
    forgotten: bool = False


class UserRooms:
    """A bounded cache of users' memberships, kept up to date by what is published."""

    def __init__(self, repository: RoomRepository, metrics: Metrics, *, max_users: int) -> None:
        self._repository = repository
        self._max_users = max_users
        self._users: OrderedDict[str, dict[str, UserRoom]] = OrderedDict()
        self._loading: dict[str, asyncio.Task[dict[str, UserRoom]]] = {}
        self._meanwhile: dict[str, list[UserRoom]] = {}
        self._figures = metrics.cache("user_rooms", lambda: len(self._users))

    def known(self, user_id: str) -> dict[str, UserRoom] | None:
        """The user's rooms by room ID, if they are in memory."""
        rooms = self._users.get(user_id)
        if rooms is not None:
            self._users.move_to_end(user_id)
            self._figures.hits += 1
        return rooms

    async def load(self, user_id: str) -> dict[str, UserRoom]:
        """The user's rooms by room ID. The mapping lives on: it changes as memberships do."""
        rooms = self.known(user_id)
        if rooms is not None:
            return rooms
        task = self._loading.get(user_id)
        if task is None:
            self._figures.misses += 1
            task = self._loading[user_id] = asyncio.create_task(self._load(user_id), name=f"rooms of {user_id}")
            task.add_done_callback(lambda _: self._loading.pop(user_id, None))
        return await asyncio.shield(task)

    async def _load(self, user_id: str) -> dict[str, UserRoom]:
        meanwhile = self._meanwhile[user_id] = []
        try:
            rows = await self._repository.load_memberships_of_user(user_id)
        finally:
            del self._meanwhile[user_id]
        rooms = {
            room_id: UserRoom(row.room, room_id, row.membership, row.position, row.forgotten) for row, room_id in rows
        }
        for changed in meanwhile:
            rooms[changed.room_id] = changed
        self._users[user_id] = rooms
        if len(self._users) > self._max_users:
            self._users.popitem(last=False)
        return rooms

    def on_event(self, room: Room, event: StoredEvent, before: str | None) -> None:
        """Takes in a published event (a `PublishObserver`)."""
        if event.pdu.type != "m.room.member" or event.pdu.state_key is None:
            return
        user_id = event.pdu.state_key
        self.on_membership(room, user_id, room.membership(user_id), event.position, before)

    def on_membership(
        self, room: Room, user_id: str, membership: str | None, position: int, before: str | None
    ) -> None:
        """Takes in what a membership has become (a `MembershipObserver`)."""
        if membership is None or membership == before:
            return
        changed = UserRoom(room.room, room.room_id, membership, position)
        if user_id in self._meanwhile:
            self._meanwhile[user_id].append(changed)
        elif (rooms := self._users.get(user_id)) is not None:
            rooms[room.room_id] = changed

    async def forget(self, user_id: str, room_id: str) -> None:
        """Marks a room that the user has left as forgotten."""
        rooms = await self.load(user_id)
        if (user_room := rooms.get(room_id)) is not None:
            await self._repository.forget(user_id, user_room.room)
            user_room.forgotten = True

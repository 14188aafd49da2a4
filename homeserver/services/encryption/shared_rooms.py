"""Who shares rooms with whom, now and at an earlier position.

https://spec.matrix.org/v1.19/client-server-api/#tracking-the-device-list-for-a-user

Who joins a room or leaves one is noted in a ring of *moves*. What is not in the ring has not changed since: a
membership at a position is the opposite of what the first move after it made it, and else what it is now.

Two users share a room when both have joined it, encrypted or not: whoever is told that others have come is told when
they are gone by the same measure, and a room that becomes encrypted changes nothing.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from homeserver.services.rooms.registry import RoomRegistry
from homeserver.services.rooms.room import Room
from homeserver.services.rooms.user_rooms import UserRooms
from storage.device_lists import DeviceListRepository
from storage.events import StoredEvent

MAX_MOVES = 20_000
"""How many of the newest moves are kept; up to twice as many before the older half is dropped."""

Pair = tuple[str, str]
"""(room ID, user ID)"""


class Move(NamedTuple):
    """A user has joined a room, or is no longer joined to it."""

    room_id: str
    user_id: str
    joined: bool


def before(moves: Iterable[Move]) -> dict[Pair, bool]:
    """Of those who have moved, whether they were in the room before their first move."""
    found: dict[Pair, bool] = {}
    for move in moves:
        found.setdefault((move.room_id, move.user_id), not move.joined)
    return found


class SharedRooms:
    """Keeps the ring of moves, and compares. `last_position` is that of the newest move, or where the ring begins."""

    def __init__(
        self, repository: DeviceListRepository, registry: RoomRegistry, user_rooms: UserRooms, *, start: int
    ) -> None:
        self._repository = repository
        self._registry = registry
        self._user_rooms = user_rooms
        self._positions: list[int] = []
        self._moves: list[Move] = []
        self._complete_after = start
        self.last_position = start

    def on_event(self, room: Room, event: StoredEvent, before: str | None) -> None:
        """Notes who comes and goes (a `PublishObserver`)."""
        if event.pdu.type != "m.room.member" or event.pdu.state_key is None:
            return
        user_id = event.pdu.state_key
        self.on_membership(room, user_id, room.membership(user_id), event.position, before)

    def on_membership(
        self, room: Room, user_id: str, membership: str | None, position: int, before: str | None
    ) -> None:
        """The same for a membership that another event has changed (a `MembershipObserver`)."""
        joined = membership == "join"
        if joined == (before == "join"):
            return
        self._positions.append(position)
        self._moves.append(Move(room.room_id, user_id, joined))
        self.last_position = position
        if len(self._positions) >= 2 * MAX_MOVES:
            self._complete_after = self._positions[MAX_MOVES - 1]
            del self._positions[:MAX_MOVES]
            del self._moves[:MAX_MOVES]

    async def sharing(self, user_id: str, others: Collection[str], *, at: int) -> set[str]:
        """Those of `others` who shared a room with a user at a position of which the ring still knows."""
        if not others:
            return set()
        then = before(self._since(at))
        return await self._sharing(await self._rooms(user_id, then), others, then, at)

    async def moves(self, user_id: str, since: int, now: int) -> tuple[set[str], set[str]]:
        """Who shares a room with the user at `now` and did not at `since`, and the other way round.

        For a `since` that is older than the ring there may be some among them with whom they have always shared one
        (and who left one of several and came back), or never did.
        """
        if self.last_position <= since:
            return set(), set()
        if since < self._complete_after:
            gone = await self._repository.load_gone(user_id, since)
            return await self._repository.load_come(user_id, since), gone - await self.sharing(user_id, gone, at=now)
        then, later = before(self._since(since)), before(self._since(now))
        rooms_then, rooms_now = await self._rooms(user_id, then), await self._rooms(user_id, later)
        come, gone = set(), set()
        for (room_id, other), was_joined in then.items():
            if room_id in rooms_then and was_joined:
                gone.add(other)
            if room_id in rooms_now:
                come.add(other)
        for room_id in rooms_now.keys() - rooms_then.keys():
            come |= await self._members(room_id, later)
        for room_id in rooms_then.keys() - rooms_now.keys():
            gone |= await self._members(room_id, then)
        if not come and not gone:
            return come, gone
        everyone = (come | gone) - {user_id}
        shared_then = await self._sharing(rooms_then, everyone, then, since)
        shared_now = await self._sharing(rooms_now, everyone, later, now)
        return shared_now - shared_then, shared_then - shared_now

    def _since(self, position: int) -> list[Move]:
        return self._moves[bisect_right(self._positions, position) :]

    async def _rooms(self, user_id: str, then: Mapping[Pair, bool]) -> dict[str, int]:
        """The rooms (ID -> number) that the user was in, `then` being what has changed since."""
        return {
            room.room_id: room.room
            for room in (await self._user_rooms.load(user_id)).values()
            if then.get((room.room_id, user_id), room.membership == "join")
        }

    async def _members(self, room_id: str, then: Mapping[Pair, bool]) -> set[str]:
        """Who was in a room."""
        room = self._registry.known(room_id) or await self._registry.load(room_id)
        members = {} if room is None else room.members
        found = {user_id for user_id, membership in members.items() if membership == "join"}
        for (moved_in, user_id), was_joined in then.items():
            if moved_in == room_id:
                (found.add if was_joined else found.discard)(user_id)
        return found

    async def _sharing(
        self, rooms: Mapping[str, int], others: Collection[str], then: Mapping[Pair, bool], at: int
    ) -> set[str]:
        """Those of `others` who were in one of the rooms. Rooms that are not in memory are asked for at once, last."""
        found: set[str] = set()
        left = set(others)
        cold: dict[str, int] = {}
        for room_id, number in rooms.items():
            if not left:
                break
            room = self._registry.peek(room_id)
            if room is None:
                cold[room_id] = number
                continue
            members = room.members
            here = {other for other in left if then.get((room_id, other), members.get(other) == "join")}
            found |= here
            left -= here
        if left and cold:
            stored = await self._repository.load_in_rooms(list(cold.values()), left, up_to=at)
            stored |= {pair for pair, was_joined in then.items() if was_joined and pair[0] in cold}
            found |= {other for _, other in stored if other in left}
        return found

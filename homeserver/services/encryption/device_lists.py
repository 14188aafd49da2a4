"""Device lists: telling those who share rooms with a user that the user's devices or their keys have changed.

https://spec.matrix.org/v1.19/client-server-api/#tracking-the-device-list-for-a-user

1. A change is made in a transaction of its own, which marks the user's list as pending.
2. `announce` gives it a position and wakes those whom it concerns: per room, not per member.
3. What other processes change, and what was not announced when the server died, is found by its mark.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any
from weakref import WeakValueDictionary

from homeserver.logs import get_logger
from homeserver.services.changes import Changes
from homeserver.services.encryption.remote import RemoteLists
from homeserver.services.encryption.shared_rooms import SharedRooms
from homeserver.services.errors import MatrixError
from homeserver.services.notifier import Notifier
from homeserver.services.rooms.registry import RoomRegistry
from homeserver.services.rooms.room import Room
from homeserver.services.rooms.user_rooms import UserRoom, UserRooms
from homeserver.services.stream import Stream
from storage.database import CONNECTION_ERRORS
from storage.device_lists import DeviceListRepository, DeviceListRow, SignatureRow
from storage.stream import Writes

log = get_logger(__name__)

LOOK_AFTER_S = 1.0
"""What is pending for longer than this is announced by nobody else; also the time before trying again."""

ChangeObserver = Callable[[str, int], None]
"""Called with a user and the position of a change of their device list, once it is published."""


class DeviceLists:
    """Announces changes, and tells of them. `last_position` is that of the newest, or where the server started."""

    def __init__(
        self,
        repository: DeviceListRepository,
        shared_rooms: SharedRooms,
        registry: RoomRegistry,
        user_rooms: UserRooms,
        stream: Stream,
        notifier: Notifier,
    ) -> None:
        self._repository = repository
        self._shared_rooms = shared_rooms
        self._registry = registry
        self._user_rooms = user_rooms
        self._stream = stream
        self._notifier = notifier
        self._recent = Changes()
        self._recent.start(stream.current)
        self._signed = Changes()  # "signer NUL signed": of such a change only the signer is told
        self._signed.start(stream.current)
        self._wanted = asyncio.Event()
        self._wanted.set()
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self.remote: RemoteLists[Any] | None = None
        self.observers: list[ChangeObserver] = []
        self.last_position = stream.current

    def may_have_changed(self, since: int) -> bool:
        """Whether anything that `changes` tells can have happened after a position, for anybody."""
        return self.last_position > since or self._shared_rooms.last_position > since

    async def changes(self, user_id: str, since: int, now: int) -> tuple[list[str], list[str]]:
        """Whose keys a user has to look up again, and who is no longer of interest, sorted.

        The user's own changes are among them. https://spec.matrix.org/v1.19/client-server-api/#e2e-extensions-to-sync
        """
        recent, signed = self._recent.since(since), self._signed.since(since)
        if recent is None or signed is None:
            changed = await self._repository.load_changed(user_id, since)
        else:
            changed = await self._shared_rooms.sharing(user_id, recent - {user_id}, at=now)
            changed |= recent & {user_id}
            changed |= {target for signer, _, target in (pair.partition("\0") for pair in signed) if signer == user_id}
        come, gone = await self._shared_rooms.moves(user_id, since, now)
        return sorted(changed | come), sorted(gone)

    async def announce(self, user_id: str) -> None:
        """Gives a change, which is durable and pending, its position: returns when those it concerns are woken.

        When that cannot be done now it is done later.
        """
        try:
            await self._announce(user_id, ())
        except MatrixError:
            self.look_again()
        except BaseException:
            self.look_again()
            raise

    async def announce_remote(self, user_id: str) -> None:
        """Tells those who share rooms with another server's user to look up their keys again. Raises Overloaded."""
        await self._announce(user_id, ())

    async def introduce(self, user_id: str, room: Room) -> None:
        """Has the servers that a user meets in a room, which they have joined, look up the user's devices.

        "... when that user joins a room which contains servers which are not already receiving updates for that user's
        device list": https://spec.matrix.org/v1.19/server-server-api/#device-management.
        """
        rooms = await self._user_rooms.load(user_id)
        joined = rooms.get(room.room_id)
        if self.remote is None or joined is None or not room.is_shared:
            return
        met = await self.remote.servers(user_id, {room.room_id: joined})
        met -= await self.remote.servers(user_id, {name: one for name, one in rooms.items() if one is not joined})
        content = await self.remote.load_introduction(user_id) if met else None
        if content is None:
            return
        writes, remote = Writes(), self.remote
        position = self._stream.next_position()
        remote.introduce(writes, position, content, met)
        with suppress(MatrixError):  # they have joined, whoever cannot be told of it
            await self._stream.submit(position, writes, lambda: remote.publish(writes))

    async def load_position(self, user_id: str) -> int:
        """When a user's list changed last; 0 for never."""
        return await self._repository.load_position(user_id)

    async def announce_pending(self, user_id: str) -> None:
        """The same where a change of the user's devices may be pending, or not."""
        if await self._repository.is_pending(user_id):
            await self.announce(user_id)

    async def announce_signatures(self, signer: str, signatures: Sequence[SignatureRow]) -> None:
        """Makes signatures (whose positions are still to be taken) durable, and tells whom they concern.

        Signatures of one's own keys change one's device list; of those of others only the signer is told.
        """
        await self._announce(signer, signatures)

    async def _announce(self, user_id: str, signatures: Sequence[SignatureRow]) -> None:
        is_own = not signatures or any(row.user_id == user_id for row in signatures)
        rooms = await self._user_rooms.load(user_id) if is_own else {}
        servers = await self.remote.servers(user_id, rooms) if self.remote is not None else set()
        if not servers:
            await self._submit(user_id, signatures, rooms, servers)
            return
        if signatures:  # other servers are told what is durable
            await self._submit(user_id, signatures, rooms, set())
        lock = self._locks.setdefault(user_id, asyncio.Lock())
        async with lock:  # what is told next builds on what was told last
            await self._submit(user_id, (), rooms, servers)

    async def _submit(
        self, user_id: str, signatures: Sequence[SignatureRow], rooms: dict[str, UserRoom], servers: set[str]
    ) -> None:
        """Takes positions for changes of a user's own list (in `rooms`), or of signatures alone; tells `servers`."""
        is_own = not signatures or any(row.user_id == user_id for row in signatures)
        remote = self.remote if servers else None
        cold = await self._members_of_cold_rooms(rooms)
        news = await remote.load(user_id, servers) if remote is not None else None
        writes = Writes()
        next_position = self._stream.next_position
        position = next_position() if remote is None else remote.add(writes, news, next_position)
        writes.signatures += [row._replace(position=position) for row in signatures]
        if is_own:
            writes.device_lists.append(DeviceListRow(user_id, position))
        others = {row.user_id for row in signatures} - {user_id}

        def publish() -> None:
            for other in others:
                self._signed.add(position, f"{user_id}\0{other}")
            self.last_position = position
            if remote is not None:
                remote.publish(writes)
            self._notifier.mark_users((user_id,))
            if is_own:
                self._publish(user_id, position, rooms, cold)

        await self._stream.submit(position, writes, publish)

    def _publish(self, user_id: str, position: int, rooms: dict[str, UserRoom], cold: set[str]) -> None:
        self._recent.add(position, user_id)
        for user_room in rooms.values():
            if user_room.membership == "join" and (room := self._registry.peek(user_room.room_id)) is not None:
                self._notifier.mark_members(room.local_joined)
        self._notifier.mark_users(cold)
        for observer in self.observers:
            observer(user_id, position)

    async def _members_of_cold_rooms(self, rooms: dict[str, UserRoom]) -> set[str]:
        """Who is in those of the rooms that are not in memory, if anybody waits at all."""
        cold = [
            user_room.room
            for user_room in rooms.values()
            if user_room.membership == "join" and self._registry.peek(user_room.room_id) is None
        ]
        if not cold or not self._notifier.waiting_users:
            return set()
        return await self._repository.load_members(cold)

    def look_again(self) -> None:
        """Has pending changes looked for: there may be some that nobody else announces."""
        self._wanted.set()

    async def announce_forever(self) -> None:
        """Announces what is pending for a while, until cancelled."""
        while True:
            await self._wanted.wait()
            await asyncio.sleep(LOOK_AFTER_S)
            self._wanted.clear()
            try:
                for user_id in await self._repository.load_pending():
                    await self.announce(user_id)
            except CONNECTION_ERRORS as error:
                log.warning("device lists are not announced, trying again", error=repr(error))
                self._wanted.set()

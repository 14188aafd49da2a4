"""Receipts and read markers, and the unread counts that depend on them.

https://spec.matrix.org/v1.19/client-server-api/#receipts
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any
from weakref import WeakValueDictionary

from homeserver.clock import Clock
from homeserver.services.account_data import AccountData
from homeserver.services.changes import Changes
from homeserver.services.errors import InvalidParam, NotFound
from homeserver.services.notifier import Notifier
from homeserver.services.rooms.access import Access
from homeserver.services.rooms.event_cache import EventCache
from homeserver.services.rooms.room import Room
from homeserver.services.rooms.unread import UnreadCounts
from homeserver.services.rooms.user_rooms import UserRooms
from homeserver.services.stream import Stream
from homeserver.services.unread import MAIN_THREAD, ReadUpTo, UnreadCounting
from matrix.identifiers import is_event_id
from storage.events import EventKind, StoredEvent
from storage.stream import Writes
from storage.user_data import ReceiptRow, UserDataRepository

READ, READ_PRIVATE, FULLY_READ = "m.read", "m.read.private", "m.fully_read"
RECEIPT_TYPES = (READ, READ_PRIVATE, FULLY_READ)

ReceiptObserver = Callable[[Room, ReceiptRow], None]
"""Called for each receipt that is published."""


class Receipts:
    """Moves receipts forward, and tells members' unread counts. `observers` are told of each receipt."""

    def __init__(
        self,
        repository: UserDataRepository,
        access: Access,
        events: EventCache,
        user_rooms: UserRooms,
        account_data: AccountData,
        stream: Stream,
        notifier: Notifier,
        changes: Changes,
        clock: Clock,
        counting: UnreadCounting,
    ) -> None:
        self._repository = repository
        self._access = access
        self._events = events
        self._user_rooms = user_rooms
        self._account_data = account_data
        self._stream = stream
        self._notifier = notifier
        self._changes = changes
        self._clock = clock
        self._counting = counting
        self._loading: dict[int, asyncio.Task[None]] = {}
        self._locks: WeakValueDictionary[tuple[int, str], asyncio.Lock] = WeakValueDictionary()
        self.on_read: Callable[[str, str], None] = lambda _user_id, _room_id: None
        self.observers: list[ReceiptObserver] = []

    async def set_markers(
        self, user_id: str, room_id: str, markers: dict[str, str], *, thread_id: str | None = None
    ) -> None:
        """Sets receipts and the fully-read marker: {type: event ID}. Raises Forbidden, NotFound, InvalidParam.

        A receipt moves forward only; an older event is accepted and changes nothing.
        """
        room = await self._access.access_joined_room(user_id, room_id)
        if thread_id is not None and thread_id != MAIN_THREAD and not is_event_id(thread_id):
            raise InvalidParam("thread_id must be main or an event ID")
        events = await self._events.load_ids(markers.values())
        for event_id in markers.values():
            event = events.get(event_id)
            if event is None or event.room != room.room or event.kind != EventKind.TIMELINE:
                raise NotFound("No such event in this room")
            if thread_id is not None and not _is_in_thread(event, thread_id):
                raise InvalidParam("The event is not in this thread")
        for type, event_id in markers.items():
            if type == FULLY_READ:
                content = {"event_id": event_id}
                await self._account_data.put_unchecked(user_id, room.room, FULLY_READ, content)
            else:
                await self._move(room, user_id, type, thread_id or "", events[event_id])

    async def set_remote(self, room: Room, user_id: str, event_id: str, *, thread_id: str | None, ts: int) -> None:
        """Takes in what a member on another server has read, and when (ms); what is no receipt changes nothing."""
        if thread_id is not None and thread_id != MAIN_THREAD and not is_event_id(thread_id):
            return
        event = (await self._events.load_ids([event_id])).get(event_id)
        if event is None or event.room != room.room or event.kind != EventKind.TIMELINE:
            return
        if thread_id is None or _is_in_thread(event, thread_id):
            await self._move(room, user_id, READ, thread_id or "", event, max(0, min(ts, self._clock())))

    async def _move(
        self, room: Room, user_id: str, type: str, thread_id: str, event: StoredEvent, ts: int | None = None
    ) -> None:
        lock = self._locks.setdefault((room.room, user_id), asyncio.Lock())
        async with lock:  # what is being written counts too: of receipts at once the newest is to stay
            receipts = await self.load(room)
            while room.stale:  # it was dropped from memory meanwhile, and may be there anew
                room = await self._access.access_joined_room(user_id, room.room_id)
                receipts = await self.load(room)
            current = receipts.get((user_id, type, thread_id))
            if current is None or current.event_position < event.position:
                await self._write(room, user_id, type, thread_id, event, self._clock() if ts is None else ts)

    async def _write(self, room: Room, user_id: str, type: str, thread_id: str, event: StoredEvent, ts: int) -> None:
        position = self._stream.next_position()
        row = ReceiptRow(
            room.room,
            user_id,
            type,
            thread_id,
            position,
            event.event_id,
            event.position,
            ts,
            event.notify_count,
            event.highlight_count,
        )
        writes = Writes()
        writes.receipts.append(row)
        room.pending += 1
        await self._stream.submit(position, writes, lambda: self._publish(room, row), lambda: self._undo(room))

    def _undo(self, room: Room) -> None:
        room.pending -= 1

    def _publish(self, room: Room, row: ReceiptRow) -> None:
        room.pending -= 1
        if room.receipts is not None:
            _keep(room, room.receipts, row)
        room.receipts_position = room.changed_position = row.position
        self._changes.add(row.position, room.room_id)
        self._move_counts(room, row)
        self.on_read(row.user_id, room.room_id)
        self._notifier.mark_members((row.user_id,) if row.type == READ_PRIVATE else room.local_joined)
        for observer in self.observers:
            observer(room, row)

    def _move_counts(self, room: Room, row: ReceiptRow) -> None:
        """Lets a receipt move its user's counts: at once if it is for the room's end, else they are counted anew."""
        counts = room.unread.pop(row.user_id, None)
        if counts is None or row.event_position < room.last_position:
            return
        if not counts.follow(room.threads, row.user_id, room.last_position):
            return
        running = (room.notify_count, room.highlight_count)
        match row.thread_id:
            case "":
                position, ignored = room.last_position, counts.ignored
                counts = UnreadCounts(running, is_own=counts.is_own, position=position, ignored=ignored)
            case "main":
                counts.read_main(running)
            case thread:
                counts.read_thread(thread)
        room.unread[row.user_id] = counts

    async def load(self, room: Room) -> dict[tuple[str, str, str], ReceiptRow]:
        """A room's receipts, the oldest first: (user, type, thread) -> row. Read once, then kept up to date."""
        while room.receipts is None:
            task = self._loading.get(room.room)
            if task is None:
                task = self._loading[room.room] = asyncio.create_task(self._load(room))
                task.add_done_callback(lambda _: self._loading.pop(room.room, None))
            await asyncio.shield(task)
        return room.receipts

    async def _load(self, room: Room) -> None:
        while True:
            before = room.receipts_position
            rows = await self._repository.load_receipts(room.room)
            if before == room.receipts_position:  # none was published meanwhile, which the rows might lack
                break
        room.receipts = {}
        for row in rows:
            _keep(room, room.receipts, row)
        if rows:
            room.receipts_position = max(room.receipts_position, rows[-1].position)

    async def ephemeral(self, room: Room, user_id: str, after: int, up_to: int) -> list[dict[str, Any]]:
        """The m.receipt events for one reader, of the receipts that changed in after < p <= up_to.

        It is one event as a rule; a user who has receipts in several threads for one event needs an event for each.
        """
        receipts = await self.load(room)
        if room.receipts_position <= after or not receipts:
            return []
        contents: list[dict[str, dict[str, dict[str, dict[str, Any]]]]] = []
        for row in reversed(receipts.values()):
            if row.position <= after:
                break  # all that follow are older
            if row.position > up_to or (row.type == READ_PRIVATE and row.user_id != user_id):
                continue
            shown: dict[str, Any] = {"ts": row.ts}
            if row.thread_id:
                shown["thread_id"] = row.thread_id
            for content in contents:
                readers = content.setdefault(row.event_id, {}).setdefault(row.type, {})
                if row.user_id not in readers:
                    readers[row.user_id] = shown
                    break
            else:
                contents.append({row.event_id: {row.type: {row.user_id: shown}}})
        return [{"type": "m.receipt", "content": content} for content in contents]

    async def unread(self, room: Room, user_id: str) -> UnreadCounts:
        """What a joined member's counts are made of. From memory, once they have been counted."""
        while True:
            counts = room.unread.get(user_id)
            if counts is not None:
                return counts
            seen = room.changed_position
            counts = await self._count(room, user_id, room.last_position)
            if seen == room.changed_position:  # nothing was published meanwhile
                room.unread[user_id] = counts
                if counts.ignored:
                    room.ignoring.add(user_id)
                return counts

    def forget_counts(self, user_id: str, rooms: Iterable[Room], position: int) -> None:
        """Has a user's counts in these rooms counted anew: at a position what counts for them has changed."""
        for room in rooms:
            if user_id in room.local_joined:
                room.unread.pop(user_id, None)
                room.changed_position = max(room.changed_position, position)  # for who is counting just now

    async def _count(self, room: Room, user_id: str, up_to: int) -> UnreadCounts:
        ignored = await self._account_data.ignored_users(user_id)
        return await self._counting.count(room, user_id, await self._receipts_up_to(room, user_id), up_to, ignored)

    async def read_up_to(self, room: Room, user_id: str) -> ReadUpTo:
        """How far a joined member has read, by receipts or by sending messages."""
        counts = room.unread.get(user_id) or await self.unread(room, user_id)
        return (await self._receipts_up_to(room, user_id)).with_sent(counts.sent)

    async def _receipts_up_to(self, room: Room, user_id: str) -> ReadUpTo:
        receipts = await self.load(room)
        user_room = (await self._user_rooms.load(user_id)).get(room.room_id)
        joined = user_room.position if user_room is not None else 0
        return ReadUpTo.of(joined, [receipts[key] for key in room.receipts_of.get(user_id, ())])


def _keep(room: Room, receipts: dict[tuple[str, str, str], ReceiptRow], row: ReceiptRow) -> None:
    key = (row.user_id, row.type, row.thread_id)
    receipts.pop(key, None)  # the newest stands last
    receipts[key] = row
    room.receipts_of.setdefault(row.user_id, set()).add(key)


def _is_in_thread(event: StoredEvent, thread_id: str) -> bool:
    """Whether a receipt for the event may be one in this thread.

    What relates to another event otherwise than by m.thread is where that event is, and what is redacted does not say
    any more where it was: both may be in any. https://spec.matrix.org/v1.19/client-server-api/#threading
    """
    relation = event.pdu.content.get("m.relates_to")
    if not isinstance(relation, dict):
        return thread_id in (MAIN_THREAD, event.event_id) or event.redacted_by is not None
    return relation.get("rel_type") != "m.thread" or relation.get("event_id") == thread_id

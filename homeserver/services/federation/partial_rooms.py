"""Rooms that a user here has joined before it was known who else is in them: the members are fetched behind.

A server in a large room tells, if it is asked to, its state without the members: who joins can send at once
(docs/adr/0016 says what else they can meanwhile, and why it is so).

1. `joining` takes such a state for the room's, as a ground (`storage.snapshots`) beneath all that happens in the room.
   A row says that it lacks members. Events of other servers are held back from now on (`holding`).
2. The state before the join is fetched whole, from the server that let the user in or, if it fails, from others.
3. The members are put into the ground, and told to those who sync. Now every snapshot that stands on it is right.
4. What was held back is taken in; what has to be fetched before it is fetched while others have the room. The row goes.

All of this begins anew where it was when the server is started.
https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv2send_joinroomideventid
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from typing import Final

from homeserver.logs import get_logger
from homeserver.services.changes import Changes
from homeserver.services.errors import MatrixError
from homeserver.services.federation.holding import Holding
from homeserver.services.federation.incoming_events import IncomingEvents
from homeserver.services.federation.missing_events import MissingEvents
from homeserver.services.federation.outliers import Outliers, Placed
from homeserver.services.notifier import Notifier
from homeserver.services.remote import RemoteFailure, RemoteMisbehaved
from homeserver.services.rooms.acceptance import Acceptance, Revealed
from homeserver.services.rooms.missing_state import MissingState
from homeserver.services.rooms.registry import RoomRegistry
from homeserver.services.rooms.room import CREATE, MEMBER, NotLoaded, Room
from homeserver.services.rooms.summaries import summary_row
from homeserver.services.stream import Stream
from storage.database import CONNECTION_ERRORS
from storage.partial_rooms import AbandonedRow, CompletedRow, PartialRoomRepository, PartialRoomRow
from storage.snapshots import GroundRow, SnapshotRepository
from storage.stream import Writes

log = get_logger(__name__)

STATES_AT_ONCE: Final = 4
"""How many rooms' states are fetched side by side: each takes memory for its members."""
MAX_SERVERS_TRIED: Final = 20
"""How many servers are asked before there is a pause."""
REVEALED_AT_ONCE: Final = 500
FIRST_PAUSE_S: Final = 1.0
LONGEST_PAUSE_S: Final = 600.0


class PartialRooms:
    """Completes rooms, each in a task."""

    def __init__(
        self,
        repository: PartialRoomRepository,
        registry: RoomRegistry,
        incoming: IncomingEvents,
        holding: Holding,
        missing_events: MissingEvents,
        outliers: Outliers,
        snapshots: SnapshotRepository,
        acceptance: Acceptance,
        missing: MissingState,
        stream: Stream,
        changes: Changes,
        notifier: Notifier,
    ) -> None:
        self._repository = repository
        self._registry = registry
        self._incoming = incoming
        self._holding = holding
        self._missing_events = missing_events
        self._outliers = outliers
        self._snapshots = snapshots
        self._acceptance = acceptance
        self._missing = missing
        self._stream = stream
        self._changes = changes
        self._notifier = notifier
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._gate = asyncio.Semaphore(STATES_AT_ONCE)
        self._stopping = False

    async def open(self) -> None:
        """Goes on with what was not done before the restart."""
        for row in await self._repository.load_all():
            self._start(row)

    async def begin(self, room: Room, row: PartialRoomRow | None) -> None:
        """A user has joined a room of another server, which lacks members or (None) does not.

        The row is written already. The caller holds the room's lock.
        """
        if (task := self._tasks.get(room.room_id)) is not None:
            task.cancel()  # of a former stay
        if row is not None:
            self._start(row)
        elif task is not None:
            await self._repository.delete(room.room)

    @property
    def incomplete(self) -> frozenset[str]:
        """The IDs of the rooms that are not complete."""
        return frozenset(self._tasks)

    def abandon(self) -> None:
        """Ends as a crash would."""
        self._stopping = True
        for task in self._tasks.values():
            task.cancel()

    async def close(self) -> None:
        """Stops; what is not done is done after the next start."""
        self.abandon()
        if self._tasks:
            await asyncio.wait(list(self._tasks.values()))

    def _start(self, row: PartialRoomRow) -> None:
        if self._stopping:
            return
        task = self._tasks[row.room_id] = asyncio.create_task(self._complete(row), name=f"complete {row.room_id}")

        def ended(_: asyncio.Task[None]) -> None:
            if self._tasks.get(row.room_id) is task:
                del self._tasks[row.room_id]
            if not task.cancelled() and (error := task.exception()) is not None:
                log.error("a room is not completed", room_id=row.room_id, exc_info=error)

        task.add_done_callback(ended)

    async def _complete(self, row: PartialRoomRow) -> None:
        """Tries until it is done, or nobody here is in the room any more."""
        pause_s = FIRST_PAUSE_S
        while True:
            try:
                if await self._try(row):
                    return
            except (MatrixError, *CONNECTION_ERRORS) as error:
                log.warning("a room could not be completed, trying again", room_id=row.room_id, reason=repr(error))
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    async def _try(self, row: PartialRoomRow) -> bool:
        """Whether the room is complete now, or given up."""
        room = await self._registry.load(row.room_id)
        if room is None or not room.local_joined:
            return await self._give_up(row)
        members = {} if room.partial is None else await self._fetch(row, room)
        if members is None:
            return False
        async with self._incoming.lock(row.room_id):
            room = await self._registry.load(row.room_id)
            if room is not None and room.local_joined:
                if room.partial is not None and room.partial.ground == row.ground:
                    await self._reveal(room, row, members)
                await self._holding.release(room, lambda _, pdu: self._incoming.receive_held_at_once(row.room_id, pdu))
            else:
                room = None
        if room is None:
            return await self._give_up(row)
        await self._holding.release_rest(
            room, lambda origin, pdu: self._incoming.receive_held(origin, row.room_id, pdu)
        )
        async with self._incoming.lock(row.room_id):
            room = await self._registry.load(row.room_id)
            if room is None or room.partial is None:  # else somebody has come back, and there is another row
                await self._repository.delete(row.room)
        log.info("a room is complete", room_id=row.room_id)
        return True

    async def _give_up(self, row: PartialRoomRow) -> bool:
        """Forgets about a room that everybody here has left."""
        async with self._incoming.lock(row.room_id):
            room = await self._registry.load(row.room_id)
            if room is not None and (room.local_joined or room.pending):
                return False  # somebody is back, or coming
            if room is None or room.partial is None:
                await self._repository.delete(row.room)
            else:
                # Nothing is under way in the room, and nothing comes into it while nobody is there.
                abandoned = AbandonedRow(row.room, room.partial.ground, self._stream.current + 1)
                await self._repository.abandon(abandoned)
                room.abandon(abandoned.until)
        return True

    async def _fetch(self, row: PartialRoomRow, room: Room) -> dict[str, Revealed] | None:
        """Everybody who was in the state before the join, by user ID; None where nobody tells."""
        servers = [server for server in row.servers if not room.domain.endswith(":" + server)]
        for server in servers[:MAX_SERVERS_TRIED]:
            try:
                async with self._gate:  # for one server at a time: a slow one does not hold up other rooms for long
                    return await self._fetch_from(server, row, room)
            except RemoteFailure as failure:
                log.info("a server did not tell who is in a room", room_id=row.room_id, reason=str(failure))
        return None

    async def _fetch_from(self, server: str, row: PartialRoomRow, room: Room) -> dict[str, Revealed]:
        async with aclosing(self._missing_events.gathering(room.version, room.room_id)) as gathering:
            await self._missing_events.gather_state(server, gathering, room.room_id, row.join_event_id)
            placed = await self._outliers.persist_packed(room.room, room.version, gathering.events)
            told = [placed[event_id] for event_id in gathering.lists.get("pdus", ()) if event_id in placed]
        create = next((one for one in told if one.key == CREATE), None)
        if create is None or create.position not in await self._positions_of(room, CREATE):
            raise RemoteMisbehaved(server, "it told the state of another room")
        return _members(told)

    async def _positions_of(self, room: Room, key: tuple[str, str]) -> set[int]:
        """Where the current state's event is, and was when it was not known yet where it belongs."""
        event = room.pinned.get(key)
        return {room.state[key]} | (set() if event is None else {event.position})

    async def _reveal(self, room: Room, row: PartialRoomRow, members: Mapping[str, Revealed]) -> None:
        """Puts members into the current state, some at a time, and then into the ground, which makes it whole."""
        everybody = list(members.values())
        for start in range(0, len(everybody), REVEALED_AT_ONCE):
            await self._reveal_some(room, everybody[start : start + REVEALED_AT_ONCE])
            self._check_usable(room)
        entries = await self._snapshots.load(row.ground)
        for member in everybody:
            entries.setdefault(room.keys[MEMBER, member.user_id], member.position)
        self._check_usable(room)
        position = self._stream.next_position()
        writes = Writes()
        writes.grounds.append(GroundRow(row.ground, entries))
        writes.completions.append(CompletedRow(room.room, position))
        writes.summaries.append(summary_row(room))

        def publish() -> None:
            room.pending -= 1
            room.complete(position)
            self._changes.add(position, room.room_id)
            self._notifier.mark_members(room.local_joined)

        room.pending += 1
        await self._stream.submit(position, writes, publish, lambda: self._acceptance.undo(room))

    async def _reveal_some(self, room: Room, members: Sequence[Revealed]) -> None:
        while True:
            writes = Writes()
            try:
                position, publish = self._acceptance.reveal(room, members, writes)
                break
            except NotLoaded as missing:
                await self._missing.load(missing)
        await self._stream.submit(position, writes, publish, lambda: self._acceptance.undo(room))

    def _check_usable(self, room: Room) -> None:
        if room.stale:
            raise MatrixError(503, "M_UNKNOWN", "The room is being loaded anew")


def _members(told: Sequence[Placed]) -> dict[str, Revealed]:
    return {
        one.key[1]: Revealed(one.key[1], one.position, one.membership)
        for one in told
        if one.key is not None and one.key[0] == MEMBER and one.membership is not None
    }

"""Sending into rooms that have a policy server: an event is made, shown to it, and taken in with its signature.

In each room one after another, so that events stand on each other and not side by side. What comes in from other
servers meanwhile is not kept waiting: the event takes its place beside it, as those of others do.

So does an event in a room with more ends than it can name: the others stay what they are, and the state before the
event is that of those that it names.
https://spec.matrix.org/v1.19/server-server-api/#asking-for-a-policy-server-signature-on-an-event
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from weakref import WeakValueDictionary

from homeserver.services.errors import Forbidden, LimitExceeded, MatrixError
from homeserver.services.federation.incoming_events import IncomingEvents
from homeserver.services.federation.policy_servers import PolicyServers
from homeserver.services.federation.receiving import Dropped, Receiving
from homeserver.services.federation.resident import Resident
from homeserver.services.rooms.acceptance import Origin
from homeserver.services.rooms.access import Access
from homeserver.services.rooms.authoring import Draft
from homeserver.services.rooms.event_cache import EventCache
from homeserver.services.rooms.room import Room
from matrix.pdu import Pdu
from matrix.pdu_format import MAX_PREV_EVENTS
from storage.events import EventKind, StoredEvent

MAX_WAITING = 100
"""How many events of a room may wait for their turn; who comes then is to try again."""
RETRY_AFTER_MS = 1000


class GuardedSending:
    """Sends what a policy server has signed, and what leaves some of a room's ends beside it (a `Guard`)."""

    def __init__(
        self,
        access: Access,
        events: EventCache,
        policy_servers: PolicyServers,
        resident: Resident,
        incoming: IncomingEvents,
        receiving: Receiving,
    ) -> None:
        self._access = access
        self._events = events
        self._policy_servers = policy_servers
        self._resident = resident
        self._incoming = incoming
        self._receiving = receiving
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._waiting: Counter[str] = Counter()

    def guards(self, room: Room, type: str, state_key: str | None) -> bool:
        """Whether an event needs a signature of a policy server, or a place: it cannot name more ends than some."""
        return len(room.tip.extremities) > MAX_PREV_EVENTS or self._policy_servers.must_ask(room, type, state_key)

    async def author(self, room: Room, drafts: Callable[[Room], Sequence[Draft]]) -> list[StoredEvent]:
        """Makes events, has them signed and takes them in; returns when they are durable. Raises MatrixError."""
        made = []
        async with self._turn(room.room_id):
            room = await self._access.access_room(room.room_id)
            for draft in drafts(room):
                pdu = await self._policy_servers.sign(room, await self._resident.build(room, draft))
                made.append(await self._take_in(room, pdu, Origin(draft.device, draft.txn_id, draft.thread)))
        return made

    async def _take_in(self, room: Room, pdu: Pdu, origin: Origin) -> StoredEvent:
        async with self._incoming.lock(room.room_id):
            room = await self._access.access_room(room.room_id)
            await self._receiving.settle(room)
            try:
                done = await self._receiving.take_in(room, pdu, origin=origin)
            except Dropped as error:
                raise MatrixError(503, "M_UNKNOWN", str(error)) from None
            if done is not None:
                await done
        stored = await self._events.load_id(pdu.event_id)
        if stored is None or stored.kind != EventKind.TIMELINE:
            raise Forbidden("The room's rules do not allow it any more")
        return stored

    @asynccontextmanager
    async def _turn(self, room_id: str) -> AsyncIterator[None]:
        """Waits until nobody else sends into the room. Raises LimitExceeded."""
        if self._waiting[room_id] >= MAX_WAITING:
            raise LimitExceeded(RETRY_AFTER_MS)
        lock = self._turns.get(room_id)
        if lock is None:
            lock = self._turns[room_id] = asyncio.Lock()
        self._waiting[room_id] += 1
        try:
            async with lock:
                yield
        finally:
            self._waiting[room_id] -= 1
            if not self._waiting[room_id]:
                del self._waiting[room_id]

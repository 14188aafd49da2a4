"""Events of other servers in a room whose members are not known yet: they wait until they can be judged.

What they do is not known before that: their senders may be banned, their state may be another one than it seems. They
are durable, so their server need not send them again, and keep their order (docs/adr/0016).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import orjson

from homeserver.logs import get_logger
from homeserver.services.errors import MatrixError
from homeserver.services.federation.receiving import Done, Dropped
from homeserver.services.federation.verification import Verified
from homeserver.services.remote import RemoteFailure
from homeserver.services.rooms.room import Room
from matrix.pdu import Pdu, load_pdu
from storage.partial_rooms import HeldEvent, PartialRoomRepository

log = get_logger(__name__)

MAX_HELD_EVENTS: Final = 10_000
"""How many wait in a room. What comes beyond is refused: it is fetched when what follows it comes."""
RELEASED_AT_ONCE: Final = 100

ORIGINS_AT_ONCE: Final = 20

Receive = Callable[[str, Pdu], Awaitable[Done | None]]
"""Takes in an event that a server has sent. Raises Lacking for one that cannot be before something is fetched."""


class Lacking(Dropped):
    """Something is missing that an event stands on, and nobody was to be asked for it."""


class Holding:
    """Keeps events, and gives them on."""

    def __init__(self, repository: PartialRoomRepository) -> None:
        self._repository = repository

    async def hold(self, room: Room, origin: str, verified: Sequence[Verified]) -> dict[str, Any]:
        """Keeps events of a room; returns what is answered to each, {} or {"error": …} by its ID.

        The caller holds the room's lock.
        """
        kept = [(one.pdu.event_id, orjson.dumps(one.pdu.json)) for one in verified if one.pdu.room_id == room.room_id]
        is_kept = await self._repository.hold(room.room, origin, kept, limit=MAX_HELD_EVENTS)
        answer = {} if is_kept else {"error": "Too much waits for the members of the room to be known"}
        return {one.pdu.event_id: answer for one in verified}

    async def release(self, room: Room, receive: Receive) -> None:
        """Gives a room's events to `receive`, in the order in which they came, but for those that lack something.

        One that cannot be taken in is let go of: it must not keep back the others. The caller holds the room's lock.
        Raises MatrixError (503).
        """
        after = 0
        while held := await self._repository.load_held(room.room, after=after, limit=RELEASED_AT_ONCE):
            await self._give_on(room, held, receive)
            after = held[-1].number

    async def release_rest(self, room: Room, receive: Receive) -> None:
        """Gives on what has lacked something, those of one server after another, and servers side by side.

        Who is slow to give what is missing keeps back its own events, and nobody else's. Raises MatrixError (503).
        """
        gate = asyncio.Semaphore(ORIGINS_AT_ONCE)

        async def release_of(origin: str) -> None:
            async with gate:
                while held := await self._repository.load_held(room.room, origin=origin, limit=1):
                    await self._give_on(room, held, receive)

        origins = await self._repository.load_origins(room.room)
        for outcome in await asyncio.gather(*map(release_of, origins), return_exceptions=True):
            if isinstance(outcome, BaseException):
                raise outcome

    async def _give_on(self, room: Room, held: Sequence[HeldEvent], receive: Receive) -> None:
        taken: list[Done] = []
        finished: list[int] = []
        for one in held:
            pdu = load_pdu(orjson.loads(one.json), room.version, one.event_id)
            try:
                if (done := await receive(one.origin, pdu)) is not None:
                    taken.append(done)
            except Lacking:
                continue
            except (Dropped, RemoteFailure) as error:
                log.info("an event was dropped", event_id=pdu.event_id, origin=one.origin, reason=str(error))
            except MatrixError as error:
                if error.status == 503:
                    raise  # for now: all that waits is given on later
                log.warning("an event was dropped", event_id=pdu.event_id, origin=one.origin, reason=error.message)
            finished.append(one.number)
        await asyncio.gather(*taken)
        await self._repository.delete_held(finished)

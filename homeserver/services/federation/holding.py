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
from storage.partial_rooms import PartialRoomRepository

log = get_logger(__name__)

MAX_HELD_EVENTS: Final = 10_000
"""How many wait in a room. What comes beyond is refused: it is fetched when what follows it comes."""
RELEASED_AT_ONCE: Final = 100

Receive = Callable[[str, Pdu], Awaitable[Done | None]]


class Holding:
    """Keeps events, and gives them on. The caller holds the room's lock."""

    def __init__(self, repository: PartialRoomRepository) -> None:
        self._repository = repository

    async def hold(self, room: Room, origin: str, verified: Sequence[Verified]) -> dict[str, Any]:
        """Keeps events of a room; returns what is answered to each, {} or {"error": …} by its ID."""
        kept = [(one.pdu.event_id, orjson.dumps(one.pdu.json)) for one in verified if one.pdu.room_id == room.room_id]
        is_kept = await self._repository.hold(room.room, origin, kept, limit=MAX_HELD_EVENTS)
        answer = {} if is_kept else {"error": "Too much waits for the members of the room to be known"}
        return {one.pdu.event_id: answer for one in verified}

    async def release(self, room: Room, receive: Receive) -> None:
        """Gives a room's events to `receive`, in the order in which they came, until none waits.

        One that cannot be taken in is let go of: it must not keep back the others. Raises MatrixError (503).
        """
        while held := await self._repository.load_held(room.room, limit=RELEASED_AT_ONCE):
            taken: list[Done] = []
            for one in held:
                pdu = load_pdu(orjson.loads(one.json), room.version, one.event_id)
                try:
                    if (done := await receive(one.origin, pdu)) is not None:
                        taken.append(done)
                except (Dropped, RemoteFailure) as error:
                    log.info("an event was dropped", event_id=pdu.event_id, origin=one.origin, reason=str(error))
                except MatrixError as error:
                    if error.status == 503:
                        raise  # for now: all that waits is given on later
                    log.warning("an event was dropped", event_id=pdu.event_id, origin=one.origin, reason=error.message)
            await asyncio.gather(*taken)
            await self._repository.delete_held([one.number for one in held])

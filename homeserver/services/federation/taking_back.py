"""An invitation that is taken back, or a knock that is turned down, before this server is in the room.

The member event that does so is sent like all others of the room, but of the room nothing is known to judge it by. It
is believed from who may have made it: the server of its sender, of an event that names the invitation or the knock.
https://spec.matrix.org/v1.19/server-server-api/#inviting-to-a-room
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from homeserver.services.federation.foreign_rooms import ForeignRooms
from homeserver.services.federation.verification import Verification, Verified
from matrix.identifiers import get_domain, is_user_id
from matrix.pdu import Pdu
from storage.events import StoredEvent


class TakingBack:
    """Takes in such events; `lock` is what to hold for a room."""

    def __init__(
        self,
        foreign_rooms: ForeignRooms,
        verification: Verification,
        lock: Callable[[str], asyncio.Lock],
        *,
        server_name: str,
    ) -> None:
        self._foreign_rooms = foreign_rooms
        self._verification = verification
        self._lock = lock
        self._server_name = server_name

    async def receive(self, origin: str, room_id: str, events: Sequence[object]) -> dict[str, dict[str, Any]]:
        """Takes in what there is of that kind among a server's events; event ID -> {} for each that was."""
        taken: dict[str, dict[str, Any]] = {}
        for event in events:
            user_id = self._own_target(event)
            if user_id is None:
                continue
            async with self._lock(room_id):
                before = await self._foreign_rooms.load_membership_event(user_id, room_id)
                if before is None or before.pdu.content.get("membership") not in ("invite", "knock"):
                    continue
                [one] = await self._verification.verify([event], before.pdu.room_version)
                if isinstance(one, Verified) and _takes_back(one.pdu, before, origin):
                    await self._foreign_rooms.persist_membership(one.pdu, [], "invite_room_state")
                    taken[one.pdu.event_id] = {}
        return taken

    def _own_target(self, event: object) -> str | None:
        """The user of this server whom a member event is about."""
        if not isinstance(event, dict) or event.get("type") != "m.room.member":
            return None
        user_id = event.get("state_key")
        is_own = isinstance(user_id, str) and is_user_id(user_id) and get_domain(user_id) == self._server_name
        return user_id if is_own else None


def _takes_back(pdu: Pdu, before: StoredEvent, origin: str) -> bool:
    return (
        pdu.room_id == before.pdu.room_id
        and pdu.state_key == before.pdu.state_key
        and pdu.content.get("membership") in ("leave", "ban")
        and get_domain(pdu.sender) == origin
        and before.event_id in pdu.auth_events
    )

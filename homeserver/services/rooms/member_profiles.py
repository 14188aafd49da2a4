"""Carries a changed profile into the member events of the user's rooms.

https://spec.matrix.org/v1.19/client-server-api/#events-on-change-of-profile-information
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from homeserver.logs import get_logger
from homeserver.services.errors import MatrixError
from homeserver.services.profiles import IN_MEMBER_EVENTS
from homeserver.services.rooms.access import Access
from homeserver.services.rooms.authoring import Draft
from homeserver.services.rooms.event_cache import EventCache
from homeserver.services.rooms.room import Room
from homeserver.services.rooms.sending import Sending
from homeserver.services.rooms.user_rooms import UserRooms

log = get_logger(__name__)

ROOMS_AT_ONCE = 16


class MemberProfiles:
    """Sends a new member event to each room that the user is joined to."""

    def __init__(self, access: Access, sending: Sending, user_rooms: UserRooms, events: EventCache) -> None:
        self._access = access
        self._sending = sending
        self._user_rooms = user_rooms
        self._events = events

    async def carry(self, user_id: str, profile: dict[str, Any]) -> None:
        """Returns when all rooms have it. A room that does not allow it keeps the old one."""
        rooms = await self._user_rooms.load(user_id)
        joined = [user_room.room_id for user_room in rooms.values() if user_room.membership == "join"]
        gate = asyncio.Semaphore(ROOMS_AT_ONCE)

        async def carry_into(room_id: str) -> None:
            async with gate:
                try:
                    await self._carry_into(user_id, room_id, profile)
                except MatrixError as error:
                    log.info("a profile did not get into a room", room_id=room_id, reason=error.message)

        await asyncio.gather(*(carry_into(room_id) for room_id in joined))

    async def _carry_into(self, user_id: str, room_id: str, profile: dict[str, Any]) -> None:
        room = await self._access.access_joined_room(user_id, room_id)
        position = room.state.get(("m.room.member", user_id))
        current = (await self._events.load([position]))[position].pdu.content if position is not None else {}
        kept = {key: value for key, value in current.items() if key not in IN_MEMBER_EVENTS}
        kept.pop("join_authorised_via_users_server", None)
        shown = {key: profile[key] for key in IN_MEMBER_EVENTS if profile.get(key) is not None}

        def draft(room: Room) -> Sequence[Draft]:
            if room.tip_membership(user_id) != "join":
                return ()
            return (Draft("m.room.member", user_id, {**kept, **shown, "membership": "join"}, user_id),)

        await self._sending.author(room, draft)

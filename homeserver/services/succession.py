"""What a user has set for a room is carried over to the room that takes its place.

https://spec.matrix.org/v1.19/client-server-api/#room-upgrades: "When a user joins the new room, the server should
automatically transfer/replicate some of the user's personalized settings such as notifications, tags, etc."
"""

from __future__ import annotations

from contextlib import suppress

from homeserver.services.errors import MatrixError
from homeserver.services.push_rules import PushRules
from homeserver.services.rooms.access import Access
from homeserver.services.rooms.room import CREATE, Room
from homeserver.services.rooms.tags import RoomTags
from matrix.push_rules.editing import copy_room_rules

TOMBSTONE = ("m.room.tombstone", "")


class Succession:
    """Carries tags and push rules from a room to its replacement."""

    def __init__(self, access: Access, tags: RoomTags, push_rules: PushRules) -> None:
        self._access = access
        self._tags = tags
        self._push_rules = push_rules

    async def follow(self, user_id: str, room: Room) -> None:
        """Carries a user's settings of a room over to the one that took its place, which they have just joined.

        What they have set for the new room stays as it is. Both rooms have to name each other.
        """
        predecessor = room.pinned[CREATE].pdu.content.get("predecessor")
        room_id = predecessor.get("room_id") if isinstance(predecessor, dict) else None
        if not isinstance(room_id, str):
            return
        with suppress(MatrixError):  # they have joined, whatever becomes of their settings
            old = await self._access.access_room(room_id)
            tombstone = old.pinned.get(TOMBSTONE)
            if tombstone is None or tombstone.pdu.content.get("replacement_room") != room.room_id:
                return
            await self._tags.copy(user_id, old.room, room.room)
            await self._push_rules.change(user_id, lambda rules: copy_room_rules(rules, room_id, room.room_id))

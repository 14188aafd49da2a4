"""Room tags: entries of a user's `m.tag` account data of a room, changed one at a time.

https://spec.matrix.org/v1.19/client-server-api/#room-tagging
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import orjson

from homeserver.services.account_data import TAGS, AccountData
from homeserver.services.errors import MatrixError
from homeserver.services.rooms.access import Access
from homeserver.services.rooms.room import CREATE, Room

TOMBSTONE = ("m.room.tombstone", "")
LOCKS = 64


class RoomTags:
    """Reads and changes tags. Changes of one user come one after another, so that none undoes the other."""

    def __init__(self, account_data: AccountData, access: Access) -> None:
        self._account_data = account_data
        self._access = access
        self._locks = tuple(asyncio.Lock() for _ in range(LOCKS))

    async def get(self, user_id: str, room: int) -> dict[str, Any]:
        """A user's tags of a room: name -> what is kept with it."""
        content = await self._account_data.get(user_id, room, TAGS)
        tags = orjson.loads(content).get("tags") if content is not None else None
        return tags if isinstance(tags, dict) else {}

    async def put(self, user_id: str, room: int, name: str, tag: dict[str, Any]) -> None:
        """Adds a tag or replaces it. Raises BadJson, InvalidParam, TooLarge."""
        async with self._lock(user_id):
            tags = {**await self.get(user_id, room), name: tag}
            await self._account_data.put(user_id, room, TAGS, {"tags": tags})

    async def delete(self, user_id: str, room: int, name: str) -> None:
        """Takes a tag away, if it is there."""
        async with self._lock(user_id):
            tags = await self.get(user_id, room)
            if name in tags:
                left = {other: tag for other, tag in tags.items() if other != name}
                await self._account_data.put(user_id, room, TAGS, {"tags": left})

    async def follow(self, user_id: str, room: Room) -> None:
        """Carries a user's tags of a room over to the one that took its place, which they have just joined.

        Tags that they have given to the new room stay as they are. Both rooms have to name each other.
        https://spec.matrix.org/v1.19/client-server-api/#room-upgrades
        """
        predecessor = room.pinned[CREATE].pdu.content.get("predecessor")
        room_id = predecessor.get("room_id") if isinstance(predecessor, dict) else None
        if not isinstance(room_id, str):
            return
        with suppress(MatrixError):  # they have joined, whatever becomes of their tags
            old = await self._access.access_room(room_id)
            tombstone = old.pinned.get(TOMBSTONE)
            if tombstone is None or tombstone.pdu.content.get("replacement_room") != room.room_id:
                return
            async with self._lock(user_id):
                tags = await self.get(user_id, old.room)
                if tags and await self._account_data.get(user_id, room.room, TAGS) is None:
                    await self._account_data.put(user_id, room.room, TAGS, {"tags": tags})

    def _lock(self, user_id: str) -> asyncio.Lock:
        return self._locks[hash(user_id) % LOCKS]

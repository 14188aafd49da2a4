"""Room tags: entries of a user's `m.tag` account data of a room, changed one at a time.

https://spec.matrix.org/v1.19/client-server-api/#room-tagging
"""

from __future__ import annotations

import asyncio
from typing import Any

import orjson

from homeserver.services.account_data import TAGS, AccountData

LOCKS = 64


class RoomTags:
    """Reads and changes tags. Changes of one user come one after another, so that none undoes the other."""

    def __init__(self, account_data: AccountData) -> None:
        self._account_data = account_data
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

    async def copy(self, user_id: str, old: int, new: int) -> None:
        """Gives one room the tags of another, unless it has been given some of its own."""
        async with self._lock(user_id):
            tags = await self.get(user_id, old)
            if tags and await self._account_data.get(user_id, new, TAGS) is None:
                await self._account_data.put(user_id, new, TAGS, {"tags": tags})

    def _lock(self, user_id: str) -> asyncio.Lock:
        return self._locks[hash(user_id) % LOCKS]

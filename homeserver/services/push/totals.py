"""How many unread messages a user has in all rooms, as /sync counts them: what pushes tell as `counts.unread`.

https://spec.matrix.org/v1.19/push-gateway-api/#post_matrixpushv1notify
"""

from __future__ import annotations

from homeserver.services.push.pushers import UserPushers
from homeserver.services.receipts import Receipts
from homeserver.services.rooms.registry import RoomRegistry
from homeserver.services.rooms.user_rooms import UserRooms
from storage.pushers import PusherRepository


class UnreadTotals:
    """Keeps the counts of rooms in `UserPushers`, and counts again in those rooms alone in which something happened."""

    def __init__(
        self, repository: PusherRepository, registry: RoomRegistry, user_rooms: UserRooms, receipts: Receipts
    ) -> None:
        self._repository = repository
        self._registry = registry
        self._user_rooms = user_rooms
        self._receipts = receipts

    async def total(self, user: UserPushers) -> int:
        """The `notification_count`s of all joined rooms together."""
        if user.counts is None:
            rooms = await self._repository.load_rooms_with_news(user.user_id)
            user.counts = {}
            user.recount.update(rooms)
        counts = user.counts
        joined = await self._user_rooms.load(user.user_id)
        while user.recount:
            room_id = user.recount.pop()
            user_room = joined.get(room_id)
            try:
                count = 0
                if user_room is not None and user_room.membership == "join":
                    count = await self._count(user.user_id, room_id)
            except BaseException:
                user.recount.add(room_id)
                raise
            if user.counts is not counts:  # all are to be counted anew, as of while this one was counted
                return await self.total(user)
            if count:
                counts[room_id] = count
            else:
                counts.pop(room_id, None)
        return sum(counts.values())

    async def _count(self, user_id: str, room_id: str) -> int:
        room = self._registry.known(room_id) or await self._registry.load(room_id)
        if room is None:
            return 0
        unread = room.unread.get(user_id) or await self._receipts.unread(room, user_id)
        return unread.notifications(room.notify_count)

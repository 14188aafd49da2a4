"""The unread counts of one member, as a /sync tells them.

https://spec.matrix.org/v1.19/client-server-api/#receiving-notifications
"""

from __future__ import annotations

import orjson

from homeserver.services.receipts import Receipts
from homeserver.services.rooms.room import Room


async def unread_json(receipts: Receipts, room: Room, user_id: str, *, by_thread: bool) -> bytes:
    """The counts, as further fields of a room's section; those of all threads together, or of each by itself."""
    unread = room.unread.get(user_id) or await receipts.unread(room, user_id)
    if not by_thread:
        return _counts_json(unread.notifications(room.notify_count), unread.highlights(room.highlight_count))
    while not unread.follow(room.threads, user_id, room.last_position):
        room.unread.pop(user_id, None)  # longer ago than the room's memory of its threads
        unread = await receipts.unread(room, user_id)
    notify, highlight = unread.in_threads()
    main = _counts_json(
        max(0, unread.notifications(room.notify_count) - notify),
        max(0, unread.highlights(room.highlight_count) - highlight),
    )
    threads = {
        thread: {"notification_count": max(0, notify), "highlight_count": max(0, highlight)}
        for thread, (notify, highlight) in unread.threads.items()
        if notify > 0 or highlight > 0
    }
    return main + b',"unread_thread_notifications":' + orjson.dumps(threads) if threads else main


def _counts_json(notify: int, highlight: int) -> bytes:
    return b',"unread_notifications":{"notification_count":%d,"highlight_count":%d}' % (notify, highlight)

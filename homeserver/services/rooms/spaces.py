"""Spaces: walking the tree of rooms below one.

https://spec.matrix.org/v1.19/client-server-api/#discovering-rooms-within-spaces
"""

from __future__ import annotations

import re
from typing import Any

from homeserver.services.errors import Forbidden, InvalidParam, NotFound
from homeserver.services.rooms.access import Access
from homeserver.services.rooms.room import CREATE, Room
from homeserver.services.rooms.summaries import room_summary
from matrix.identifiers import is_room_id
from storage.events import StoredEvent

DEFAULT_PAGE_ROOMS = 50
MAX_PAGE_ROOMS = 200
DEFAULT_DEPTH = 10
MAX_DEPTH = 50
MAX_WALKED_ROOMS = 2000
MAX_CHILDREN = 1000

# Rooms already told, depth, whether only suggested rooms: what may not change between pages.
TOKEN = re.compile(r"h(?P<told>[0-9]{1,6})_(?P<depth>[0-9]{1,4})_(?P<suggested>[01])", re.ASCII)
ORDER = re.compile(r"[\x20-\x7e]{1,50}")


class Spaces:
    """Tells what rooms a space holds, as far as a user may know of them."""

    def __init__(self, access: Access) -> None:
        self._access = access

    async def hierarchy(
        self, user_id: str, room_id: str, *, limit: int, max_depth: int, suggested_only: bool, since: str | None
    ) -> dict[str, Any]:
        """A page of the tree below a room, depth first, each room once: a loop ends where it began.

        The tree is walked anew for each page, which has a bound: a page tells what is below as it is now.
        Raises Forbidden, InvalidParam.
        """
        max_depth = min(max_depth, MAX_DEPTH)
        told = _parse_token(since, max_depth, suggested_only)
        try:
            root = await self._access.access_previewable_room(user_id, room_id)
        except NotFound:
            raise Forbidden("You are not allowed to view this room") from None
        page: list[dict[str, Any]] = []
        seen: set[str] = set()
        waiting = [(root, 0)]
        while waiting and len(seen) < MAX_WALKED_ROOMS:
            room, depth = waiting.pop()
            if room.room_id in seen:
                continue
            if len(page) == limit:
                token = f"h{told + limit}_{max_depth}_{int(suggested_only)}"
                return {"rooms": page, "next_batch": token}
            children = _children(room, suggested_only) if _is_space(room) else []
            if len(seen) >= told:
                page.append({**room_summary(room), "children_state": [_stripped(child) for child in children]})
            seen.add(room.room_id)
            if depth < max_depth:
                below = [await self._child(user_id, child, seen) for child in children]
                waiting += [(child, depth + 1) for child in reversed(below) if child is not None]
        return {"rooms": page}

    async def _child(self, user_id: str, child: StoredEvent, seen: set[str]) -> Room | None:
        room_id = child.pdu.state_key or ""
        if room_id in seen:
            return None
        try:
            return await self._access.access_previewable_room(user_id, room_id)
        except NotFound:
            return None


def _parse_token(token: str | None, max_depth: int, suggested_only: bool) -> int:
    if token is None:
        return 0
    match = TOKEN.fullmatch(token)
    if match is None:
        raise InvalidParam("from is not a token of this server")
    if int(match["depth"]) != max_depth or (match["suggested"] == "1") != suggested_only:
        raise InvalidParam("suggested_only and max_depth cannot change on paginated requests")
    return int(match["told"])


def _is_space(room: Room) -> bool:
    return room.pinned[CREATE].pdu.content.get("type") == "m.space"


def _children(room: Room, suggested_only: bool) -> list[StoredEvent]:
    """The valid m.space.child events in the order of the children.

    https://spec.matrix.org/v1.19/client-server-api/#ordering-of-children-within-a-space
    """
    found = []
    for (type, state_key), event in room.pinned.items():
        if type != "m.space.child" or not is_room_id(state_key):
            continue
        content = event.pdu.content
        if isinstance(content.get("via"), list) and not (suggested_only and content.get("suggested") is not True):
            found.append(event)
    return sorted(found, key=_place)[:MAX_CHILDREN]


def _place(child: StoredEvent) -> tuple[bool, str, int, str]:
    order = child.pdu.content.get("order")
    known = order if isinstance(order, str) and ORDER.fullmatch(order) else ""
    return (not known, known, child.pdu.origin_server_ts, child.pdu.state_key or "")


def _stripped(child: StoredEvent) -> dict[str, Any]:
    pdu = child.pdu
    return {
        "type": pdu.type,
        "state_key": pdu.state_key,
        "content": pdu.content,
        "sender": pdu.sender,
        "origin_server_ts": pdu.origin_server_ts,
    }

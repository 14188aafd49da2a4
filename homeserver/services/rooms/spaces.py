"""Spaces: walking the tree of rooms below one.

https://spec.matrix.org/v1.19/client-server-api/#discovering-rooms-within-spaces
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from homeserver.services.errors import Forbidden, InvalidParam, NotFound
from homeserver.services.rooms.access import Access
from homeserver.services.rooms.remote_spaces import RemoteSpaces
from homeserver.services.rooms.room import CREATE, Room
from homeserver.services.rooms.summaries import room_summary
from matrix.identifiers import is_room_id, is_server_name
from storage.events import StoredEvent

DEFAULT_PAGE_ROOMS = 50
MAX_PAGE_ROOMS = 200
DEFAULT_DEPTH = 10
MAX_DEPTH = 50
MAX_WALKED_ROOMS = 2000
MAX_CHILDREN = 1000
MAX_VIA = 10

# Rooms already told, depth, whether only suggested rooms: what may not change between pages.
TOKEN = re.compile(r"h(?P<told>[0-9]{1,6})_(?P<depth>[0-9]{1,4})_(?P<suggested>[01])", re.ASCII)
ORDER = re.compile(r"[\x20-\x7e]{1,50}")


class Node(NamedTuple):
    """A room of the tree: what is told of it, and the rooms below it with servers that know these, in their order."""

    room_id: str
    chunk: dict[str, Any]
    children: list[tuple[str, list[str]]]


class Spaces:
    """Tells what rooms a space holds, as far as a user may know of them."""

    def __init__(self, access: Access, remote: RemoteSpaces) -> None:
        self._access = access
        self._remote = remote

    async def hierarchy(
        self, user_id: str, room_id: str, *, limit: int, max_depth: int, suggested_only: bool, since: str | None
    ) -> dict[str, Any]:
        """A page of the tree below a room, depth first, each room once: a loop ends where it began.

        The tree is walked anew for each page, which has a bound: a page tells what is below as it is now. Rooms that
        this server is not in are asked of those that the tree names. Raises Forbidden, InvalidParam.
        """
        max_depth = min(max_depth, MAX_DEPTH)
        told = _parse_token(since, max_depth, suggested_only)
        root = await self._node(user_id, room_id, [], suggested_only)
        if root is None:
            raise Forbidden("You are not allowed to view this room")
        page: list[dict[str, Any]] = []
        seen: set[str] = set()
        waiting = [(root, 0)]
        while waiting and len(seen) < MAX_WALKED_ROOMS:
            node, depth = waiting.pop()
            if node.room_id in seen:
                continue
            if len(page) == limit:
                token = f"h{told + limit}_{max_depth}_{int(suggested_only)}"
                return {"rooms": page, "next_batch": token}
            if len(seen) >= told:
                page.append(node.chunk)
            seen.add(node.room_id)
            if depth < max_depth:
                below = [
                    await self._node(user_id, child_id, via, suggested_only)
                    for child_id, via in node.children
                    if child_id not in seen
                ]
                waiting += [(child, depth + 1) for child in reversed(below) if child is not None]
        return {"rooms": page}

    async def _node(self, user_id: str, room_id: str, via: Sequence[str], suggested_only: bool) -> Node | None:
        """A room as the user may know of it; None if they may not, or nobody tells."""
        try:
            room = await self._access.access_previewable_room(user_id, room_id)
        except NotFound:
            if await self._access.find_resident_room(room_id) is not None:
                return None
            chunk = await self._remote.chunk(room_id, via, suggested_only=suggested_only)
            if chunk is None or not await self._may_know(user_id, chunk):
                return None
            return Node(room_id, chunk, children_of(chunk))
        return _local_node(room, suggested_only)

    async def _may_know(self, user_id: str, chunk: dict[str, Any]) -> bool:
        """Whether a room of others, which they show to this server, is one that the user may know of."""
        if chunk.get("world_readable") or chunk.get("join_rule") in ("public", "knock", "knock_restricted"):
            return True
        allowed = chunk.get("allowed_room_ids")
        for room_id in allowed[:MAX_CHILDREN] if isinstance(allowed, list) else ():
            if isinstance(room_id, str) and await self._access.is_member(user_id, room_id):
                return True
        return False

    async def for_server(self, server_name: str, room_id: str, *, suggested_only: bool) -> dict[str, Any]:
        """A room and those right below it, for another server. Raises NotFound.

        https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1hierarchyroomid
        """
        room = await self._access.access_room_previewable_by(server_name, room_id)
        node = _local_node(room, suggested_only)
        children, inaccessible = [], []
        for child_id, _ in node.children:
            if await self._access.find_resident_room(child_id) is None:
                continue  # others may know
            try:
                child = await self._access.access_room_previewable_by(server_name, child_id)
                children.append(_local_node(child, suggested_only).chunk)
            except NotFound:
                inaccessible.append(child_id)
        return {"room": node.chunk, "children": children, "inaccessible_children": inaccessible}


def _local_node(room: Room, suggested_only: bool) -> Node:
    children = [_stripped(child) for child in (_children(room, suggested_only) if _is_space(room) else [])]
    chunk = {**room_summary(room), "children_state": children}
    return Node(room.room_id, chunk, children_of(chunk))


def children_of(chunk: dict[str, Any]) -> list[tuple[str, list[str]]]:
    """The rooms below one, of what is told of it: (room ID, servers to ask)."""
    found = []
    state = chunk.get("children_state")
    for child in state[:MAX_CHILDREN] if isinstance(state, list) else ():
        content = child.get("content") if isinstance(child, dict) else None
        via = content.get("via") if isinstance(content, dict) else None
        if isinstance(via, list) and is_room_id(child.get("state_key")):
            found.append((child["state_key"], [name for name in via[:MAX_VIA] if is_server_name(name)]))
    return found


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

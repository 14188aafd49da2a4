"""Rooms of a space that this server is not in, as other servers describe them.

https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1hierarchyroomid
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from homeserver.clock import Clock
from homeserver.logs import get_logger
from homeserver.services.remote import RemoteFailure, Transport, for_clients
from homeserver.services.rooms.remote_directory import describe_room

log = get_logger(__name__)

MAX_SERVERS_TRIED = 3
MAX_CACHED_ROOMS = 2000
MAX_AGE_MS = 300_000
TIMEOUT_MS = 10_000
MAX_ANSWER_BYTES = 4 * 1024 * 1024
MAX_CHILDREN = 1000
KEPT = ("allowed_room_ids", "encryption", "room_version")


class RemoteSpaces:
    """Asks for rooms, and keeps the answers for a while."""

    def __init__(self, transport: Transport, clock: Clock, *, server_name: str) -> None:
        self._transport = transport
        self._clock = clock
        self._server_name = server_name
        self._known: OrderedDict[str, tuple[int, dict[str, Any] | None]] = OrderedDict()

    async def chunk(self, room_id: str, via: Sequence[str], *, suggested_only: bool) -> dict[str, Any] | None:
        """A room as one of these servers describes it, with `children_state`; None if nobody does."""
        known = self._known.get(room_id)
        if known is not None and self._clock() - known[0] < MAX_AGE_MS:
            return known[1]
        for server in [name for name in via if name != self._server_name][:MAX_SERVERS_TRIED]:
            try:
                answer = await self._ask(server, room_id, suggested_only)
            except RemoteFailure as failure:
                log.info("a room of a space is not known", room_id=room_id, reason=str(failure))
                continue
            self._take(answer)
            if (known := self._known.get(room_id)) is not None:
                return known[1]
        return None

    async def _ask(self, server: str, room_id: str, suggested_only: bool) -> Any:
        answer = await self._transport.request(
            server,
            "GET",
            f"/_matrix/federation/v1/hierarchy/{quote(room_id, safe='')}",
            query=[("suggested_only", "true" if suggested_only else "false")],
            timeout_ms=TIMEOUT_MS,
            max_bytes=MAX_ANSWER_BYTES,
        )
        return for_clients(server, answer)

    def _take(self, answer: Any) -> None:
        """Keeps what an answer says of a room and of those below it, where these are no spaces to be asked about."""
        if not isinstance(answer, dict):
            return
        self._keep(answer.get("room"))
        children, inaccessible = answer.get("children"), answer.get("inaccessible_children")
        for child in children[:MAX_CHILDREN] if isinstance(children, list) else ():
            if isinstance(child, dict) and child.get("room_type") != "m.space":
                self._keep(child)
        for room_id in inaccessible[:MAX_CHILDREN] if isinstance(inaccessible, list) else ():
            if isinstance(room_id, str):
                self._remember(room_id, None)

    def _keep(self, room: Any) -> None:
        described = describe_room(room) if isinstance(room, dict) else None
        if described is None:
            return
        children = room.get("children_state")
        described["children_state"] = children[:MAX_CHILDREN] if isinstance(children, list) else []
        described.update({key: room[key] for key in KEPT if key in room})
        self._remember(described["room_id"], described)

    def _remember(self, room_id: str, chunk: dict[str, Any] | None) -> None:
        self._known[room_id] = (self._clock(), chunk)
        self._known.move_to_end(room_id)
        if len(self._known) > MAX_CACHED_ROOMS:
            self._known.popitem(last=False)

"""Takes in what other servers tell beside events. What does not fit is passed over without a word: nobody waits for it.

A server is believed what it says of its own users, and in rooms only where they are.
https://spec.matrix.org/v1.19/server-server-api/#edus
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from homeserver.logs import get_logger
from homeserver.services.errors import MatrixError
from homeserver.services.presence import Presence, Shown, State
from homeserver.services.receipts import READ, Receipts
from homeserver.services.rooms.access import is_admitted
from homeserver.services.rooms.registry import RoomRegistry
from homeserver.services.rooms.room import Room
from homeserver.services.typing import Typing
from matrix.identifiers import get_domain, is_event_id, is_room_id, is_user_id
from storage.database import CONNECTION_ERRORS

log = get_logger(__name__)

MAX_RECEIPTS = 1_000
"""Most receipts of one EDU that are looked at."""
MAX_PRESENCE = 1_000
"""Most users of one EDU whose presence is looked at."""

Handler = Callable[[str, dict[str, Any]], Awaitable[None]]
"""Takes in the content of an EDU of a server. Raises msgspec.ValidationError, MatrixError for what does not fit."""


class TypingContent(msgspec.Struct):
    """https://spec.matrix.org/v1.19/server-server-api/#typing-notifications"""

    room_id: str
    user_id: str
    typing: bool


class ReceiptData(msgspec.Struct):
    """When something was read, in ms, and in which thread."""

    ts: int = 0
    thread_id: str | None = None


class ReceiptContent(msgspec.Struct):
    """https://spec.matrix.org/v1.19/server-server-api/#receipts"""

    event_ids: list[str]
    data: ReceiptData


class PresenceUpdate(msgspec.Struct):
    """https://spec.matrix.org/v1.19/server-server-api/#presence"""

    user_id: str
    presence: State
    last_active_ago: int = 0
    currently_active: bool = False
    status_msg: str | None = None


class PresenceContent(msgspec.Struct):
    """Users, whose presence is checked one by one."""

    push: list[dict[str, Any]]


class IncomingEdus:
    """Receives EDUs: `handlers` has a function for each type, others are passed over."""

    def __init__(self, registry: RoomRegistry, typing: Typing, receipts: Receipts, presence: Presence) -> None:
        self._registry = registry
        self._typing = typing
        self._receipts = receipts
        self._presence = presence
        self.handlers: dict[str, Handler] = {
            "m.typing": self._receive_typing,
            "m.receipt": self._receive_receipts,
            "m.presence": self._receive_presence,
        }

    async def receive(self, origin: str, edus: Sequence[object]) -> None:
        """Takes in the EDUs of a transaction, one after another. Raises what keeps a lasting one from being stored."""
        for edu in edus:
            edu_type, content = (edu.get("edu_type"), edu.get("content")) if isinstance(edu, dict) else (None, None)
            handler = self.handlers.get(edu_type) if isinstance(edu_type, str) else None
            if handler is None or not isinstance(content, dict):
                continue
            try:
                await handler(origin, content)
            except msgspec.ValidationError:
                log.debug("an EDU was passed over", origin=origin, edu_type=edu_type)
            except MatrixError as error:
                if error.status >= 500 and edu_type not in FLEETING:
                    raise
            except CONNECTION_ERRORS:
                if edu_type not in FLEETING:
                    raise

    async def _room(self, origin: str, room_id: str) -> Room | None:
        """A room that somebody here is in, and that lets the server in."""
        if not is_room_id(room_id) or "\0" in room_id:
            return None
        room = await self._registry.load(room_id)
        return room if room is not None and room.local_joined and is_admitted(room, origin) else None

    async def _receive_typing(self, origin: str, content: dict[str, Any]) -> None:
        typing = msgspec.convert(content, TypingContent)
        if not is_user_of(typing.user_id, origin):
            return
        room = await self._room(origin, typing.room_id)
        if room is not None and room.membership(typing.user_id) == "join":
            await self._typing.set_remote(room, typing.user_id, typing.typing)

    async def _receive_receipts(self, origin: str, content: dict[str, Any]) -> None:
        left = MAX_RECEIPTS
        for room_id, kinds in content.items():
            left -= 1  # a room with nothing in it is looked up, too
            readers = kinds.get(READ) if isinstance(kinds, dict) else None
            if left < 0 or not isinstance(readers, dict) or not readers:
                continue
            if (room := await self._room(origin, room_id)) is None:
                continue
            for user_id, receipt in list(_receipts(readers))[: left + 1]:
                left -= 1
                if is_user_of(user_id, origin) and room.membership(user_id) == "join":
                    await self._receive_receipt(room, user_id, receipt)

    async def _receive_receipt(self, room: Room, user_id: str, receipt: ReceiptContent) -> None:
        thread_id, event_id = receipt.data.thread_id, receipt.event_ids[0] if receipt.event_ids else ""
        if is_event_id(event_id) and "\0" not in event_id + (thread_id or ""):
            await self._receipts.set_remote(room, user_id, event_id, thread_id=thread_id, ts=receipt.data.ts)

    async def _receive_presence(self, origin: str, content: dict[str, Any]) -> None:
        for one in msgspec.convert(content, PresenceContent).push[:MAX_PRESENCE]:
            try:
                update = msgspec.convert(one, PresenceUpdate)
            except msgspec.ValidationError:
                continue
            if is_user_of(update.user_id, origin):
                shown = Shown(update.presence, update.currently_active, update.status_msg or None)
                await self._presence.set_remote(update.user_id, shown, update.last_active_ago)


FLEETING = frozenset(("m.typing", "m.receipt", "m.presence"))
"""What may be lost: nobody is told again what could not be taken in for a fault of this server."""


def is_user_of(user_id: str, server_name: str) -> bool:
    """Whether this is the ID of a user of a server."""
    return is_user_id(user_id) and "\0" not in user_id and get_domain(user_id) == server_name


def _receipts(readers: Mapping[str, object]) -> Iterator[tuple[str, ReceiptContent]]:
    for user_id, receipt in readers.items():
        try:
            yield user_id, msgspec.convert(receipt, ReceiptContent)
        except msgspec.ValidationError:
            continue

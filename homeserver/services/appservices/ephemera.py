"""What a service is told that no event is: typing, receipts and presence, gathered until it can be handed over.

https://spec.matrix.org/v1.19/application-service-api/#pushing-ephemeral-data

Of each typing room, receipt and user only the newest is kept, and only so many of them: for a service that is down
for long the oldest are dropped, as nobody wants to know any more who typed then.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import orjson

from homeserver.services.rooms.room import Room
from storage.user_data import ReceiptRow

MAX_TYPING_ROOMS = 1_000
MAX_RECEIPTS = 5_000
MAX_USERS = 5_000
MAX_AT_ONCE = 100
"""How many go into one transaction."""

ReceiptKey = tuple[str, str, str, str]


class Ephemera:
    """What one service has still to be told. `add_…` while publishing, `take` for a transaction."""

    def __init__(self, presence_of: Callable[[str], dict[str, Any] | None]) -> None:
        self._presence_of = presence_of
        self._typing: OrderedDict[str, Room] = OrderedDict()
        self._receipts: OrderedDict[ReceiptKey, ReceiptRow] = OrderedDict()
        self._users: OrderedDict[str, None] = OrderedDict()

    def __bool__(self) -> bool:
        return bool(self._typing or self._receipts or self._users)

    def add_typing(self, room: Room) -> None:
        """Who types in a room has changed."""
        _put(self._typing, room.room_id, room, MAX_TYPING_ROOMS)

    def add_receipt(self, room: Room, row: ReceiptRow) -> None:
        """Somebody has read further."""
        _put(self._receipts, (room.room_id, row.user_id, row.type, row.thread_id), row, MAX_RECEIPTS)

    def add_presence(self, user_id: str) -> None:
        """A user's presence has changed."""
        _put(self._users, user_id, None, MAX_USERS)

    def take(self) -> list[dict[str, Any]]:
        """The oldest of what there is, MAX_AT_ONCE at most, as ephemeral events of the API."""
        events: list[dict[str, Any]] = []
        while self._typing and len(events) < MAX_AT_ONCE:
            room_id, room = self._typing.popitem(last=False)
            events.append({"type": "m.typing", "room_id": room_id, "content": {"user_ids": list(room.typing)}})
        while self._users and len(events) < MAX_AT_ONCE:
            user_id, _ = self._users.popitem(last=False)
            content = self._presence_of(user_id)
            if content is not None:
                events.append({"type": "m.presence", "sender": user_id, "content": content})
        return events + self._take_receipts(MAX_AT_ONCE - len(events))

    def _take_receipts(self, limit: int) -> list[dict[str, Any]]:
        """Receipts as events, one a room; a user with receipts of two threads for an event needs another."""
        events: list[dict[str, Any]] = []
        for _ in range(limit):
            if not self._receipts:
                break
            (room_id, user_id, type, thread_id), row = self._receipts.popitem(last=False)
            shown: dict[str, Any] = {"ts": row.ts}
            if thread_id:
                shown["thread_id"] = thread_id
            for event in events:
                readers = event["content"].get(row.event_id, {}).get(type, {})
                if event["room_id"] == room_id and user_id not in readers:
                    event["content"].setdefault(row.event_id, {}).setdefault(type, {})[user_id] = shown
                    break
            else:
                content = {row.event_id: {type: {user_id: shown}}}
                events.append({"type": "m.receipt", "room_id": room_id, "content": content})
        return events


def ephemeral_json(events: list[dict[str, Any]], *, is_unstable: bool) -> dict[str, Any]:
    """The part of a transaction that holds ephemeral events, under the name that the service knows."""
    return {("de.sorunome.msc2409.ephemeral" if is_unstable else "ephemeral"): events} if events else {}


def _put(entries: OrderedDict[Any, Any], key: Any, value: Any, maximum: int) -> None:
    entries[key] = value
    entries.move_to_end(key)
    if len(entries) > maximum:
        entries.popitem(last=False)


def encode_extra(parts: dict[str, Any]) -> bytes:
    """The parts of a transaction beside its events, as JSON."""
    return orjson.dumps(parts)

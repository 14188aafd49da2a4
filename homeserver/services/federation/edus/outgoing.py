"""Tells other servers who types here, who has read what, and who is there.

Typing is told at once. Receipts and presence are gathered for FLUSH_INTERVAL_S, of each only the newest.
https://spec.matrix.org/v1.19/server-server-api/#edus
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Any

from homeserver.services.federation.sending.edus import Edu
from homeserver.services.federation.sending.sender import Sender
from homeserver.services.receipts import READ
from homeserver.services.rooms.room import Room
from storage.user_data import ReceiptRow

FLUSH_INTERVAL_S = 1.0
MAX_GATHERED = 10_000
"""Most receipts, and most users' presence, that are gathered; what comes beyond is not told."""


class OutgoingEdus:
    """Hands EDUs to the sender, for the servers whom they concern."""

    def __init__(self, sender: Sender) -> None:
        self._sender = sender
        self._receipts: dict[tuple[Room, str, str], ReceiptRow] = {}
        self._presence: dict[str, tuple[set[str], dict[str, Any]]] = {}

    def on_typing(self, room: Room, user_id: str, typing: bool) -> None:
        """A user of this server types, or has stopped (a `TypingObserver`)."""
        if room.is_shared:
            content = {"room_id": room.room_id, "user_id": user_id, "typing": typing}
            self._sender.send_edu(room.servers, ("m.typing", room.room_id, user_id), Edu("m.typing", content))

    def on_receipt(self, room: Room, row: ReceiptRow) -> None:
        """A user of this server has read something (a `ReceiptObserver`). Others are told of public receipts only."""
        if row.type != READ or not room.is_shared or not row.user_id.endswith(room.domain):
            return
        key = (room, row.user_id, row.thread_id)
        if key in self._receipts or len(self._receipts) < MAX_GATHERED:
            self._receipts[key] = row

    def on_presence(self, user_id: str, rooms: Collection[Room], content: dict[str, Any]) -> None:
        """A user of this server comes, goes or says something (a `PresenceObserver`)."""
        servers = {server for room in rooms if room.is_shared for server in room.servers}
        if servers and (user_id in self._presence or len(self._presence) < MAX_GATHERED):
            self._presence[user_id] = (servers, content)

    async def flush_forever(self) -> None:
        """Sends what was gathered, at an interval, until cancelled."""
        while True:
            await asyncio.sleep(FLUSH_INTERVAL_S)
            self.flush()

    def flush(self) -> None:
        """Sends what was gathered."""
        receipts, self._receipts = self._receipts, {}
        for (room, user_id, thread_id), row in receipts.items():
            data: dict[str, Any] = {"ts": row.ts}
            if thread_id:
                data["thread_id"] = thread_id
            content = {room.room_id: {READ: {user_id: {"data": data, "event_ids": [row.event_id]}}}}
            key = ("m.receipt", room.room_id, user_id, thread_id)
            self._sender.send_edu(room.servers, key, Edu("m.receipt", content))
        presence, self._presence = self._presence, {}
        for user_id, (servers, content) in presence.items():
            # It has to be told of everybody: who has done nothing since they came has just come.
            edu = Edu("m.presence", {"push": [{"user_id": user_id, "last_active_ago": 0, **content}]})
            self._sender.send_edu(servers, ("m.presence", user_id), edu)

"""A client that follows /sync as the specification tells clients to, and keeps what it was told."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import orjson

from tests.client import User

Event = dict[str, Any]


class Follower:
    """Follows one user's rooms from token to token; gaps of limited timelines are filled by /messages.

    `timelines` holds each room's events in order, `state` what the `state` and `timeline` of the answers make of the
    room's state: (type, state_key) -> event ID. With `state_after` it is what `state_after` alone makes of it.
    """

    def __init__(self, user: User, *, state_after: bool = False) -> None:
        self.user = user
        self.state_after = state_after
        self.token: str | None = None
        self.timelines: dict[str, list[Event]] = {}
        self.state: dict[str, dict[tuple[str, str], str]] = {}
        self.counts: dict[str, tuple[int, int]] = {}

    async def follow(self, *, timeline_limit: int, timeout: int = 0) -> None:
        """One /sync, and what it takes to have no gap after it. Interrupted, it has not happened."""
        sync_filter = orjson.dumps({"room": {"timeline": {"limit": timeline_limit}}}).decode()
        asked = {"use_state_after": "true"} if self.state_after else {}
        answer = await self.user.sync(self.token, timeout=timeout, filter=sync_filter, **asked)
        sections = answer.get("rooms", {})
        rooms = sections.get("join", {}) | sections.get("leave", {})
        gaps = {
            room_id: await self._gap(room_id, room["timeline"]["prev_batch"])
            for room_id, room in rooms.items()
            if room["timeline"].get("limited")
        }
        for room_id, room in rooms.items():
            self._take(room_id, room, gaps.get(room_id, []))
        self.token = answer["next_batch"]

    def _take(self, room_id: str, room: dict[str, Any], gap: list[Event]) -> None:
        self.timelines.setdefault(room_id, []).extend(gap + room["timeline"]["events"])
        state = self.state.setdefault(room_id, {})
        if self.state_after:
            assert "state" not in room
            told = room["state_after"]["events"]
        else:
            assert "state_after" not in room
            told = room.get("state", {}).get("events", []) + room["timeline"]["events"]
        for event in told:
            if "state_key" in event:
                state[event["type"], event["state_key"]] = event["event_id"]
        if (unread := room.get("unread_notifications")) is not None:
            self.counts[room_id] = unread["notification_count"], unread["highlight_count"]

    async def _gap(self, room_id: str, prev_batch: str) -> list[Event]:
        """What lies between the last answer and a limited timeline, in order."""
        until = self.token if self.timelines.get(room_id) else None
        return (await page_back(self.user, room_id, start=prev_batch, until=until))[::-1]

    def event_ids(self, room_id: str) -> list[str]:
        """The IDs of the room's events, in the order in which they were told."""
        return [event["event_id"] for event in self.timelines.get(room_id, [])]


async def page_back(
    user: User, room_id: str, *, start: str | None = None, until: str | None = None, limit: int = 1000
) -> list[Event]:
    """The room's events by /messages, newest first, from one token back to another (or to the beginning)."""
    found: list[Event] = []
    while True:
        query: dict[str, Any] = {"dir": "b", "limit": limit}
        query |= {"from": start} if start else {}
        query |= {"to": until} if until else {}
        answer = (await user.in_room("GET", room_id, "messages", **query)).ok()
        found += answer["chunk"]
        start = answer.get("end")
        if start is None:
            return found


async def read_state(user: User, room_id: str) -> dict[tuple[str, str], str]:
    """The room's state by /state: (type, state_key) -> event ID."""
    events = (await user.request("GET", f"rooms/{quote(room_id, safe='')}/state")).ok()
    return {(event["type"], event["state_key"]): event["event_id"] for event in events}

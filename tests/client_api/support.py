"""What the tests of the client API share: reading answers, paging, raw HTTP."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import quote

from tests.client import Answer, Homeserver, User


def encode(part: str) -> str:
    """A path segment or a query value, percent-encoded."""
    return quote(part, safe="")


def joined(sync: dict[str, Any], room_id: str) -> dict[str, Any]:
    """The part of a /sync about a room that the user is in; empty if there is none."""
    part: dict[str, Any] = sync["rooms"].get("join", {}).get(room_id, {})
    return part


def timeline_ids(part: dict[str, Any]) -> list[str]:
    """The event IDs of a room's timeline."""
    return [event["event_id"] for event in part["timeline"]["events"]] if part else []


def state_of(part: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    """The `state` of a room's part of a /sync: (type, state_key) -> content. Each key may be there once."""
    events = part.get("state", {"events": []})["events"]
    state = {(event["type"], event["state_key"]): event["content"] for event in events}
    assert len(state) == len(events), "a state key is there twice"
    return state


def ephemeral(part: dict[str, Any], type: str) -> dict[str, Any] | None:
    """The content of the one ephemeral event of a type."""
    found = [event["content"] for event in part.get("ephemeral", {}).get("events", ()) if event["type"] == type]
    assert len(found) <= 1
    return found[0] if found else None


async def make_room(*members: User, creator: User, **options: Any) -> str:
    """A public room that these users have joined."""
    room_id = await creator.create_room(**{"preset": "public_chat", **options})
    for member in members:
        await member.join(room_id)
    return room_id


async def page_through(
    user: User, room_id: str, direction: str, *, limit: int, start: str | None = None, **query: Any
) -> list[dict[str, Any]]:
    """All events that following /messages gives, page by page, to the end."""
    events: list[dict[str, Any]] = []
    for _ in range(1000):
        if start is not None:
            query["from"] = start
        page = (await user.in_room("GET", room_id, "messages", dir=direction, limit=limit, **query)).ok()
        assert len(page["chunk"]) <= limit
        events += page["chunk"]
        if "end" not in page:
            return events
        assert page["end"] != start, "paging stands still"
        start = page["end"]
    raise AssertionError("paging has no end")


async def state_event(user: User, room_id: str, type: str, state_key: str = "") -> Answer:
    """One piece of a room's state."""
    return await user.in_room("GET", room_id, f"state/{encode(type)}/{encode(state_key)}")


async def membership_of(user: User, room_id: str, member: User) -> str | None:
    """A member's membership as a member sees it."""
    answer = await state_event(user, room_id, "m.room.member", member.user_id)
    return answer.json.get("membership") if answer.status == 200 else None


async def raw_http(homeserver: Homeserver, request: bytes, *, answers: int = 1) -> list[tuple[int, bytes, bytes]]:
    """Writes bytes on a connection and reads that many answers: (status, head, body) of each."""
    host, port = homeserver.base_url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(request)
        found = []
        for _ in range(answers):
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
            length = 0
            for line in head.split(b"\r\n"):
                name, _, value = line.partition(b":")
                if name.lower() == b"content-length":
                    length = int(value)
            found.append((int(head.split(b" ", 2)[1]), head, await asyncio.wait_for(reader.readexactly(length), 10)))
        return found
    finally:
        writer.close()
        await writer.wait_closed()

"""Two people chat: the road that every message takes."""

from __future__ import annotations

import asyncio
from urllib.parse import quote

import pytest

from matrix.room_versions import ROOM_VERSIONS
from tests.client import Homeserver


@pytest.mark.parametrize("version", ROOM_VERSIONS)
async def test_a_message_reaches_a_waiting_sync_in_every_room_version(
    shared_homeserver: Homeserver, version: str
) -> None:
    alice, bob = await shared_homeserver.register(), await shared_homeserver.register()
    room_id = await alice.create_room(preset="private_chat", invite=[bob.user_id], room_version=version)
    invited = await bob.sync()
    assert room_id in invited["rooms"]["invite"]
    await bob.join(room_id)
    since = (await bob.sync())["next_batch"]
    waiting = asyncio.create_task(bob.sync(since, timeout=30_000))
    event_id = await alice.send(room_id, "hello", txn_id="1")
    room = (await waiting)["rooms"]["join"][room_id]
    assert [event["event_id"] for event in room["timeline"]["events"]] == [event_id]
    assert room["unread_notifications"] == {"notification_count": 1, "highlight_count": 0}


async def test_a_redacted_message_loses_its_content(shared_homeserver: Homeserver) -> None:
    alice = await shared_homeserver.register()
    room_id = await alice.create_room()
    event_id = await alice.send(room_id, "oops")
    (await alice.in_room("PUT", room_id, f"redact/{quote(event_id, safe='')}/r", {"reason": "typo"})).ok()
    event = (await alice.in_room("GET", room_id, f"event/{quote(event_id, safe='')}")).ok()
    assert event["content"] == {}
    assert event["unsigned"]["redacted_because"]["content"]["reason"] == "typo"

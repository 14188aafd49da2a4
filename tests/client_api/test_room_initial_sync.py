"""https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidinitialsync"""

from __future__ import annotations

from typing import Any

from tests.client import Homeserver, User
from tests.client_api.support import encode, make_room, page_through


async def initial_sync(user: User, room_id: str, **query: Any) -> Any:
    return (await user.in_room("GET", room_id, "initialSync", **query)).ok()


async def test_a_room_is_shown_whole(shared_homeserver: Homeserver) -> None:
    alice, bob = await shared_homeserver.register(), await shared_homeserver.register()
    room_id = await make_room(creator=alice, visibility="public")
    sent = [await alice.send(room_id, f"{number}") for number in range(4)]
    path = f"user/{encode(alice.user_id)}/rooms/{encode(room_id)}/account_data/org.example"
    (await alice.request("PUT", path, {"kept": True})).ok()
    shown = await initial_sync(alice, room_id, limit=3)
    assert (shown["room_id"], shown["membership"], shown["visibility"]) == (room_id, "join", "public")
    assert [event["event_id"] for event in shown["messages"]["chunk"]] == sent[1:]
    assert {event["type"] for event in shown["state"]} >= {"m.room.create", "m.room.member", "m.room.power_levels"}
    assert shown["account_data"] == [{"type": "org.example", "content": {"kept": True}}]
    older = await page_through(alice, room_id, "b", limit=50, start=shown["messages"]["start"])
    assert older[0]["event_id"] == sent[0]
    assert await page_through(alice, room_id, "f", limit=50, start=shown["messages"]["end"]) == []
    assert "start" not in (await initial_sync(alice, room_id, limit=1000))["messages"]
    (await bob.in_room("GET", room_id, "initialSync")).error(403, "M_FORBIDDEN")
    (await bob.in_room("GET", "!unknown:weft.test", "initialSync")).error(403, "M_FORBIDDEN")
    (await alice.in_room("GET", room_id, "initialSync", limit=0)).error(400, "M_INVALID_PARAM")


async def test_who_looks_in_sees_what_the_world_may_read(shared_homeserver: Homeserver) -> None:
    alice, bob = await shared_homeserver.register(), await shared_homeserver.register()
    room_id = await make_room(creator=alice)
    await alice.send(room_id, "before")
    await alice.set_state(room_id, "m.room.history_visibility", {"history_visibility": "world_readable"})
    after = await alice.send(room_id, "after")
    shown = await initial_sync(bob, room_id)
    assert "membership" not in shown
    assert [event["event_id"] for event in shown["messages"]["chunk"]][-1] == after
    assert "before" not in [event["content"].get("body") for event in shown["messages"]["chunk"]]
    assert shown["account_data"] == []

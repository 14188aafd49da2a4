"""State as of the end of the timeline: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3sync"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.client import Homeserver, User
from tests.client_api.support import joined, make_room, timeline_ids

LAZY = '{"room":{"state":{"lazy_load_members":true},"timeline":{"limit":10}}}'


async def told(user: User, room_id: str, since: str | None = None, **query: Any) -> tuple[dict[str, Any], str]:
    """A room's part of a sync with the state after the timeline, and the next token."""
    answer = await user.sync(since, use_state_after="true", **query)
    part = joined(answer, room_id)
    assert "state" not in part
    return part, answer["next_batch"]


def state_after(part: dict[str, Any]) -> dict[tuple[str, str], Any]:
    events = part["state_after"]["events"]
    state = {(event["type"], event["state_key"]): event["content"] for event in events}
    assert len(state) == len(events)
    return state


@pytest.fixture
async def alice(shared_homeserver: Homeserver) -> User:
    return await shared_homeserver.register()


@pytest.fixture
async def bob(shared_homeserver: Homeserver) -> User:
    return await shared_homeserver.register()


async def test_the_state_is_that_of_the_end(alice: User, bob: User) -> None:
    room_id = await make_room(bob, creator=alice)
    await alice.set_state(room_id, "m.room.topic", {"topic": "first"})
    part, since = await told(alice, room_id, filter='{"room":{"timeline":{"limit":1}}}')
    state = state_after(part)
    assert state["m.room.topic", ""] == {"topic": "first"}
    assert {("m.room.create", ""), ("m.room.member", alice.user_id), ("m.room.member", bob.user_id)} <= set(state)
    topic = await alice.set_state(room_id, "m.room.topic", {"topic": "second"})
    part, since = await told(alice, room_id, since)
    assert timeline_ids(part) == [topic]
    assert state_after(part) == {("m.room.topic", ""): {"topic": "second"}}
    await alice.set_state(room_id, "m.room.topic", {"topic": "third"})
    await alice.set_state(room_id, "m.room.name", {"name": "name"})
    for n in range(3):
        await bob.send(room_id, str(n))
    part, since = await told(alice, room_id, since, filter='{"room":{"timeline":{"limit":2}}}')
    assert part["timeline"]["limited"]
    assert state_after(part) == {("m.room.topic", ""): {"topic": "third"}, ("m.room.name", ""): {"name": "name"}}
    await bob.send(room_id, "message")
    part, since = await told(alice, room_id, since)
    assert state_after(part) == {}
    part, _ = await told(alice, room_id, since, full_state="true")
    assert state_after(part)["m.room.topic", ""] == {"topic": "third"}


async def test_a_filtered_timeline_hides_no_change_of_the_state(alice: User) -> None:
    room_id = await make_room(creator=alice)
    _, since = await told(alice, room_id)
    await alice.set_state(room_id, "m.room.topic", {"topic": "new"})
    only_messages = '{"room":{"timeline":{"types":["m.room.message"]}}}'
    part, _ = await told(alice, room_id, since, filter=only_messages)
    assert timeline_ids(part) == []
    assert state_after(part) == {("m.room.topic", ""): {"topic": "new"}}


async def test_after_more_than_memory_holds(alice: User, bob: User) -> None:
    room_id = await make_room(bob, creator=alice)
    _, since = await told(alice, room_id)
    await alice.set_state(room_id, "m.room.topic", {"topic": "old"})
    for n in range(100):
        await bob.send(room_id, str(n))
    part, _ = await told(alice, room_id, since)
    assert state_after(part) == {("m.room.topic", ""): {"topic": "old"}}


async def test_waiting_members_are_told_that_no_state_changed(alice: User, bob: User) -> None:
    room_id = await make_room(bob, creator=alice)
    _, since = await told(bob, room_id)
    waiting = asyncio.create_task(told(bob, room_id, since, timeout=10_000))
    plain = asyncio.create_task(bob.sync(since, timeout=10_000))
    sent = await alice.send(room_id, "message")
    part, _ = await waiting
    assert (timeline_ids(part), part["state_after"]) == ([sent], {"events": []})
    assert "state_after" not in joined(await plain, room_id)


async def test_lazily_loaded_members_who_come_or_go_are_told(alice: User, bob: User) -> None:
    room_id = await make_room(bob, creator=alice)
    carol = await alice.homeserver.register()
    await carol.join(room_id)
    _, since = await told(alice, room_id, filter=LAZY)
    (await alice.in_room("POST", room_id, "kick", {"user_id": bob.user_id})).ok()
    part, since = await told(alice, room_id, since, filter=LAZY)
    assert state_after(part)["m.room.member", bob.user_id]["membership"] == "leave"
    await carol.send(room_id, "message")
    part, since = await told(alice, room_id, since, filter=LAZY)
    assert ("m.room.member", bob.user_id) not in state_after(part)


async def test_a_room_that_was_left_has_its_last_state(alice: User, bob: User) -> None:
    room_id = await make_room(bob, creator=alice)
    since = (await bob.sync(use_state_after="true"))["next_batch"]
    await alice.set_state(room_id, "m.room.topic", {"topic": "new"})
    (await bob.in_room("POST", room_id, "leave", {})).ok()
    await alice.set_state(room_id, "m.room.topic", {"topic": "newer"})
    part = (await bob.sync(since, use_state_after="true"))["rooms"]["leave"][room_id]
    assert "state" not in part
    state = state_after(part)
    assert state["m.room.topic", ""] == {"topic": "new"}
    assert state["m.room.member", bob.user_id]["membership"] == "leave"


async def test_the_parameter_is_a_boolean(alice: User) -> None:
    (await alice.request("GET", "sync", use_state_after="yes")).error(400, "M_INVALID_PARAM")

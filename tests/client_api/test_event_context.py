"""Events around an event, and the event nearest to a moment.

https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidcontexteventid
https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1roomsroomidtimestamp_to_event
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.client import Answer, Homeserver, User
from tests.client_api.support import encode, make_room, page_through


@pytest.fixture
async def alice(shared_homeserver: Homeserver) -> User:
    return await shared_homeserver.register()


@pytest.fixture
async def bob(shared_homeserver: Homeserver) -> User:
    return await shared_homeserver.register()


@pytest.fixture
async def room_id(alice: User, bob: User) -> str:
    return await make_room(bob, creator=alice)


async def context_of(user: User, room_id: str, event_id: str, **query: Any) -> dict[str, Any]:
    context: dict[str, Any] = (await user.in_room("GET", room_id, f"context/{encode(event_id)}", **query)).ok()
    return context


def ids(events: list[dict[str, Any]]) -> list[str]:
    return [event["event_id"] for event in events]


async def at_time(user: User, room_id: str, **query: Any) -> Answer:
    return await user.request("GET", f"/_matrix/client/v1/rooms/{encode(room_id)}/timestamp_to_event", **query)


async def test_the_events_around_an_event(alice: User, room_id: str) -> None:
    sent = [await alice.send(room_id, str(n)) for n in range(9)]
    await alice.set_state(room_id, "m.room.topic", {"topic": "later"})
    context = await context_of(alice, room_id, sent[4], limit=4)
    assert context["event"]["event_id"] == sent[4]
    assert context["event"]["room_id"] == room_id
    assert ids(context["events_before"]) == [sent[3], sent[2]]
    assert ids(context["events_after"]) == [sent[5], sent[6]]
    assert "m.room.topic" not in {event["type"] for event in context["state"]}
    assert {event["state_key"] for event in context["state"] if event["type"] == "m.room.member"} > {alice.user_id}
    before = await page_through(alice, room_id, "b", limit=3, start=context["start"])
    assert ids(before)[:2] == [sent[1], sent[0]]
    after = await page_through(alice, room_id, "f", limit=3, start=context["end"])
    assert ids(after)[:2] == [sent[7], sent[8]]
    whole = await context_of(alice, room_id, sent[4], limit=100)
    assert [*ids(whole["events_before"])[:4][::-1], sent[4], *ids(whole["events_after"])[:4]] == sent
    assert "m.room.topic" in {event["type"] for event in whole["state"]}
    assert await page_through(alice, room_id, "f", limit=3, start=whole["end"]) == []


async def test_a_context_of_nothing_but_the_event(alice: User, room_id: str) -> None:
    sent = [await alice.send(room_id, str(n)) for n in range(3)]
    context = await context_of(alice, room_id, sent[1], limit=0)
    assert (context["events_before"], context["events_after"]) == ([], [])
    assert ids(await page_through(alice, room_id, "b", limit=3, start=context["start"]))[0] == sent[0]
    assert ids(await page_through(alice, room_id, "f", limit=3, start=context["end"])) == [sent[2]]


async def test_a_context_is_filtered(alice: User, bob: User, room_id: str) -> None:
    sent = [await (alice, bob)[n % 2].send(room_id, str(n)) for n in range(5)]
    chosen = f'{{"senders":["{bob.user_id}"]}}'
    context = await context_of(alice, room_id, sent[2], limit=2, filter=chosen)
    assert (ids(context["events_before"]), ids(context["events_after"])) == ([sent[1]], [sent[3]])
    lazy = await context_of(alice, room_id, sent[2], limit=0, filter='{"lazy_load_members":true}')
    assert {e["state_key"] for e in lazy["state"] if e["type"] == "m.room.member"} == {alice.user_id}
    path = f"context/{encode(sent[2])}"
    (await alice.in_room("GET", room_id, path, filter="{")).error(400, "M_INVALID_PARAM")
    (await alice.in_room("GET", room_id, path, limit="-1")).error(400, "M_INVALID_PARAM")


async def test_a_context_shows_what_its_reader_may_see(alice: User, shared_homeserver: Homeserver) -> None:
    room_id = await alice.create_room(preset="public_chat")
    await alice.set_state(room_id, "m.room.history_visibility", {"history_visibility": "joined"})
    hidden = await alice.send(room_id, "before bob")
    bob = await shared_homeserver.register()
    await bob.join(room_id)
    shown = await alice.send(room_id, "with bob")
    (await bob.in_room("POST", room_id, "leave", {})).ok()
    await alice.send(room_id, "after bob")
    (await bob.in_room("GET", room_id, f"context/{encode(hidden)}")).error(404, "M_NOT_FOUND")
    context = await context_of(bob, room_id, shown)
    assert hidden not in ids(context["events_before"])
    assert [event["type"] for event in context["events_after"]] == ["m.room.member"]
    stranger = await shared_homeserver.register()
    (await stranger.in_room("GET", room_id, f"context/{encode(shown)}")).error(404, "M_NOT_FOUND")


async def test_the_event_nearest_to_a_moment(alice: User, room_id: str) -> None:
    sent = [await alice.send(room_id, str(n)) for n in range(3)]
    times = {}
    for event_id in sent:
        event = (await alice.in_room("GET", room_id, f"event/{encode(event_id)}")).ok()
        times[event_id] = event["origin_server_ts"]
    last = times[sent[2]]
    found = (await at_time(alice, room_id, ts=last + 1000, dir="b")).ok()
    assert found == {"event_id": sent[2], "origin_server_ts": last}
    (await at_time(alice, room_id, ts=last + 1000, dir="f")).error(404, "M_NOT_FOUND")
    first = (await at_time(alice, room_id, ts=0, dir="f")).ok()
    create = (await page_through(alice, room_id, "f", limit=10))[0]
    assert first == {"event_id": create["event_id"], "origin_server_ts": create["origin_server_ts"]}
    (await at_time(alice, room_id, ts=0, dir="b")).error(404, "M_NOT_FOUND")
    at = (await at_time(alice, room_id, ts=times[sent[1]], dir="f")).ok()
    assert at["origin_server_ts"] == times[sent[1]]


async def test_moments_that_cannot_be_asked_for(alice: User, room_id: str) -> None:
    (await at_time(alice, room_id, dir="f")).error(400, "M_MISSING_PARAM")
    (await at_time(alice, room_id, ts=1)).error(400, "M_MISSING_PARAM")
    for query in ({"ts": "x", "dir": "f"}, {"ts": "-1", "dir": "f"}, {"ts": 1, "dir": "x"}):
        (await at_time(alice, room_id, **query)).error(400, "M_INVALID_PARAM")
    (await at_time(alice, room_id, ts=2**53 - 1, dir="b")).ok()
    stranger = await alice.homeserver.register()
    (await at_time(stranger, room_id, ts=1, dir="f")).error(403, "M_FORBIDDEN")


async def test_a_moment_finds_only_what_its_reader_may_see(alice: User, shared_homeserver: Homeserver) -> None:
    room_id = await alice.create_room(preset="public_chat")
    await alice.set_state(room_id, "m.room.history_visibility", {"history_visibility": "joined"})
    await alice.send(room_id, "before bob")
    bob = await shared_homeserver.register()
    await bob.join(room_id)
    visible = ids(await page_through(bob, room_id, "f", limit=10))
    assert (await at_time(bob, room_id, ts=0, dir="f")).ok()["event_id"] == visible[0]
    (await bob.in_room("POST", room_id, "leave", {})).ok()
    await alice.send(room_id, "after bob")
    left = (await at_time(bob, room_id, ts=2**53 - 1, dir="b")).ok()["event_id"]
    assert left == ids(await page_through(bob, room_id, "b", limit=10))[0]

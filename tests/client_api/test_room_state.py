"""https://spec.matrix.org/v1.19/client-server-api/#getting-events-for-a-room, and setting state."""

from __future__ import annotations

import secrets

import pytest

from tests.client import Homeserver, User
from tests.client_api.support import encode, make_room, page_through, state_event
from tests.conftest import StartServer


@pytest.fixture
async def alice(shared_homeserver: Homeserver) -> User:
    return await shared_homeserver.register()


@pytest.fixture
async def bob(shared_homeserver: Homeserver) -> User:
    return await shared_homeserver.register()


async def test_an_empty_state_key_goes_with_the_slash_and_without(alice: User) -> None:
    room_id = await alice.create_room()
    for number, path in enumerate(("state/org.example.x", "state/org.example.x/")):
        (await alice.in_room("PUT", room_id, path, {"n": number})).ok()
        for read in ("state/org.example.x", "state/org.example.x/"):
            assert (await alice.in_room("GET", room_id, read)).ok() == {"n": number}
    (await alice.in_room("GET", room_id, "state/org.example.x/key")).error(404, "M_NOT_FOUND")


@pytest.mark.parametrize("key", ["a/b", "é", "#", "?", "%", " ", "+", "..", "x@user:weft.test", "_"])
async def test_any_state_key_can_be_written_and_read(alice: User, key: str) -> None:
    room_id = await alice.create_room()
    event_id = await alice.set_state(room_id, "org.example.x", {"key": key}, key)
    assert (await state_event(alice, room_id, "org.example.x", key)).ok() == {"key": key}
    event = (await alice.in_room("GET", room_id, f"state/org.example.x/{encode(key)}", format="event")).ok()
    assert (event["event_id"], event["state_key"]) == (event_id, key)


async def test_a_state_key_that_is_anothers_user_id_is_theirs(alice: User, bob: User) -> None:
    room_id = await make_room(bob, creator=alice)
    answer = await alice.in_room("PUT", room_id, f"state/org.example.x/{encode(bob.user_id)}", {})
    answer.error(403, "M_FORBIDDEN")
    await alice.set_state(room_id, "org.example.x", {}, alice.user_id)


async def test_the_whole_event_can_be_asked_for(alice: User) -> None:
    room_id = await alice.create_room()
    first = await alice.set_state(room_id, "m.room.topic", {"topic": "one"})
    second = await alice.set_state(room_id, "m.room.topic", {"topic": "two"})
    event = (await alice.in_room("GET", room_id, "state/m.room.topic", format="event")).ok()
    assert event["event_id"] == second
    assert event["content"] == {"topic": "two"}
    assert event["sender"] == alice.user_id
    assert event["room_id"] == room_id
    assert event["state_key"] == ""
    assert event["type"] == "m.room.topic"
    assert event["unsigned"]["prev_content"] == {"topic": "one"}
    assert event["unsigned"]["replaces_state"] == first
    assert event["unsigned"]["age"] >= 0
    assert (await alice.in_room("GET", room_id, "state/m.room.topic", format="content")).ok() == {"topic": "two"}
    (await alice.in_room("GET", room_id, "state/m.room.topic", format="x")).error(400, "M_INVALID_PARAM")


async def test_the_state_is_one_event_for_each_key(alice: User) -> None:
    room_id = await alice.create_room()
    for number in range(5):
        await alice.set_state(room_id, "org.example.x", {"n": number}, "key")
    events = (await alice.in_room("GET", room_id, "state")).ok()
    keys = [(event["type"], event["state_key"]) for event in events]
    assert len(keys) == len(set(keys))
    assert [event["content"] for event in events if event["type"] == "org.example.x"] == [{"n": 4}]
    assert all(event["room_id"] == room_id for event in events)


async def test_the_same_state_again_is_the_same_event(alice: User) -> None:
    room_id = await alice.create_room()
    first = await alice.set_state(room_id, "m.room.topic", {"topic": "x"})
    assert await alice.set_state(room_id, "m.room.topic", {"topic": "x"}) == first
    assert await alice.set_state(room_id, "m.room.topic", {"topic": "y"}) != first
    assert await alice.set_state(room_id, "m.room.topic", {"topic": "x"}) != first


async def test_the_power_to_set_state(alice: User, bob: User) -> None:
    levels = {"events": {"m.room.topic": 0, "m.room.name": 75}, "state_default": 50, "users": {alice.user_id: 100}}
    room_id = await make_room(bob, creator=alice, room_version="11", power_level_content_override=levels)
    await bob.set_state(room_id, "m.room.topic", {"topic": "bob may"})
    for type in ("m.room.name", "org.example.x", "m.room.power_levels", "m.room.join_rules"):
        (await bob.in_room("PUT", room_id, f"state/{type}/", {"name": "x"})).error(403, "M_FORBIDDEN")
    current = (await state_event(alice, room_id, "m.room.power_levels")).ok()
    promoted = {**current, "users": {**current["users"], bob.user_id: 75}}
    await alice.set_state(room_id, "m.room.power_levels", promoted)
    await bob.set_state(room_id, "m.room.name", {"name": "now bob may"})
    for users in ({**promoted["users"], bob.user_id: 76}, {bob.user_id: 75}):
        answer = await bob.in_room("PUT", room_id, "state/m.room.power_levels/", {**promoted, "users": users})
        answer.error(403, "M_FORBIDDEN")


async def test_a_second_create_event_is_refused(alice: User) -> None:
    room_id = await alice.create_room()
    (await alice.in_room("PUT", room_id, "state/m.room.create/", {"room_version": "11"})).error(403, "M_FORBIDDEN")
    (await alice.in_room("PUT", room_id, "state/m.room.create/x", {"room_version": "12"})).error(403, "M_FORBIDDEN")


async def test_a_canonical_alias_must_lead_to_the_room(alice: User) -> None:
    name = secrets.token_hex(4)
    room_id = await alice.create_room(room_alias_name=name)
    other = f"#{secrets.token_hex(4)}:weft.test"
    await alice.create_room(room_alias_name=other[1:].partition(":")[0])
    good, unknown = f"#{name}:weft.test", "#nobody:weft.test"
    for content in (
        {"alias": other},
        {"alias": unknown},
        {"alias": good, "alt_aliases": [other]},
        {"alt_aliases": [good, unknown]},
    ):
        (await alice.in_room("PUT", room_id, "state/m.room.canonical_alias/", content)).error(400, "M_BAD_ALIAS")
    for malformed in ({"alias": "nonsense"}, {"alias": 1}, {"alt_aliases": "x"}, {"alt_aliases": [1]}):
        answer = await alice.in_room("PUT", room_id, "state/m.room.canonical_alias/", malformed)
        answer.error(400, "M_INVALID_PARAM")
    second = f"#{secrets.token_hex(4)}:weft.test"
    (await alice.request("PUT", f"directory/room/{encode(second)}", {"room_id": room_id})).ok()
    await alice.set_state(room_id, "m.room.canonical_alias", {"alias": good, "alt_aliases": [second]})
    # What was there before may stay, also when the alias is gone: only what is new is checked.
    (await alice.request("DELETE", f"directory/room/{encode(second)}")).ok()
    await alice.set_state(room_id, "m.room.canonical_alias", {"alt_aliases": [second]})
    await alice.set_state(room_id, "m.room.canonical_alias", {})


async def test_state_survives_restarts_and_long_histories(start_server: StartServer) -> None:
    async with start_server() as homeserver:
        alice = await homeserver.register()
        room_id = await alice.create_room()
        for number in range(60):
            await alice.set_state(room_id, "org.example.x", {"n": number}, str(number % 20))
    async with start_server() as homeserver:
        alice = User(homeserver, alice.user_id, alice.token, alice.device_id)
        await alice.set_state(room_id, "org.example.x", {"n": "new"}, "7")
        events = (await alice.in_room("GET", room_id, "state")).ok()
        found = {event["state_key"]: event["content"]["n"] for event in events if event["type"] == "org.example.x"}
        assert found == {**{str(key): key + 40 for key in range(20)}, "7": "new"}
        changed = [
            event for event in await page_through(alice, room_id, "b", limit=7) if event["type"] == "org.example.x"
        ]
        assert [event["content"]["n"] for event in changed] == ["new", *range(59, -1, -1)]
        assert changed[0]["unsigned"]["prev_content"] == {"n": 47}

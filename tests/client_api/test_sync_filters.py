"""https://spec.matrix.org/v1.19/client-server-api/#filtering in /sync, and lazy loading of members."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from tests.client import Homeserver, User
from tests.client_api.support import encode, joined, make_room, state_of, timeline_ids


@pytest.fixture
async def alice(shared_homeserver: Homeserver) -> User:
    return await shared_homeserver.register()


@pytest.fixture
async def bob(shared_homeserver: Homeserver) -> User:
    return await shared_homeserver.register()


async def sync(user: User, since: str | None = None, *, stored: bool = False, **sync_filter: Any) -> dict[str, Any]:
    """A /sync with a filter, inline or by its ID."""
    if stored:
        path = f"user/{encode(user.user_id)}/filter"
        given = (await user.request("POST", path, sync_filter)).ok()["filter_id"]
    else:
        given = orjson.dumps(sync_filter).decode()
    return await user.sync(since, filter=given)


@pytest.mark.parametrize("stored", [False, True])
async def test_timelines_by_type_and_sender(alice: User, bob: User, stored: bool) -> None:
    room_id = await make_room(bob, creator=alice)
    hers, his = await alice.send(room_id, "a"), await bob.send(room_id, "b")
    other = await alice.send(room_id, {}, type="org.example.other")
    for timeline, expected in (
        ({"types": ["m.room.message"]}, [hers, his]),
        ({"types": ["m.room.mess*", "org.*"]}, [hers, his, other]),
        ({"types": ["m.room.message"], "not_types": ["m.room.*"]}, []),
        ({"senders": [bob.user_id], "types": ["m.room.message"]}, [his]),
        ({"not_senders": [bob.user_id], "not_types": ["m.room.c*", "m.room.[a-z]*", "m.room.member"]}, None),
        ({"types": ["m.room.message"], "limit": 1}, [his]),
        ({"types": []}, []),
        ({"not_rooms": [room_id]}, []),
        ({"rooms": [room_id], "types": ["m.room.message"]}, [hers, his]),
    ):
        part = joined(await sync(alice, stored=stored, room={"timeline": timeline}), room_id)
        if expected is not None:
            assert timeline_ids(part) == expected, timeline
        else:
            assert his not in timeline_ids(part)
    limited = joined(await sync(alice, room={"timeline": {"types": ["m.room.message"], "limit": 1}}), room_id)
    assert limited["timeline"]["limited"] is True


async def test_what_the_timeline_filter_hides_still_changes_the_state(alice: User, bob: User) -> None:
    room_id = await make_room(bob, creator=alice)
    since = (await bob.sync())["next_batch"]
    await alice.set_state(room_id, "m.room.topic", {"topic": "x"})
    sent = await alice.send(room_id, "x")
    part = joined(await sync(bob, since, room={"timeline": {"types": ["m.room.message"]}}), room_id)
    assert timeline_ids(part) == [sent]
    assert state_of(part) == {("m.room.topic", ""): {"topic": "x"}}


async def test_state_by_type(alice: User) -> None:
    room_id = await alice.create_room(name="Name")
    for state, expected in (
        ({"types": ["m.room.name"]}, {"m.room.name"}),
        ({"not_types": ["m.*"]}, set()),
        ({"senders": ["@nobody:weft.test"]}, set()),
    ):
        part = joined(await sync(alice, room={"state": state, "timeline": {"types": []}}), room_id)
        assert {type for type, _ in state_of(part)} == expected


async def test_rooms(alice: User, bob: User) -> None:
    one, two, three = [await make_room(bob, creator=alice) for _ in range(3)]
    assert set((await sync(bob, room={"rooms": [one]}))["rooms"]["join"]) == {one}
    assert set((await sync(bob, room={"not_rooms": [one]}))["rooms"]["join"]) == {two, three}
    assert (await sync(bob, room={"rooms": []}))["rooms"] == {}
    assert set((await sync(bob, room={"rooms": [one, two], "not_rooms": [one]}))["rooms"]["join"]) == {two}
    since = (await bob.sync())["next_batch"]
    for room_id in (one, two, three):
        await alice.send(room_id, "x")
    assert set((await sync(bob, since, room={"rooms": [one]}))["rooms"]["join"]) == {one}


async def test_ephemeral_and_account_data(alice: User, bob: User) -> None:
    room_id = await make_room(bob, creator=alice)
    event_id = await alice.send(room_id, "x")
    (await bob.in_room("POST", room_id, f"receipt/m.read/{encode(event_id)}", {})).ok()
    (await bob.in_room("PUT", room_id, f"typing/{encode(bob.user_id)}", {"typing": True})).ok()
    for type in ("org.a", "org.b"):
        (await alice.request("PUT", f"user/{encode(alice.user_id)}/account_data/{type}", {})).ok()
        path = f"user/{encode(alice.user_id)}/rooms/{encode(room_id)}/account_data/{type}"
        (await alice.request("PUT", path, {})).ok()
    only = {"types": ["org.a"]}
    answer = await sync(alice, account_data=only, room={"account_data": only, "ephemeral": {"types": ["m.receipt"]}})
    part = joined(answer, room_id)
    assert [event["type"] for event in answer["account_data"]["events"]] == ["org.a"]
    assert [event["type"] for event in part["account_data"]["events"]] == ["org.a"]
    assert [event["type"] for event in part["ephemeral"]["events"]] == ["m.receipt"]
    part = joined(await sync(alice, room={"ephemeral": {"not_rooms": [room_id]}}), room_id)
    assert part["ephemeral"]["events"] == []


async def test_account_data_of_rooms(alice: User) -> None:
    one, two = await alice.create_room(), await alice.create_room()
    for room_id in (one, two):
        path = f"user/{encode(alice.user_id)}/rooms/{encode(room_id)}/account_data/org.a"
        (await alice.request("PUT", path, {})).ok()
    for account_data in ({"rooms": [one]}, {"not_rooms": [two]}, {"rooms": [one, two], "not_rooms": [two]}):
        answer = await sync(alice, room={"account_data": account_data})
        told = {room_id: part["account_data"]["events"] for room_id, part in answer["rooms"]["join"].items()}
        assert told == {one: [{"type": "org.a", "content": {}}], two: []}, account_data


async def test_event_fields_and_format(alice: User) -> None:
    room_id = await alice.create_room(room_version="11")
    event_id = await alice.send(room_id, {"msgtype": "m.text", "body": "x", "a": {"b.c": 1}})
    fields = ["type", "content.body", "content.a.b\\.c"]
    event = joined(await sync(alice, event_fields=fields), room_id)["timeline"]["events"][-1]
    assert event == {"type": "m.room.message", "content": {"body": "x", "a": {"b.c": 1}}}
    event = joined(await sync(alice, event_format="federation"), room_id)["timeline"]["events"][-1]
    assert event["room_id"] == room_id
    assert event["content"]["body"] == "x"
    assert {"auth_events", "prev_events", "depth", "hashes", "signatures"} <= event.keys()
    whole = joined(await sync(alice), room_id)["timeline"]["events"][-1]
    assert whole["event_id"] == event_id


LAZY: dict[str, Any] = {"state": {"lazy_load_members": True}}
REDUNDANT: dict[str, Any] = {"state": {"lazy_load_members": True, "include_redundant_members": True}}


def members_in(part: dict[str, Any]) -> set[str]:
    return {key for type, key in state_of(part) if type == "m.room.member"}


async def test_lazily_loaded_members_are_the_senders_the_reader_and_the_heroes(shared_homeserver: Homeserver) -> None:
    users = [await shared_homeserver.register() for _ in range(9)]
    room_id = await make_room(*users[1:], creator=users[0])
    for number in range(12):
        await users[-1].send(room_id, str(number))
    reader = users[4]
    part = joined(await sync(reader, room={**LAZY, "timeline": {"limit": 5}}), room_id)
    heroes = set(part["summary"]["m.heroes"])
    assert len(heroes) == 5
    assert members_in(part) == {users[-1].user_id, reader.user_id} | heroes
    everyone = joined(await sync(reader, room={"timeline": {"limit": 5}}), room_id)
    assert members_in(everyone) == {user.user_id for user in users}


async def test_a_member_is_sent_once_unless_redundancy_is_wanted(shared_homeserver: Homeserver) -> None:
    users = [await shared_homeserver.register() for _ in range(9)]
    reader, sender = users[0], users[8]
    room_id = await make_room(*users[1:], creator=reader, name="Name")
    for number in range(10):
        await reader.send(room_id, str(number))
    first = await sync(reader, room={**LAZY, "timeline": {"limit": 3}})
    if sender.user_id in members_in(joined(first, room_id)):
        pytest.fail("the sender was not to be known yet")
    await sender.send(room_id, "1")
    second = await sync(reader, first["next_batch"], room=LAZY)
    assert members_in(joined(second, room_id)) == {sender.user_id}
    await sender.send(room_id, "2")
    third = await sync(reader, second["next_batch"], room=LAZY)
    assert members_in(joined(third, room_id)) == set()
    again = await sync(reader, second["next_batch"], room=REDUNDANT)
    assert members_in(joined(again, room_id)) == {sender.user_id}
    repeated = await sync(reader, first["next_batch"], room=LAZY)
    assert members_in(joined(repeated, room_id)) == {sender.user_id}, "an answer that got lost is asked for again"


@pytest.mark.parametrize("state_after", ["true", "false"])
async def test_a_gap_hides_no_change_of_a_member(alice: User, bob: User, state_after: str) -> None:
    carol, dave = await alice.homeserver.register(), await alice.homeserver.register()
    room_id = await make_room(bob, dave, creator=alice, name="Name")
    short = {**LAZY, "timeline": {"limit": 1}}
    given = orjson.dumps({"room": short}).decode()
    first = await alice.sync(filter=given, use_state_after=state_after)
    await carol.join(room_id)
    (await bob.request("PUT", f"profile/{encode(bob.user_id)}/displayname", {"displayname": "Bob"})).ok()
    (await dave.in_room("POST", room_id, "leave", {})).ok()
    for number in range(3):
        await alice.send(room_id, str(number))
    for _ in range(2):  # as often as it is asked for
        part = joined(await alice.sync(first["next_batch"], filter=given, use_state_after=state_after), room_id)
        assert part["timeline"]["limited"]
        told = part["state_after" if state_after == "true" else "state"]["events"]
        members = {event["state_key"]: event["content"] for event in told if event["type"] == "m.room.member"}
        assert members.pop(alice.user_id, {"membership": "join"})["membership"] == "join"
        assert members == {
            carol.user_id: {"membership": "join"},
            bob.user_id: {"membership": "join", "displayname": "Bob"},
            dave.user_id: {"membership": "leave"},
        }


async def test_membership_changes_are_told_lazily_too(alice: User, bob: User) -> None:
    room_id = await make_room(creator=alice)
    since = (await sync(alice, room=LAZY))["next_batch"]
    await bob.join(room_id)
    part = joined(await sync(alice, since, room=LAZY), room_id)
    assert [event["state_key"] for event in part["timeline"]["events"]] == [bob.user_id]
    assert members_in(part) == set()

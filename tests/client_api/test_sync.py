"""https://spec.matrix.org/v1.19/client-server-api/#syncing"""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import quote

import orjson
import pytest

from tests.client import Homeserver, User
from tests.client_api.support import encode, joined, make_room, state_of, timeline_ids
from tests.conftest import StartServer


@pytest.fixture
async def alice(shared_homeserver: Homeserver) -> User:
    return await shared_homeserver.register()


@pytest.fixture
async def bob(shared_homeserver: Homeserver) -> User:
    return await shared_homeserver.register()


def limited_to(count: int) -> str:
    return orjson.dumps({"room": {"timeline": {"limit": count}}}).decode()


async def test_an_initial_sync_has_state_and_timeline_without_overlap(alice: User) -> None:
    room_id = await alice.create_room(name="Name")
    await alice.set_state(room_id, "org.example.x", {"n": 1})
    for number in range(5):
        await alice.send(room_id, str(number))
    await alice.set_state(room_id, "org.example.x", {"n": 2})
    part = joined(await alice.sync(filter=limited_to(3)), room_id)
    assert part["timeline"]["limited"] is True
    assert len(timeline_ids(part)) == 3
    state = state_of(part)
    assert state["org.example.x", ""] == {"n": 1}
    assert state["m.room.name", ""] == {"name": "Name"}
    assert state["m.room.member", alice.user_id] == {"membership": "join"}
    assert not {event["event_id"] for event in part["state"]["events"]} & set(timeline_ids(part))
    whole = joined(await alice.sync(filter=limited_to(100)), room_id)
    assert whole["timeline"]["limited"] is False
    assert state_of(whole) == {}
    assert all("room_id" not in event for event in whole["timeline"]["events"])


async def test_following_the_tokens_gives_every_event_once(alice: User, bob: User) -> None:
    room_id = await make_room(bob, creator=alice)
    since = (await bob.sync())["next_batch"]
    sent: list[str] = []
    seen: list[str] = []
    done = asyncio.Event()

    async def send() -> None:
        for number in range(40):
            sent.append(await alice.send(room_id, str(number)))
            if number % 7 == 0:
                sent.append(await alice.set_state(room_id, "org.example.x", {"n": number}))
        done.set()

    sending = asyncio.create_task(send())
    while not (done.is_set() and seen == sent):
        answer = await bob.sync(since, timeout=1000)
        since = answer["next_batch"]
        part = joined(answer, room_id)
        assert not part or part["timeline"]["limited"] is False
        seen += timeline_ids(part)
        assert len(seen) <= 46
    await sending
    assert seen == sent


async def test_a_gap_has_the_state_that_changed_in_it_and_a_token_to_fill_it(alice: User, bob: User) -> None:
    room_id = await make_room(bob, creator=alice)
    since = (await bob.sync())["next_batch"]
    await alice.set_state(room_id, "m.room.topic", {"topic": "in the gap"})
    await alice.set_state(room_id, "org.example.x", {"n": 1})
    sent = [await alice.send(room_id, str(number)) for number in range(10)]
    await alice.set_state(room_id, "org.example.x", {"n": 2})
    part = joined(await bob.sync(since, filter=limited_to(4)), room_id)
    assert part["timeline"]["limited"] is True
    assert timeline_ids(part)[:3] == sent[-3:]
    assert state_of(part) == {("m.room.topic", ""): {"topic": "in the gap"}, ("org.example.x", ""): {"n": 1}}
    query = {"from": part["timeline"]["prev_batch"], "to": since}
    gap = (await bob.in_room("GET", room_id, "messages", dir="b", limit=50, **query)).ok()
    assert [event["event_id"] for event in gap["chunk"]][:7] == sent[:7][::-1]
    assert len(gap["chunk"]) == 9


async def test_full_state_tells_of_rooms_left_meanwhile(alice: User, bob: User) -> None:
    room_id, before = await make_room(bob, creator=alice), await make_room(bob, creator=alice)
    (await bob.in_room("POST", before, "leave", {})).ok()
    since = (await bob.sync())["next_batch"]
    (await bob.in_room("POST", room_id, "leave", {})).ok()
    for full_state in ("true", "false"):
        rooms = (await bob.sync(since, full_state=full_state))["rooms"]
        assert {section: list(parts) for section, parts in rooms.items()} == {"leave": [room_id]}


async def test_a_room_that_was_left_keeps_its_account_data(alice: User) -> None:
    room_id = await alice.create_room()
    path = f"user/{encode(alice.user_id)}/rooms/{encode(room_id)}/account_data/org.a"
    (await alice.request("PUT", path, {"n": 1})).ok()
    (await alice.in_room("POST", room_id, "leave", {})).ok()
    left = (await alice.sync(filter='{"room":{"include_leave":true}}'))["rooms"]["leave"][room_id]
    assert left["account_data"]["events"] == [{"type": "org.a", "content": {"n": 1}}]


async def test_full_state_tells_all_state_and_only_new_events(alice: User, bob: User) -> None:
    room_id = await make_room(bob, creator=alice, name="Name")
    quiet = await make_room(bob, creator=alice)
    since = (await bob.sync())["next_batch"]
    event_id = await alice.send(room_id, "x")
    answer = await bob.sync(since, full_state="true")
    assert timeline_ids(joined(answer, room_id)) == [event_id]
    state = state_of(joined(answer, room_id))
    assert state["m.room.name", ""] == {"name": "Name"}
    assert ("m.room.member", bob.user_id) in state
    assert timeline_ids(joined(answer, quiet)) == []
    assert ("m.room.create", "") in state_of(joined(answer, quiet))


async def test_an_invitation_is_told_once_with_stripped_state(alice: User, bob: User) -> None:
    since = (await bob.sync())["next_batch"]
    (await alice.request("PUT", f"profile/{encode(alice.user_id)}/displayname", {"displayname": "Alice"})).ok()
    room_id = await alice.create_room(preset="private_chat", name="Name", topic="Topic", invite=[bob.user_id])
    news = await bob.sync(since)
    assert news["rooms"].keys() == {"invite"}
    events = news["rooms"]["invite"][room_id]["invite_state"]["events"]
    found = {(event["type"], event["state_key"]): event["content"] for event in events}
    assert all(event.keys() == {"type", "sender", "state_key", "content"} for event in events)
    assert found["m.room.name", ""] == {"name": "Name"}
    assert found["m.room.join_rules", ""] == {"join_rule": "invite"}
    assert found["m.room.create", ""]["room_version"] == "12"
    assert found["m.room.member", bob.user_id]["membership"] == "invite"
    assert found["m.room.member", alice.user_id]["displayname"] == "Alice"
    assert "m.room.power_levels" not in {type for type, _ in found}
    await alice.send(room_id, "before bob is in")
    assert (await bob.sync(news["next_batch"]))["rooms"] == {}
    assert room_id in (await bob.sync())["rooms"]["invite"]


async def test_a_declined_invitation_leaves(alice: User, bob: User) -> None:
    room_id = await alice.create_room(preset="private_chat", invite=[bob.user_id], name="secret")
    await alice.send(room_id, "secret")
    since = (await bob.sync())["next_batch"]
    (await bob.in_room("POST", room_id, "leave", {})).ok()
    await alice.send(room_id, "secret")
    news = await bob.sync(since)
    assert news["rooms"].keys() == {"leave"}
    part = news["rooms"]["leave"][room_id]
    assert [event["content"]["membership"] for event in part["timeline"]["events"]] == ["leave"]
    assert "secret" not in orjson.dumps(news).decode()
    assert (await bob.sync(news["next_batch"]))["rooms"] == {}
    initial = await bob.sync(filter='{"room":{"include_leave":true}}')
    assert "secret" not in orjson.dumps(initial).decode()
    assert initial["rooms"]["leave"][room_id]["state"]["events"] == []


async def test_a_ban_ends_the_timeline(alice: User, bob: User) -> None:
    room_id = await make_room(bob, creator=alice)
    since = (await bob.sync())["next_batch"]
    last = await alice.send(room_id, "last words")
    (await alice.in_room("POST", room_id, "ban", {"user_id": bob.user_id, "reason": "x"})).ok()
    hidden = await alice.send(room_id, "not for bob")
    news = await bob.sync(since)
    assert news["rooms"].keys() == {"leave"}
    part = news["rooms"]["leave"][room_id]
    assert timeline_ids(part)[0] == last
    assert part["timeline"]["events"][-1]["content"] == {"membership": "ban", "reason": "x"}
    assert hidden not in timeline_ids(part)
    assert len(timeline_ids(part)) == 2
    assert (await bob.sync(news["next_batch"]))["rooms"] == {}
    assert (await bob.sync())["rooms"] == {}
    left = (await bob.sync(filter='{"room":{"include_leave":true}}'))["rooms"]["leave"][room_id]
    assert left["timeline"]["events"][-1]["content"]["membership"] == "ban"
    assert hidden not in timeline_ids(left)


async def test_leaving_with_a_gap_tells_the_state_before_it(alice: User, bob: User) -> None:
    room_id = await make_room(bob, creator=alice)
    since = (await bob.sync())["next_batch"]
    await alice.set_state(room_id, "m.room.topic", {"topic": "in the gap"})
    for number in range(5):
        await alice.send(room_id, str(number))
    (await bob.in_room("POST", room_id, "leave", {})).ok()
    await alice.set_state(room_id, "m.room.topic", {"topic": "later"})
    part = (await bob.sync(since, filter=limited_to(3)))["rooms"]["leave"][room_id]
    assert part["timeline"]["limited"] is True
    assert state_of(part) == {("m.room.topic", ""): {"topic": "in the gap"}}


async def test_joining_and_leaving_between_two_syncs(alice: User, bob: User) -> None:
    room_id = await alice.create_room(preset="public_chat", name="Name")
    since = (await bob.sync())["next_batch"]
    await bob.join(room_id)
    (await bob.in_room("POST", room_id, "leave", {})).ok()
    part = (await bob.sync(since))["rooms"]["leave"][room_id]
    assert [event["content"].get("membership") for event in part["timeline"]["events"][-2:]] == ["join", "leave"]
    known = state_of(part) | {
        (event["type"], event["state_key"]): event["content"]
        for event in part["timeline"]["events"]
        if "state_key" in event
    }
    assert known["m.room.name", ""] == {"name": "Name"}
    assert ("m.room.create", "") in known


async def test_joining_again_starts_the_room_anew(alice: User, bob: User) -> None:
    room_id = await make_room(bob, creator=alice, name="Name")
    (await bob.in_room("POST", room_id, "leave", {})).ok()
    since = (await bob.sync())["next_batch"]
    for number in range(12):
        await alice.send(room_id, str(number))
    await bob.join(room_id)
    part = joined(await bob.sync(since), room_id)
    assert part["timeline"]["events"][-1]["content"]["membership"] == "join"
    assert part["timeline"]["limited"] is True
    assert state_of(part)["m.room.name", ""] == {"name": "Name"}
    assert ("m.room.member", alice.user_id) in state_of(part)


async def test_an_event_tells_the_membership_of_its_reader_then(alice: User, bob: User) -> None:
    room_id = await alice.create_room(preset="public_chat")
    before = await alice.send(room_id, "before bob")
    await bob.join(room_id)
    after = await alice.send(room_id, "after")
    events = {event["event_id"]: event for event in joined(await bob.sync(), room_id)["timeline"]["events"]}
    assert events[after]["unsigned"]["membership"] == "join"
    assert events[before]["unsigned"].get("membership", "leave") == "leave"


async def test_so_do_all_other_answers(alice: User, bob: User) -> None:
    room_id = await alice.create_room(preset="public_chat")
    await alice.set_state(room_id, "m.room.history_visibility", {"history_visibility": "world_readable"})
    memberships = [(await alice.send(room_id, "before"), "leave")]
    (await alice.in_room("POST", room_id, "invite", {"user_id": bob.user_id})).ok()
    memberships.append((await alice.send(room_id, "invited"), "invite"))
    await bob.join(room_id)
    memberships.append((await alice.send(room_id, "joined"), "join"))
    since = (await bob.sync())["next_batch"]
    (await bob.in_room("POST", room_id, "leave", {})).ok()
    page = (await bob.in_room("GET", room_id, "messages", dir="b", limit=20)).ok()["chunk"]
    shown = {event["event_id"]: event["unsigned"].get("membership") for event in page}
    assert [(event_id, shown[event_id]) for event_id, _ in memberships] == memberships
    assert [e["unsigned"]["membership"] for e in page if e.get("state_key") == bob.user_id] == [
        "leave",
        "join",
        "invite",
    ]
    event_id, membership = memberships[1]
    event = (await bob.in_room("GET", room_id, f"event/{quote(event_id, safe='')}")).ok()
    assert event["unsigned"]["membership"] == membership
    left = (await bob.sync(since))["rooms"]["leave"][room_id]["timeline"]["events"]
    assert left[-1]["unsigned"]["membership"] == "leave"


async def test_knocks_have_a_section_of_their_own(alice: User, bob: User) -> None:
    knock = {"type": "m.room.join_rules", "content": {"join_rule": "knock"}}
    room_id = await alice.create_room(initial_state=[knock], name="Name")
    since = (await bob.sync())["next_batch"]
    (await bob.request("POST", f"knock/{encode(room_id)}", {})).ok()
    for sync in (await bob.sync(since), await bob.sync()):
        events = sync["rooms"]["knock"][room_id]["knock_state"]["events"]
        assert ("m.room.name", {"name": "Name"}) in [(event["type"], event["content"]) for event in events]
        assert all(event.keys() == {"type", "sender", "state_key", "content"} for event in events)


async def test_summaries(shared_homeserver: Homeserver, alice: User, bob: User) -> None:
    invited = await shared_homeserver.register()
    room_id = await make_room(bob, creator=alice, invite=[invited.user_id])
    summary = joined(await alice.sync(), room_id)["summary"]
    assert sorted(summary["m.heroes"]) == sorted([bob.user_id, invited.user_id])
    assert summary["m.joined_member_count"] == 2
    assert summary["m.invited_member_count"] == 1
    since = (await alice.sync())["next_batch"]
    await alice.send(room_id, "x")
    news = await alice.sync(since)
    assert not joined(news, room_id)["summary"]
    (await bob.in_room("POST", room_id, "leave", {})).ok()
    summary = joined(await alice.sync(news["next_batch"]), room_id)["summary"]
    assert (summary["m.joined_member_count"], summary["m.invited_member_count"]) == (1, 1)


async def test_no_news_is_told_after_the_timeout(alice: User) -> None:
    room_id = await alice.create_room()
    since = (await alice.sync())["next_batch"]
    loop = asyncio.get_running_loop()
    started = loop.time()
    nothing = await alice.sync(since, timeout=200)
    assert 0.15 < loop.time() - started < 5
    assert nothing["rooms"] == {}
    event_id = await alice.send(room_id, "x")
    assert timeline_ids(joined(await alice.sync(nothing["next_batch"]), room_id)) == [event_id]


async def wait_for_news(user: User, since: str) -> asyncio.Task[dict[str, Any]]:
    """A long poll that is under way: the server has it waiting."""
    task = asyncio.create_task(user.sync(since, timeout=20_000))
    while "\nsync_waiting 1.0\n" not in (await user.homeserver.request("GET", "/metrics")).json:
        assert not task.done(), await task
    return task


async def test_every_kind_of_news_wakes(alice: User, bob: User) -> None:
    room_id = await make_room(bob, creator=alice)
    event_id = await alice.send(room_id, "x")
    other = await alice.create_room(preset="private_chat")
    mine = f"user/{encode(bob.user_id)}"
    actions: list[tuple[User, str, str, dict[str, Any]]] = [
        (alice, "PUT", f"rooms/{encode(room_id)}/send/m.room.message/w", {"body": "x"}),
        (bob, "PUT", f"rooms/{encode(room_id)}/send/m.room.message/w", {"body": "own"}),
        (alice, "PUT", f"rooms/{encode(room_id)}/state/org.example.x/", {"n": 1}),
        (alice, "PUT", f"rooms/{encode(room_id)}/redact/{encode(event_id)}/r", {}),
        (alice, "PUT", f"rooms/{encode(room_id)}/typing/{encode(alice.user_id)}", {"typing": True}),
        (alice, "POST", f"rooms/{encode(room_id)}/receipt/m.read/{encode(event_id)}", {}),
        (bob, "POST", f"rooms/{encode(room_id)}/receipt/m.read.private/{encode(event_id)}", {}),
        (bob, "POST", f"rooms/{encode(room_id)}/read_markers", {"m.fully_read": event_id}),
        (bob, "PUT", f"{mine}/account_data/x", {}),
        (bob, "PUT", f"{mine}/rooms/{encode(room_id)}/account_data/x", {}),
        (alice, "POST", f"rooms/{encode(other)}/invite", {"user_id": bob.user_id}),
        (alice, "POST", f"rooms/{encode(other)}/kick", {"user_id": bob.user_id}),
        (alice, "PUT", f"profile/{encode(alice.user_id)}/displayname", {"displayname": "A"}),
        (alice, "POST", f"rooms/{encode(room_id)}/kick", {"user_id": bob.user_id}),
        (bob, "POST", f"join/{encode(room_id)}", {}),
        (bob, "POST", "createRoom", {}),
    ]
    since = (await bob.sync())["next_batch"]
    for user, method, path, body in actions:
        waiting = await wait_for_news(bob, since)
        (await user.request(method, path, body)).ok()
        news = await asyncio.wait_for(waiting, 10)
        assert any(news["rooms"].values()) or news["account_data"]["events"], path
        since = news["next_batch"]


async def test_what_concerns_others_does_not_wake(alice: User, bob: User) -> None:
    room_id = await make_room(bob, creator=alice)
    other = await alice.create_room()
    event_id = await alice.send(room_id, "x")
    since = (await bob.sync())["next_batch"]
    waiting = await wait_for_news(bob, since)
    await alice.send(other, "not bob's room")
    (await alice.request("PUT", f"user/{encode(alice.user_id)}/account_data/x", {})).ok()
    (await alice.in_room("POST", room_id, "receipt/m.read.private/" + encode(event_id), {})).ok()
    (await alice.in_room("PUT", other, f"typing/{encode(alice.user_id)}", {"typing": True})).ok()
    await alice.create_room(preset="public_chat")
    assert not waiting.done()
    event_id = await alice.send(room_id, "for bob")
    news = await asyncio.wait_for(waiting, 10)
    assert timeline_ids(joined(news, room_id)) == [event_id]
    assert news["rooms"]["join"].keys() == {room_id}


async def test_a_filtered_change_is_no_news(alice: User, bob: User) -> None:
    room_id = await make_room(bob, creator=alice)
    since = (await bob.sync())["next_batch"]
    only = orjson.dumps({"room": {"timeline": {"types": ["org.example.wanted"]}}}).decode()
    waiting = asyncio.create_task(bob.sync(since, timeout=20_000, filter=only))
    await alice.send(room_id, "not wanted")
    wanted = await alice.send(room_id, "wanted", type="org.example.wanted")
    part = joined(await asyncio.wait_for(waiting, 10), room_id)
    assert timeline_ids(part) == [wanted]


async def test_syncs_go_on_over_a_restart(start_server: StartServer) -> None:
    async with start_server() as homeserver:
        alice, bob = await homeserver.register(), await homeserver.register()
        room_id = await make_room(bob, creator=alice)
        quiet = await make_room(bob, creator=alice)
        left = await make_room(bob, creator=alice)
        since = (await bob.sync())["next_batch"]
        sent = [await alice.send(room_id, "before")]
        (await alice.in_room("POST", left, "kick", {"user_id": bob.user_id})).ok()
        invited = await alice.create_room(preset="private_chat", invite=[bob.user_id])
    async with start_server() as homeserver:
        alice = User(homeserver, alice.user_id, alice.token, alice.device_id)
        bob = User(homeserver, bob.user_id, bob.token, bob.device_id)
        sent.append(await alice.send(room_id, "after"))
        news = await bob.sync(since)
        assert timeline_ids(joined(news, room_id)) == sent
        assert quiet not in news["rooms"]["join"]
        assert news["rooms"]["leave"].keys() == {left}
        assert news["rooms"]["invite"].keys() == {invited}
        assert (await bob.sync(news["next_batch"]))["rooms"] == {}

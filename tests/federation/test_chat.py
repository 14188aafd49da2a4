"""A room with users of two servers: what one of them does there, the other sees."""

from __future__ import annotations

import asyncio
from urllib.parse import quote

from tests.client import Homeserver, User
from tests.client_api.support import page_through, state_event
from tests.federation.conftest import MakeServer, name_of
from tests.federation.peer import Peer, json

ARRIVES_WITHIN_S = 30


async def shared_room(alice: User, bob: User, **options: object) -> str:
    """A room of Alice's that Bob, of another server, has joined."""
    room_id = await alice.create_room(**{"preset": "public_chat", **options})
    path = f"join/{quote(room_id, safe='')}?via={name_of(alice.homeserver)}"
    (await bob.request("POST", path, {})).ok()
    return room_id


async def two_users(make_server: MakeServer) -> tuple[User, User]:
    """Alice and Bob, each on a server of their own."""
    here, there = await make_server("localhost"), await make_server("127.0.0.1")
    return await here.register("alice"), await there.register("bob")


async def expect_event(user: User, room_id: str, event_id: str) -> dict[str, object]:
    """An event, once it has come to a user's server; looks whenever there is news for them."""
    since = None
    async with asyncio.timeout(ARRIVES_WITHIN_S):
        while True:
            since = (await user.sync(since, timeout=5000))["next_batch"]
            found = await user.in_room("GET", room_id, f"event/{quote(event_id, safe='')}")
            if found.status == 200:
                return dict(found.json)


async def test_messages_arrive_on_both_sides(make_server: MakeServer) -> None:
    alice, bob = await two_users(make_server)
    room_id = await shared_room(alice, bob)
    for number in range(3):
        from_alice = await alice.send(room_id, f"hello {number}")
        assert (await expect_event(bob, room_id, from_alice))["sender"] == alice.user_id
        from_bob = await bob.send(room_id, f"hi {number}")
        assert (await expect_event(alice, room_id, from_bob))["sender"] == bob.user_id


async def test_both_may_speak_at_once(make_server: MakeServer) -> None:
    alice, bob = await two_users(make_server)
    room_id = await shared_room(alice, bob)
    sent = await asyncio.gather(
        *(user.send(room_id, f"{user.user_id} {number}") for number in range(20) for user in (alice, bob))
    )
    last = await alice.send(room_id, "the end")
    await expect_event(bob, room_id, last)
    last = await bob.send(room_id, "really")
    await expect_event(alice, room_id, last)
    for user in (alice, bob):
        for event_id in sent:
            (await user.in_room("GET", room_id, f"event/{quote(event_id, safe='')}")).ok()


async def test_state_changes_arrive(make_server: MakeServer) -> None:
    alice, bob = await two_users(make_server)
    room_id = await shared_room(alice, bob)
    topic = await alice.set_state(room_id, "m.room.topic", {"topic": "Weaving"})
    await expect_event(bob, room_id, topic)
    assert (await state_event(bob, room_id, "m.room.topic")).ok() == {"topic": "Weaving"}
    (await bob.in_room("POST", room_id, "leave", {})).ok()
    sync = await alice.sync()
    while (await state_event(alice, room_id, "m.room.member", bob.user_id)).ok()["membership"] != "leave":
        sync = await alice.sync(sync["next_batch"], timeout=5000)


async def test_an_invitation_goes_to_the_other_server(make_server: MakeServer) -> None:
    alice, bob = await two_users(make_server)
    room_id = await alice.create_room(preset="private_chat", name="Secret", invite=[bob.user_id])
    invite = (await bob.sync())["rooms"]["invite"][room_id]["invite_state"]["events"]
    assert {"name": "Secret"} in [event["content"] for event in invite]
    assert all(event.keys() == {"type", "sender", "state_key", "content"} for event in invite), (
        "it is passed on as it came"
    )
    (await bob.request("POST", f"join/{quote(room_id, safe='')}", {})).ok()
    await expect_event(bob, room_id, await alice.send(room_id, "welcome"))


async def test_a_server_that_does_not_know_the_version_cannot_be_invited(weft: Homeserver, peer: Peer) -> None:
    alice = await weft.register("alice")
    room_id = await alice.create_room(preset="private_chat")
    refusal = {"errcode": "M_INCOMPATIBLE_ROOM_VERSION", "error": "What is that?", "room_version": "12"}
    peer.handlers[f"/_matrix/federation/v2/invite/{room_id}/"] = json(refusal, status=400)
    bob = f"@bob:{peer.name}"
    (await alice.in_room("POST", room_id, "invite", {"user_id": bob})).error(400, "M_UNSUPPORTED_ROOM_VERSION")
    (await state_event(alice, room_id, "m.room.member", bob)).error(404, "M_NOT_FOUND")


async def test_an_invitation_may_be_declined(make_server: MakeServer) -> None:
    alice, bob = await two_users(make_server)
    room_id = await alice.create_room(preset="private_chat", invite=[bob.user_id])
    since = (await bob.sync())["next_batch"]
    (await bob.in_room("POST", room_id, "leave", {})).ok()
    assert room_id in (await bob.sync(since))["rooms"]["leave"]
    assert (await state_event(alice, room_id, "m.room.member", bob.user_id)).ok()["membership"] == "leave"


async def test_who_is_kicked_hears_of_it(make_server: MakeServer) -> None:
    alice, bob = await two_users(make_server)
    room_id = await shared_room(alice, bob)
    sync = await bob.sync()
    (await alice.in_room("POST", room_id, "kick", {"user_id": bob.user_id})).ok()
    while room_id not in sync["rooms"].get("leave", {}):
        sync = await bob.sync(sync["next_batch"], timeout=5000)


async def test_a_knock_is_heard(make_server: MakeServer) -> None:
    alice, bob = await two_users(make_server)
    rules = [{"type": "m.room.join_rules", "state_key": "", "content": {"join_rule": "knock"}}]
    room_id = await alice.create_room(initial_state=rules)
    path = f"knock/{quote(room_id, safe='')}?via={name_of(alice.homeserver)}"
    (await bob.request("POST", path, {"reason": "please"})).ok()
    assert (await state_event(alice, room_id, "m.room.member", bob.user_id)).ok()["membership"] == "knock"
    assert room_id in (await bob.sync())["rooms"]["knock"]
    (await bob.in_room("POST", room_id, "leave", {})).ok()
    assert (await state_event(alice, room_id, "m.room.member", bob.user_id)).ok()["membership"] == "leave"
    (await bob.request("POST", path, {"reason": "please"})).ok()
    (await alice.in_room("POST", room_id, "invite", {"user_id": bob.user_id})).ok()
    assert room_id in (await bob.sync())["rooms"]["invite"]
    (await bob.request("POST", f"join/{quote(room_id, safe='')}", {})).ok()


async def test_history_is_searched_by_time(make_server: MakeServer) -> None:
    alice, bob = await two_users(make_server)
    room_id = await alice.create_room(preset="public_chat")
    early = [await alice.send(room_id, f"early {number}") for number in range(3)]
    (await bob.request("POST", f"join/{quote(room_id, safe='')}?via={name_of(alice.homeserver)}", {})).ok()
    event = (await alice.in_room("GET", room_id, f"event/{quote(early[1], safe='')}")).ok()
    for direction in "bf":
        path = f"/_matrix/client/v1/rooms/{quote(room_id, safe='')}/timestamp_to_event"
        told = (await bob.request("GET", path, ts=event["origin_server_ts"], dir=direction)).ok()
        assert told == (await alice.request("GET", path, ts=event["origin_server_ts"], dir=direction)).ok()
        assert told["event_id"] in early
        around = (await bob.in_room("GET", room_id, f"context/{quote(told['event_id'], safe='')}")).ok()
        assert around["events_before"]
        assert around["events_after"]
    assert (await bob.request("GET", path, ts=0, dir="b")).status == 404


async def test_history_is_fetched_when_it_is_read(make_server: MakeServer) -> None:
    alice, bob = await two_users(make_server)
    room_id = await alice.create_room(preset="public_chat")
    sent = [await alice.send(room_id, f"before {number}") for number in range(150)]
    await alice.set_state(room_id, "m.room.topic", {"topic": "Later"})
    path = f"join/{quote(room_id, safe='')}?via={name_of(alice.homeserver)}"
    (await bob.request("POST", path, {})).ok()
    events = await page_through(bob, room_id, "b", limit=40)
    ours = await page_through(alice, room_id, "b", limit=40)
    assert [event["event_id"] for event in events] == [event["event_id"] for event in ours]
    assert set(sent) < {event["event_id"] for event in events}
    forwards = await page_through(bob, room_id, "f", limit=40)
    assert [event["event_id"] for event in forwards] == [event["event_id"] for event in events[::-1]]

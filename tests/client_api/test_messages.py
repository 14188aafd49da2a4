"""Reading rooms: /messages, /event, /members, /joined_members.

https://spec.matrix.org/v1.19/client-server-api/#getting-events-for-a-room
"""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest

from tests.client import Homeserver, User
from tests.client_api.support import encode, joined, make_room, page_through


@pytest.fixture
async def alice(shared_homeserver: Homeserver) -> User:
    return await shared_homeserver.register()


@pytest.fixture
async def bob(shared_homeserver: Homeserver) -> User:
    return await shared_homeserver.register()


async def fill(user: User, room_id: str, count: int) -> list[str]:
    return [await user.send(room_id, f"message {number}") for number in range(count)]


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 24, 25, 26, 100])
async def test_paging_gives_every_event_once_and_in_order_in_both_directions(alice: User, limit: int) -> None:
    room_id = await alice.create_room(preset="private_chat")
    sent = await fill(alice, room_id, 18)
    forwards = [event["event_id"] for event in await page_through(alice, room_id, "f", limit=limit)]
    backwards = [event["event_id"] for event in await page_through(alice, room_id, "b", limit=limit)]
    assert forwards == backwards[::-1]
    assert len(set(forwards)) == len(forwards) == 24
    assert forwards[-18:] == sent


async def test_paging_while_the_room_goes_on(alice: User) -> None:
    room_id = await alice.create_room()
    sent = await fill(alice, room_id, 30)
    seen: list[str] = []
    start = ""
    while True:
        query = {"from": start} if start else {}
        page = (await alice.in_room("GET", room_id, "messages", dir="b", limit=4, **query)).ok()
        seen += [event["event_id"] for event in page["chunk"]]
        await alice.send(room_id, "meanwhile")
        if "end" not in page:
            break
        start = page["end"]
    assert [event_id for event_id in seen[::-1] if event_id in sent] == sent
    assert len(seen) == len(set(seen)) == 36


async def test_a_page_can_be_turned_back_from_either_end(alice: User) -> None:
    room_id = await alice.create_room()
    await fill(alice, room_id, 10)
    everything = [event["event_id"] for event in await page_through(alice, room_id, "f", limit=100)]
    first = (await alice.in_room("GET", room_id, "messages", dir="f", limit=5)).ok()
    back = (await alice.in_room("GET", room_id, "messages", dir="b", limit=100, **{"from": first["end"]})).ok()
    assert [event["event_id"] for event in back["chunk"]] == everything[:5][::-1]
    again = (await alice.in_room("GET", room_id, "messages", dir="f", limit=5, **{"from": first["start"]})).ok()
    assert again["chunk"] == [
        {**event, "unsigned": again["chunk"][number]["unsigned"]} for number, event in enumerate(first["chunk"])
    ]
    last = (await alice.in_room("GET", room_id, "messages", dir="b", limit=3)).ok()
    assert (await alice.in_room("GET", room_id, "messages", dir="f", **{"from": last["start"]})).ok()["chunk"] == []
    page = (await alice.in_room("GET", room_id, "messages", dir="f", **{"from": last["end"]})).ok()
    assert [event["event_id"] for event in page["chunk"]] == everything[-3:]


async def test_a_page_says_where_it_was_asked_to_start(alice: User, bob: User) -> None:
    room_id = await make_room(bob, creator=alice)
    (await bob.in_room("POST", room_id, "leave", {})).ok()
    await alice.send(room_id, "x")
    now = (await alice.sync())["next_batch"]
    for user in (alice, bob):
        assert (await user.in_room("GET", room_id, "messages", dir="b", **{"from": now})).ok()["start"] == now


async def test_paging_starts_where_a_sync_ends(alice: User, bob: User) -> None:
    room_id = await make_room(bob, creator=alice)
    await fill(alice, room_id, 30)
    sync = await bob.sync()
    timeline = joined(sync, room_id)["timeline"]
    assert timeline["limited"] is True
    after = await fill(alice, room_id, 3)
    older = await page_through(bob, room_id, "b", limit=7, start=timeline["prev_batch"])
    ids = [event["event_id"] for event in older[::-1]] + [event["event_id"] for event in timeline["events"]]
    assert ids == [event["event_id"] for event in await page_through(bob, room_id, "f", limit=50)][: len(ids)]
    newer = await page_through(bob, room_id, "f", limit=2, start=sync["next_batch"])
    assert [event["event_id"] for event in newer] == after


async def test_to_ends_the_paging(alice: User) -> None:
    room_id = await alice.create_room()
    await fill(alice, room_id, 5)
    middle = (await alice.sync())["next_batch"]
    after = await fill(alice, room_id, 5)
    newer = await page_through(alice, room_id, "b", limit=2, to=middle)
    assert [event["event_id"] for event in newer[::-1]] == after
    older = await page_through(alice, room_id, "f", limit=4, to=middle)
    assert len(older) == 11
    assert not {event["event_id"] for event in older} & set(after)


async def test_filters_narrow_the_pages_and_end_all_the_same(alice: User, bob: User) -> None:
    room_id = await make_room(bob, creator=alice)
    wanted = []
    for number in range(40):
        if number % 10 == 0:
            wanted.append(await bob.send(room_id, "wanted", type="org.example.wanted"))
        await alice.send(room_id, "other")
    for room_filter in (
        {"types": ["org.example.wanted"]},
        {"types": ["org.example.*"], "not_senders": [alice.user_id]},
        {"senders": [bob.user_id], "not_types": ["m.room.member"]},
    ):
        query = {"filter": orjson.dumps(room_filter).decode()}
        for direction, expected in (("b", wanted[::-1]), ("f", wanted)):
            found = await page_through(alice, room_id, direction, limit=3, **query)
            assert [event["event_id"] for event in found] == expected
    nothing = {"filter": orjson.dumps({"not_rooms": [room_id]}).decode()}
    assert await page_through(alice, room_id, "b", limit=3, **nothing) == []
    with_url = await alice.send(room_id, {"msgtype": "m.image", "body": "x", "url": "mxc://a/b"})
    found = await page_through(alice, room_id, "b", limit=3, filter='{"contains_url":true}')
    assert [event["event_id"] for event in found] == [with_url]


async def test_lazy_loading_adds_the_members_of_the_page(alice: User, bob: User) -> None:
    room_id = await make_room(bob, creator=alice)
    await fill(alice, room_id, 3)
    await bob.send(room_id, "x")
    lazy = '{"lazy_load_members":true}'
    for limit, expected in ((1, {bob.user_id}), (2, {alice.user_id, bob.user_id})):
        page = (await alice.in_room("GET", room_id, "messages", dir="b", limit=limit, filter=lazy)).ok()
        assert {event["state_key"] for event in page["state"]} == expected
        assert all(event["type"] == "m.room.member" for event in page["state"])
    plain = (await alice.in_room("GET", room_id, "messages", dir="b", limit=1)).ok()
    assert not plain.get("state")


async def test_the_default_page_has_ten_events(alice: User) -> None:
    room_id = await alice.create_room()
    await fill(alice, room_id, 12)
    assert len((await alice.in_room("GET", room_id, "messages", dir="b")).ok()["chunk"]) == 10
    assert len((await alice.in_room("GET", room_id, "messages", dir="b", limit=10**9)).ok()["chunk"]) == 18


async def test_one_event(alice: User, bob: User) -> None:
    room_id = await alice.create_room(preset="private_chat")
    event_id = await alice.send(room_id, "x", txn_id="the transaction")
    event = (await alice.in_room("GET", room_id, f"event/{encode(event_id)}")).ok()
    assert event["event_id"] == event_id
    assert event["room_id"] == room_id
    assert event["content"] == {"msgtype": "m.text", "body": "x"}
    assert event["unsigned"]["transaction_id"] == "the transaction"
    assert "state_key" not in event
    (await bob.in_room("GET", room_id, f"event/{encode(event_id)}")).error(404, "M_NOT_FOUND")
    other = await alice.create_room()
    (await alice.in_room("GET", other, f"event/{encode(event_id)}")).error(404, "M_NOT_FOUND")
    (await alice.in_room("GET", room_id, "event/$unknown")).error(404, "M_NOT_FOUND")


async def test_only_the_sending_device_sees_the_transaction_id(alice: User, bob: User) -> None:
    room_id = await make_room(bob, creator=alice)
    event_id = await alice.send(room_id, "x", txn_id="t")
    body = {
        "type": "m.login.password",
        "identifier": {"type": "m.id.user", "user": alice.user_id},
        "password": f"password of {alice.user_id[1:].partition(':')[0]}",
    }
    login = (await alice.homeserver.request("POST", "/_matrix/client/v3/login", body)).ok()
    second = User(alice.homeserver, alice.user_id, login["access_token"], login["device_id"])
    for user, expected in ((alice, "t"), (second, None), (bob, None)):
        event = (await user.in_room("GET", room_id, f"event/{encode(event_id)}")).ok()
        assert event["unsigned"].get("transaction_id") == expected
        timeline = joined(await user.sync(), room_id)["timeline"]["events"]
        assert timeline[-1]["unsigned"].get("transaction_id") == expected
    assert await second.send(room_id, "y", txn_id="t") != event_id


async def test_a_transaction_is_sent_once(alice: User) -> None:
    room_id = await alice.create_room()
    other = await alice.create_room()
    sent = await asyncio.gather(*(alice.send(room_id, "x", txn_id="t") for _ in range(10)))
    assert len(set(sent)) == 1
    assert await alice.send(room_id, "different", txn_id="t") == sent[0]
    assert await alice.send(other, "x", txn_id="t") != sent[0]
    assert await alice.send(room_id, "x", txn_id="t", type="org.example.other") != sent[0]


async def members(user: User, room_id: str, **query: Any) -> dict[str, str]:
    chunk = (await user.in_room("GET", room_id, "members", **query)).ok()["chunk"]
    assert all(event["type"] == "m.room.member" and event["room_id"] == room_id for event in chunk)
    found = {event["state_key"]: event["content"]["membership"] for event in chunk}
    assert len(found) == len(chunk)
    return found


async def test_members_by_membership_and_as_of_a_token(shared_homeserver: Homeserver, alice: User, bob: User) -> None:
    invited, banned = await shared_homeserver.register(), await shared_homeserver.register()
    room_id = await make_room(creator=alice, invite=[invited.user_id])
    before = (await alice.sync())["next_batch"]
    await bob.join(room_id)
    (await alice.in_room("POST", room_id, "ban", {"user_id": banned.user_id})).ok()
    (await bob.in_room("POST", room_id, "leave", {})).ok()
    everyone = {alice.user_id: "join", invited.user_id: "invite", bob.user_id: "leave", banned.user_id: "ban"}
    assert await members(alice, room_id) == everyone
    assert await members(alice, room_id, membership="join") == {alice.user_id: "join"}
    assert await members(alice, room_id, not_membership="join") == {
        user_id: membership for user_id, membership in everyone.items() if membership != "join"
    }
    assert await members(alice, room_id, membership="knock") == {}
    assert await members(alice, room_id, membership="join", not_membership="join") == everyone
    assert await members(alice, room_id, membership="knock", not_membership="join") == await members(
        alice, room_id, not_membership="join"
    )
    assert await members(alice, room_id, at=before) == {alice.user_id: "join", invited.user_id: "invite"}
    assert await members(alice, room_id, at=(await alice.sync())["next_batch"]) == everyone
    (await alice.in_room("GET", room_id, "members", membership="x")).error(400, "M_INVALID_PARAM")
    (await alice.in_room("GET", room_id, "members", at="x")).error(400, "M_INVALID_PARAM")


async def test_who_has_left_sees_the_members_of_then(alice: User, bob: User) -> None:
    room_id = await make_room(bob, creator=alice)
    (await bob.in_room("POST", room_id, "leave", {})).ok()
    (await alice.in_room("POST", room_id, "leave", {})).ok()
    assert await members(bob, room_id) == {alice.user_id: "join", bob.user_id: "leave"}
    (await bob.in_room("GET", room_id, "joined_members")).error(403, "M_FORBIDDEN")


async def test_joined_members_have_profiles(alice: User, bob: User) -> None:
    (await bob.request("PUT", f"profile/{encode(bob.user_id)}/displayname", {"displayname": "Bob"})).ok()
    (await bob.request("PUT", f"profile/{encode(bob.user_id)}/avatar_url", {"avatar_url": "mxc://a/b"})).ok()
    room_id = await make_room(bob, creator=alice)
    found = (await alice.in_room("GET", room_id, "joined_members")).ok()["joined"]
    assert found.keys() == {alice.user_id, bob.user_id}
    assert found[bob.user_id] == {"display_name": "Bob", "avatar_url": "mxc://a/b"}

"""Typing, receipts, read markers.

https://spec.matrix.org/v1.19/client-server-api/#typing-notifications
https://spec.matrix.org/v1.19/client-server-api/#receipts, https://spec.matrix.org/v1.19/client-server-api/#fully-read-markers
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.client import Homeserver, User
from tests.client_api.support import encode, ephemeral, joined, make_room
from tests.conftest import StartServer


@pytest.fixture
async def alice(shared_homeserver: Homeserver) -> User:
    return await shared_homeserver.register()


@pytest.fixture
async def bob(shared_homeserver: Homeserver) -> User:
    return await shared_homeserver.register()


async def type_in(user: User, room_id: str, typing: bool, **more: Any) -> Any:
    return await user.in_room("PUT", room_id, f"typing/{encode(user.user_id)}", {"typing": typing, **more})


async def receipt(user: User, room_id: str, type: str, event_id: str, **body: Any) -> Any:
    return await user.in_room("POST", room_id, f"receipt/{type}/{encode(event_id)}", body)


async def test_typing_is_seen_while_it_lasts(alice: User, bob: User) -> None:
    room_id = await make_room(bob, creator=alice)
    since = (await bob.sync())["next_batch"]
    (await type_in(alice, room_id, True, timeout=30_000)).ok()
    news = await bob.sync(since)
    assert ephemeral(joined(news, room_id), "m.typing") == {"user_ids": [alice.user_id]}
    assert joined(news, room_id)["timeline"]["events"] == []
    (await type_in(alice, room_id, True)).ok()
    assert (await bob.sync(news["next_batch"]))["rooms"] == {}
    assert ephemeral(joined(await bob.sync(), room_id), "m.typing") == {"user_ids": [alice.user_id]}
    (await type_in(alice, room_id, False)).ok()
    assert ephemeral(joined(await bob.sync(news["next_batch"]), room_id), "m.typing") == {"user_ids": []}


async def test_typing_that_is_not_renewed_ends(alice: User, bob: User) -> None:
    room_id = await make_room(bob, creator=alice)
    since = (await bob.sync())["next_batch"]
    (await type_in(alice, room_id, True, timeout=1)).ok()
    seen = await bob.sync(since, timeout=5000)
    while ephemeral(joined(seen, room_id), "m.typing") != {"user_ids": []}:
        seen = await bob.sync(seen["next_batch"], timeout=5000)
        assert seen["rooms"], "the end of the typing woke nobody"


async def test_who_leaves_types_no_more(alice: User, bob: User) -> None:
    room_id = await make_room(bob, creator=alice)
    (await type_in(bob, room_id, True)).ok()
    (await bob.in_room("POST", room_id, "leave", {})).ok()
    assert ephemeral(joined(await alice.sync(), room_id), "m.typing") in (None, {"user_ids": []})


async def test_one_types_for_oneself_and_where_one_is(alice: User, bob: User) -> None:
    room_id = await alice.create_room(preset="public_chat")
    (await type_in(bob, room_id, True)).error(403, "M_FORBIDDEN")
    answer = await alice.in_room("PUT", room_id, f"typing/{encode(bob.user_id)}", {"typing": True})
    answer.error(403, "M_FORBIDDEN")
    path = f"typing/{encode(alice.user_id)}"
    (await alice.in_room("PUT", room_id, path, {})).error(400, "M_MISSING_PARAM")
    for body in ({"typing": 1}, {"typing": "yes"}, {"typing": True, "timeout": "1"}, {"typing": True, "timeout": 1.5}):
        (await alice.in_room("PUT", room_id, path, body)).error(400, "M_BAD_JSON")
    assert ephemeral(joined(await alice.sync(), room_id), "m.typing") is None


async def test_a_receipt_is_seen_by_all_and_moves_forward_only(alice: User, bob: User) -> None:
    room_id = await make_room(bob, creator=alice)
    first, second = await alice.send(room_id, "1"), await alice.send(room_id, "2")
    since = (await alice.sync())["next_batch"]
    (await receipt(bob, room_id, "m.read", second)).ok()
    news = await alice.sync(since)
    content = ephemeral(joined(news, room_id), "m.receipt")
    assert content is not None
    assert content.keys() == {second}
    assert content[second].keys() == {"m.read"}
    assert content[second]["m.read"].keys() == {bob.user_id}
    assert content[second]["m.read"][bob.user_id].keys() == {"ts"}
    (await receipt(bob, room_id, "m.read", first)).ok()
    assert (await alice.sync(news["next_batch"]))["rooms"] == {}
    initial = ephemeral(joined(await alice.sync(), room_id), "m.receipt")
    assert initial is not None
    assert initial.keys() == {second}


async def test_each_sync_tells_the_receipts_that_moved_since(alice: User, bob: User) -> None:
    room_id = await make_room(bob, creator=alice)
    events = [await alice.send(room_id, str(number)) for number in range(3)]
    tokens = []
    moves = [(alice, 0), (bob, 0), (bob, 1), (alice, 2)]
    for user, number in moves:
        tokens.append((await bob.sync())["next_batch"])
        (await receipt(user, room_id, "m.read", events[number])).ok()
    for start, token in enumerate(tokens):
        newest = {user.user_id: events[number] for user, number in moves[start:]}
        content = ephemeral(joined(await bob.sync(token), room_id), "m.receipt") or {}
        assert {user: event for event, kinds in content.items() for user in kinds["m.read"]} == newest


async def test_a_private_receipt_is_the_readers_alone(alice: User, bob: User) -> None:
    room_id = await make_room(bob, creator=alice)
    event_id = await alice.send(room_id, "x")
    hers, his = (await alice.sync())["next_batch"], (await bob.sync())["next_batch"]
    (await receipt(bob, room_id, "m.read.private", event_id)).ok()
    assert (await alice.sync(hers))["rooms"] == {}
    assert ephemeral(joined(await alice.sync(), room_id), "m.receipt") is None
    for sync in (await bob.sync(his), await bob.sync()):
        content = ephemeral(joined(sync, room_id), "m.receipt")
        assert content is not None
        assert content[event_id].keys() == {"m.read.private"}


async def test_receipts_in_threads(alice: User, bob: User) -> None:
    room_id = await make_room(bob, creator=alice)
    root = await alice.send(room_id, "root")
    relation = {"m.relates_to": {"rel_type": "m.thread", "event_id": root}}
    reply = await alice.send(room_id, {"msgtype": "m.text", "body": "reply", **relation})
    since = (await alice.sync())["next_batch"]
    (await receipt(bob, room_id, "m.read", reply, thread_id=root)).ok()
    (await receipt(bob, room_id, "m.read", root, thread_id="main")).ok()
    content = ephemeral(joined(await alice.sync(since), room_id), "m.receipt")
    assert content is not None
    assert content[reply]["m.read"][bob.user_id]["thread_id"] == root
    assert content[root]["m.read"][bob.user_id]["thread_id"] == "main"
    for thread_id in ("", 1, [], "\0", "x" * 300, "nonsense"):
        answer = await receipt(bob, room_id, "m.read", reply, thread_id=thread_id)
        assert answer.status == 400, thread_id
        assert answer.json["errcode"] == "M_INVALID_PARAM", thread_id
    (await receipt(bob, room_id, "m.fully_read", reply, thread_id="main")).error(400, "M_INVALID_PARAM")
    other = await alice.send(room_id, "not in the thread")
    (await receipt(bob, room_id, "m.read", other, thread_id=root)).error(400, "M_INVALID_PARAM")
    (await receipt(bob, room_id, "m.read", reply, thread_id=other)).error(400, "M_INVALID_PARAM")
    (await receipt(bob, room_id, "m.read", reply, thread_id="main")).error(400, "M_INVALID_PARAM")


async def test_threaded_and_unthreaded_receipts_for_one_event_are_both_told(alice: User, bob: User) -> None:
    room_id = await make_room(bob, creator=alice)
    event_id = await alice.send(room_id, "x")
    since = (await alice.sync())["next_batch"]
    (await receipt(bob, room_id, "m.read", event_id, thread_id="main")).ok()
    (await receipt(bob, room_id, "m.read", event_id)).ok()
    events = joined(await alice.sync(since), room_id)["ephemeral"]["events"]
    told = [
        event["content"][event_id]["m.read"][bob.user_id].get("thread_id")
        for event in events
        if event["type"] == "m.receipt"
    ]
    assert sorted(told, key=str) == [None, "main"]


async def test_receipts_for_what_is_not_there(alice: User, bob: User) -> None:
    room_id = await alice.create_room(preset="public_chat")
    other = await bob.create_room()
    event_id, elsewhere = await alice.send(room_id, "x"), await bob.send(other, "x")
    (await receipt(alice, room_id, "m.other", event_id)).error(400, "M_INVALID_PARAM")
    for unknown in ("$unknown", elsewhere, "x"):
        assert (await receipt(alice, room_id, "m.read", unknown)).status in (400, 404)
        assert (await alice.in_room("POST", room_id, "read_markers", {"m.fully_read": unknown})).status in (400, 404)
    (await receipt(bob, room_id, "m.read", event_id)).error(403, "M_FORBIDDEN")
    assert ephemeral(joined(await alice.sync(), room_id), "m.receipt") is None


async def test_read_markers_move_all_three(alice: User, bob: User) -> None:
    room_id = await make_room(bob, creator=alice)
    ids = [await alice.send(room_id, str(number)) for number in range(3)]
    since = (await bob.sync())["next_batch"]
    body = {"m.fully_read": ids[0], "m.read": ids[1], "m.read.private": ids[2]}
    (await bob.in_room("POST", room_id, "read_markers", body)).ok()
    news = joined(await bob.sync(since), room_id)
    assert news["account_data"]["events"] == [{"type": "m.fully_read", "content": {"event_id": ids[0]}}]
    content = ephemeral(news, "m.receipt")
    assert content is not None
    assert {event_id: [*types] for event_id, types in content.items()} == {
        ids[1]: ["m.read"],
        ids[2]: ["m.read.private"],
    }
    path = f"user/{encode(bob.user_id)}/rooms/{encode(room_id)}/account_data/m.fully_read"
    assert (await bob.request("GET", path)).ok() == {"event_id": ids[0]}
    (await receipt(bob, room_id, "m.fully_read", ids[2])).ok()
    assert (await bob.request("GET", path)).ok() == {"event_id": ids[2]}
    (await bob.in_room("POST", room_id, "read_markers", {})).ok()


async def test_receipts_survive_a_restart(start_server: StartServer) -> None:
    async with start_server() as homeserver:
        alice, bob = await homeserver.register(), await homeserver.register()
        room_id = await make_room(bob, creator=alice)
        event_id = await alice.send(room_id, "x")
        (await receipt(bob, room_id, "m.read", event_id)).ok()
        since = (await alice.sync())["next_batch"]
        (await type_in(bob, room_id, True)).ok()
    async with start_server() as homeserver:
        alice = User(homeserver, alice.user_id, alice.token, alice.device_id)
        content = ephemeral(joined(await alice.sync(), room_id), "m.receipt")
        assert content is not None
        assert content.keys() == {event_id}
        await alice.send(room_id, "y")
        typing = ephemeral(joined(await alice.sync(since), room_id), "m.typing")
        assert typing == {"user_ids": []}


async def test_many_receipts_at_once_leave_the_newest(alice: User, bob: User) -> None:
    room_id = await make_room(bob, creator=alice)
    ids = [await alice.send(room_id, str(number)) for number in range(20)]
    await asyncio.gather(*(receipt(bob, room_id, "m.read", event_id) for event_id in reversed(ids)))
    content = ephemeral(joined(await alice.sync(), room_id), "m.receipt")
    assert content is not None
    assert content.keys() == {ids[-1]}

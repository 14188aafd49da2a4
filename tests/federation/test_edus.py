"""Who types, who has read what, who is there: told to other servers, and believed of their own users only.

https://spec.matrix.org/v1.19/server-server-api/#edus
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from tests.client import Homeserver, User
from tests.federation.conftest import MakeServer, name_of
from tests.federation.peer import Peer
from tests.federation.test_chat import ARRIVES_WITHIN_S, expect_event, shared_room, two_users


async def until(user: User, found: Callable[[dict[str, Any]], Any]) -> Any:
    """What is found in a user's sync, once it is there."""
    since = None
    async with asyncio.timeout(ARRIVES_WITHIN_S):
        while True:
            sync = await user.sync(since, timeout=5000)
            if result := found(sync):
                return result
            since = sync["next_batch"]


def ephemeral(room_id: str, type: str) -> Callable[[dict[str, Any]], list[dict[str, Any]]]:
    """Finds the contents of a room's ephemeral events of a type, but those that are empty."""

    def find(sync: dict[str, Any]) -> list[dict[str, Any]]:
        events = sync["rooms"]["join"].get(room_id, {}).get("ephemeral", {}).get("events", [])
        return [event["content"] for event in events if event["type"] == type and event["content"]]

    return find


def typing_in(room_id: str, *user_ids: str) -> Callable[[dict[str, Any]], bool]:
    return lambda sync: {"user_ids": list(user_ids)} in ephemeral(room_id, "m.typing")(sync)


async def type_in(user: User, room_id: str, typing: bool) -> None:
    (await user.in_room("PUT", room_id, f"typing/{quote(user.user_id)}", {"typing": typing, "timeout": 30000})).ok()


async def test_typing_is_seen_on_the_other_server(make_server: MakeServer) -> None:
    alice, bob = await two_users(make_server)
    room_id = await shared_room(alice, bob)
    await type_in(bob, room_id, True)
    assert await until(alice, typing_in(room_id, bob.user_id))
    await type_in(bob, room_id, False)
    assert await until(alice, lambda sync: not typing_in(room_id, bob.user_id)(sync) and sync["rooms"]["join"])


async def test_receipts_are_seen_on_the_other_server(make_server: MakeServer) -> None:
    alice, bob = await two_users(make_server)
    room_id = await shared_room(alice, bob)
    first, last = await alice.send(room_id, "one"), await alice.send(room_id, "two")
    await expect_event(bob, room_id, last)
    for kind, event_id, body in (
        ("m.read.private", last, {}),
        ("m.read", first, {"thread_id": "main"}),
        ("m.read", last, {}),
    ):
        (await bob.in_room("POST", room_id, f"receipt/{kind}/{quote(event_id)}", body)).ok()
    seen: dict[tuple[str, str], Any] = {}

    def gather(sync: dict[str, Any]) -> bool:
        for content in ephemeral(room_id, "m.receipt")(sync):
            seen.update(
                {(event_id, kind): users for event_id, kinds in content.items() for kind, users in kinds.items()}
            )
        return {(first, "m.read"), (last, "m.read")} <= seen.keys()

    await until(alice, gather)
    assert seen[first, "m.read"][bob.user_id]["thread_id"] == "main"
    assert "thread_id" not in seen[last, "m.read"][bob.user_id]
    assert (last, "m.read.private") not in seen


async def test_presence_is_seen_on_the_other_server(make_server: MakeServer) -> None:
    alice, bob = await two_users(make_server)
    await shared_room(alice, bob)
    status = {"presence": "online", "status_msg": "weaving"}
    (await bob.request("PUT", f"presence/{quote(bob.user_id)}/status", status)).ok()

    def find(sync: dict[str, Any]) -> bool:
        events = sync.get("presence", {}).get("events", [])
        return any(
            event["sender"] == bob.user_id and event["content"].get("status_msg") == "weaving" for event in events
        )

    await until(alice, find)
    shown = (await alice.request("GET", f"presence/{quote(bob.user_id)}/status")).ok()
    assert (shown["presence"], shown["status_msg"]) == ("online", "weaving")
    fresh = await alice.sync()
    assert find(fresh)


async def tell(peer: Peer, homeserver: Homeserver, transaction_id: str, *edus: Any) -> None:
    content = {"origin": peer.name, "origin_server_ts": 1, "pdus": [], "edus": list(edus)}
    uri = f"/_matrix/federation/v1/send/{transaction_id}"
    assert (await peer.ask(name_of(homeserver), "PUT", uri, content)).ok() == {"pdus": {}}


async def test_what_does_not_fit_is_passed_over(weft: Homeserver, peer: Peer) -> None:
    alice, stranger = await weft.register(), f"@eve:{peer.name}"
    room_id = await alice.create_room()
    event_id = await alice.send(room_id, "hello")
    since = (await alice.sync())["next_batch"]
    receipt = {"event_ids": [event_id], "data": {"ts": 1}}
    contents = [
        *(
            ("m.typing", {"room_id": room, "user_id": user, "typing": True})
            for room in (room_id, "!no:where", "", "!\0:a")
            for user in (alice.user_id, stranger, "", "@\0:a")
        ),
        ("m.typing", {"room_id": room_id, "user_id": alice.user_id, "typing": "yes"}),
        ("m.receipt", {room_id: {"m.read": {alice.user_id: receipt, stranger: receipt}}}),
        ("m.receipt", {room_id: {"m.read": {stranger: {"event_ids": ["\0"], "data": {"thread_id": 1}}}}}),
        ("m.receipt", {room_id: 1, "": {"m.read": []}}),
        ("m.presence", {"push": [{"user_id": alice.user_id, "presence": "unavailable"}]}),
        ("m.presence", {"push": [{"user_id": stranger, "presence": "online", "last_active_ago": 2**70}]}),
        ("m.presence", {"push": [{"user_id": stranger, "presence": "online"}, {}, {"presence": 1}]}),
        ("m.presence", {"push": {}}),
        ("org.example.unknown", {"a": 1}),
        (1, {}),
    ]
    edus = [{"edu_type": edu_type, "content": content} for edu_type, content in contents]
    edus += [{}, {"edu_type": "m.typing"}, {"edu_type": "m.typing", "content": []}, None, 1, [], "edu"]
    await tell(peer, weft, "hostile", *edus)
    await alice.send(room_id, "the end")
    sync = await alice.sync(since)
    assert sync["rooms"]["join"][room_id].get("ephemeral", {"events": []})["events"] == []
    assert [event["sender"] for event in sync.get("presence", {}).get("events", [])] in ([], [alice.user_id])

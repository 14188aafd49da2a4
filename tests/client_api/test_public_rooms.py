"""https://spec.matrix.org/v1.19/client-server-api/#published-room-directory"""

from __future__ import annotations

from typing import Any

import pytest

from tests.client import Homeserver, User
from tests.client_api.support import encode, make_room
from tests.conftest import StartServer


@pytest.fixture
async def alice(homeserver: Homeserver) -> User:
    return await homeserver.register()


async def listed(user: User, **body: Any) -> list[dict[str, Any]]:
    chunk: list[dict[str, Any]] = (await user.request("POST", "publicRooms", body)).ok()["chunk"]
    return chunk


async def found(user: User, **chosen: Any) -> list[str]:
    return [room["room_id"] for room in await listed(user, filter=chosen)]


async def test_the_directory_tells_what_a_room_is_like(homeserver: Homeserver, alice: User) -> None:
    bob = await homeserver.register()
    room_id = await make_room(
        bob, creator=alice, visibility="public", room_alias_name="cheese", name="Cheese", topic="Tasty"
    )
    await alice.set_state(room_id, "m.room.avatar", {"url": "mxc://weft.test/brie"})
    await alice.create_room(name="Hidden")
    room = {
        "room_id": room_id,
        "num_joined_members": 2,
        "name": "Cheese",
        "topic": "Tasty",
        "canonical_alias": "#cheese:weft.test",
        "avatar_url": "mxc://weft.test/brie",
        "join_rule": "public",
        "world_readable": False,
        "guest_can_join": False,
    }
    whole = (await homeserver.request("GET", "/_matrix/client/v3/publicRooms")).ok()
    assert whole == {"chunk": [room], "total_room_count_estimate": 1}
    assert await listed(alice) == [room]
    (await bob.in_room("POST", room_id, "leave", {})).ok()
    await alice.set_state(room_id, "m.room.history_visibility", {"history_visibility": "world_readable"})
    await alice.set_state(room_id, "m.room.guest_access", {"guest_access": "can_join"})
    await alice.set_state(room_id, "m.room.join_rules", {"join_rule": "knock"})
    await alice.set_state(room_id, "m.room.topic", {})
    del room["topic"]
    assert await listed(alice) == [
        {**room, "num_joined_members": 1, "join_rule": "knock", "world_readable": True, "guest_can_join": True}
    ]


async def test_a_redacted_topic_is_told_no_more(alice: User) -> None:
    room_id = await alice.create_room(visibility="public", name="Room", topic="a slip")
    topic = next(
        event for event in (await alice.in_room("GET", room_id, "state")).ok() if event["type"] == "m.room.topic"
    )
    (await alice.in_room("PUT", room_id, f"redact/{encode(topic['event_id'])}/1", {})).ok()
    assert [room.get("topic") for room in await listed(alice)] == [None]
    assert await found(alice, generic_search_term="slip") == []


async def test_pages_go_both_ways_and_stay_where_they_are(homeserver: Homeserver, alice: User) -> None:
    bob = await homeserver.register()
    small = [await alice.create_room(visibility="public", name=f"Small {n}") for n in range(5)]
    large = await make_room(bob, creator=alice, visibility="public", name="Large")
    order = [large, *small]
    pages, since = [], None
    for _ in range(3):
        query = {"limit": 2} if since is None else {"limit": 2, "since": since}
        page = (await alice.request("GET", "publicRooms", **query)).ok()
        pages.append(page)
        since = page.get("next_batch")
    assert [[room["room_id"] for room in page["chunk"]] for page in pages] == [order[:2], order[2:4], order[4:]]
    assert "next_batch" not in pages[2]
    assert "prev_batch" not in pages[0]
    assert pages[0]["total_room_count_estimate"] == 6
    (await alice.request("PUT", f"directory/list/room/{encode(order[0])}", {"visibility": "private"})).ok()
    back = (await alice.request("GET", "publicRooms", limit=2, since=pages[2]["prev_batch"])).ok()
    assert [room["room_id"] for room in back["chunk"]] == order[2:4]
    first = (await alice.request("GET", "publicRooms", limit=2, since=back["prev_batch"])).ok()
    assert [room["room_id"] for room in first["chunk"]] == order[1:2]
    assert "prev_batch" not in first
    again = (await alice.request("GET", "publicRooms", limit=2, since=first["next_batch"])).ok()
    assert [room["room_id"] for room in again["chunk"]] == order[2:4]


async def test_rooms_are_searched_by_name_topic_alias_and_type(alice: User) -> None:
    name = await alice.create_room(visibility="public", name="ÄPFEL & birnen")
    topic = await alice.create_room(visibility="public", topic="100%_real Fruit")
    space = await alice.create_room(
        visibility="public", room_alias_name="orchard", creation_content={"type": "m.space"}
    )
    assert await found(alice, generic_search_term="äpfel") == [name]
    assert await found(alice, generic_search_term="BIRNEN") == [name]
    assert await found(alice, generic_search_term="%_REAL") == [topic]
    assert await found(alice, generic_search_term="a%r") == []
    assert await found(alice, generic_search_term="#Orchard:") == [space]
    assert await found(alice, generic_search_term="") == [name, topic, space]
    assert await found(alice, room_types=["m.space"]) == [space]
    assert await found(alice, room_types=[None]) == [name, topic]
    assert await found(alice, room_types=[None, "m.space"]) == [name, topic, space]
    assert await found(alice, room_types=[]) == []
    assert await found(alice, generic_search_term="orchard", room_types=[None]) == []
    assert await found(alice, generic_search_term="\0", room_types=["\0"]) == []


async def test_other_networks_and_servers_have_nothing_here(alice: User) -> None:
    await alice.create_room(visibility="public")
    assert await listed(alice, third_party_instance_id="irc") == []
    assert len(await listed(alice, include_all_networks=True)) == 1
    both = {"third_party_instance_id": "irc", "include_all_networks": True}
    (await alice.request("POST", "publicRooms", both)).error(400, "M_INVALID_PARAM")
    for method in ("GET", "POST"):
        (await alice.request(method, "publicRooms", {}, server="elsewhere.test")).error(404, "M_NOT_FOUND")
        (await alice.request(method, "publicRooms", {}, server="not a name")).error(400, "M_INVALID_PARAM")
        (await alice.request(method, "publicRooms", {}, server="weft.test")).ok()


async def test_what_makes_no_sense_is_refused(homeserver: Homeserver, alice: User) -> None:
    for since in ("x", "n1", "n1_99999999999", "n9999999999_1"):
        (await alice.request("GET", "publicRooms", since=since)).error(400, "M_INVALID_PARAM")
    (await alice.request("GET", "publicRooms", limit="-1")).error(400, "M_INVALID_PARAM")
    (await alice.request("POST", "publicRooms", {"limit": -1})).error(400, "M_INVALID_PARAM")
    for body in ({"limit": "1"}, {"filter": []}, {"filter": {"room_types": [1]}}, {"since": 1}):
        (await alice.request("POST", "publicRooms", body)).error(400, "M_BAD_JSON")
    (await homeserver.request("POST", "/_matrix/client/v3/publicRooms", {})).error(401, "M_MISSING_TOKEN")


async def test_who_may_set_the_canonical_alias_lists_the_room(homeserver: Homeserver, alice: User) -> None:
    bob, carol = await homeserver.register(), await homeserver.register()
    room_id = await make_room(bob, creator=alice)
    path = f"directory/list/room/{encode(room_id)}"
    assert (await homeserver.request("GET", f"/_matrix/client/v3/{path}")).ok() == {"visibility": "private"}
    (await bob.request("PUT", path, {"visibility": "public"})).error(403, "M_FORBIDDEN")
    (await carol.request("PUT", path, {"visibility": "public"})).error(403, "M_FORBIDDEN")
    (await alice.request("PUT", path, {"visibility": "hidden"})).error(400, "M_BAD_JSON")
    (await alice.request("PUT", path, {})).ok()
    assert (await bob.request("GET", path)).ok() == {"visibility": "public"}
    assert [room["room_id"] for room in await listed(carol)] == [room_id]
    (await alice.request("PUT", path, {"visibility": "private"})).ok()
    assert await listed(carol) == []
    for unknown in ("!unknown:weft.test", "nothing", "%00"):
        target = f"directory/list/room/{unknown}"
        answer = await alice.request("GET", target)
        assert (answer.status, answer.json["errcode"]) in ((404, "M_NOT_FOUND"), (400, "M_INVALID_PARAM"))
    (await alice.request("PUT", "directory/list/room/!unknown:weft.test", {})).error(404, "M_NOT_FOUND")


async def test_counts_survive_restarts_and_crowds(start_server: StartServer) -> None:
    async with start_server() as homeserver:
        alice = await homeserver.register("alice")
        room_id = await alice.create_room(visibility="public", preset="public_chat")
        for number in range(6):
            await (await homeserver.register(f"guest{number}")).join(room_id)
    async with start_server() as homeserver:
        bob = await homeserver.register("bob")
        assert [room["num_joined_members"] for room in await listed(bob)] == [7]
        await bob.join(room_id)
        (await bob.request("PUT", f"profile/{encode(bob.user_id)}/displayname", {"displayname": "Bob"})).ok()
        assert [room["num_joined_members"] for room in await listed(bob)] == [8]
        (await bob.in_room("POST", room_id, "leave", {})).ok()
        assert [room["num_joined_members"] for room in await listed(bob)] == [7]

"""Summaries of rooms and of spaces.

https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1room_summaryroomidoralias
https://spec.matrix.org/v1.19/client-server-api/#discovering-rooms-within-spaces
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.client import Answer, Homeserver, User
from tests.client_api.support import encode, make_room

V1 = "/_matrix/client/v1"


@pytest.fixture
async def alice(shared_homeserver: Homeserver) -> User:
    return await shared_homeserver.register()


@pytest.fixture
async def bob(shared_homeserver: Homeserver) -> User:
    return await shared_homeserver.register()


async def summary(user: User, room: str) -> Answer:
    return await user.request("GET", f"{V1}/room_summary/{encode(room)}")


async def test_a_summary_tells_what_to_know_before_joining(
    shared_homeserver: Homeserver, alice: User, bob: User
) -> None:
    room_id = await make_room(creator=alice, room_alias_name=f"of{alice.user_id[1:6]}", name="Cheese", topic="Tasty")
    await alice.set_state(room_id, "m.room.encryption", {"algorithm": "m.megolm.v1.aes-sha2"})
    alias = f"#of{alice.user_id[1:6]}:weft.test"
    told = {
        "room_id": room_id,
        "num_joined_members": 1,
        "name": "Cheese",
        "topic": "Tasty",
        "canonical_alias": alias,
        "join_rule": "public",
        "world_readable": False,
        "guest_can_join": False,
        "room_version": "12",
        "encryption": "m.megolm.v1.aes-sha2",
    }
    assert (await summary(alice, alias)).ok() == {**told, "membership": "join"}
    assert (await summary(bob, room_id)).ok() == {**told, "membership": "leave"}
    anonymous = await shared_homeserver.request("GET", f"{V1}/room_summary/{encode(alias)}")
    assert anonymous.ok() == told
    wrong = await shared_homeserver.request("GET", f"{V1}/room_summary/{encode(alias)}", token="wrong")
    wrong.error(401, "M_UNKNOWN_TOKEN")


async def test_what_one_may_not_join_or_read_is_not_found(
    shared_homeserver: Homeserver, alice: User, bob: User
) -> None:
    room_id = await alice.create_room()
    for answer in (
        await summary(bob, room_id),
        await summary(bob, "!unknown:weft.test"),
        await summary(bob, "#unknown:weft.test"),
        await shared_homeserver.request("GET", f"{V1}/room_summary/{encode(room_id)}"),
    ):
        answer.error(404, "M_NOT_FOUND")
    (await summary(bob, "neither")).error(400, "M_INVALID_PARAM")
    (await alice.in_room("POST", room_id, "invite", {"user_id": bob.user_id})).ok()
    assert (await summary(bob, room_id)).ok()["membership"] == "invite"
    (await alice.in_room("POST", room_id, "ban", {"user_id": bob.user_id})).ok()
    await alice.set_state(room_id, "m.room.join_rules", {"join_rule": "knock"})
    (await summary(bob, room_id)).error(404, "M_NOT_FOUND")
    (await shared_homeserver.request("GET", f"{V1}/room_summary/{encode(room_id)}")).ok()
    await alice.set_state(room_id, "m.room.join_rules", {"join_rule": "invite"})
    await alice.set_state(room_id, "m.room.history_visibility", {"history_visibility": "world_readable"})
    assert (await summary(bob, room_id)).ok()["membership"] == "ban"


async def test_a_restricted_room_shows_itself_to_members_of_the_other(alice: User, bob: User) -> None:
    hall = await make_room(creator=alice)
    room_id = await alice.create_room()
    allow = [{"type": "m.room_membership", "room_id": hall}, {"type": "other"}, 1]
    await alice.set_state(room_id, "m.room.join_rules", {"join_rule": "restricted", "allow": allow})
    (await summary(bob, room_id)).error(404, "M_NOT_FOUND")
    await bob.join(hall)
    assert (await summary(bob, room_id)).ok()["allowed_room_ids"] == [hall]


async def make_space(user: User, *children: str, **options: Any) -> str:
    space = await user.create_room(preset="public_chat", creation_content={"type": "m.space"}, **options)
    for number, child in enumerate(children):
        content = {"via": ["weft.test"], "order": f"{number:03}", "suggested": number % 2 == 0}
        await user.set_state(space, "m.space.child", content, child)
    return space


async def hierarchy(user: User, space: str, **query: Any) -> Any:
    return (await user.request("GET", f"{V1}/rooms/{encode(space)}/hierarchy", **query)).ok()


def rooms(page: Any) -> list[str]:
    return [room["room_id"] for room in page["rooms"]]


async def test_a_space_is_walked_depth_first(alice: User, bob: User) -> None:
    one, two, three = [await make_room(creator=alice, name=f"Room {n}") for n in range(3)]
    hidden = await alice.create_room()
    inner = await make_space(alice, two, hidden)
    space = await make_space(alice, one, inner, three, "!unknown:weft.test")
    await alice.set_state(space, "m.space.child", {}, "!removed:weft.test")
    await alice.set_state(inner, "m.space.child", {"via": ["weft.test"]}, space)  # a loop
    page = await hierarchy(bob, space)
    assert rooms(page) == [space, one, inner, two, three]
    assert "next_batch" not in page
    root = page["rooms"][0]
    assert root["room_type"] == "m.space"
    assert [child["state_key"] for child in root["children_state"]] == [one, inner, three, "!unknown:weft.test"]
    assert root["children_state"][0].keys() == {"type", "state_key", "content", "sender", "origin_server_ts"}
    assert page["rooms"][1]["children_state"] == []
    assert rooms(await hierarchy(alice, space)) == [space, one, inner, two, hidden, three]
    assert rooms(await hierarchy(bob, space, max_depth=1)) == [space, one, inner, three]
    assert rooms(await hierarchy(bob, space, max_depth=0)) == [space]
    assert rooms(await hierarchy(bob, space, suggested_only="true")) == [space, one, three]
    assert rooms(await hierarchy(bob, one)) == [one]


async def test_a_hierarchy_comes_in_pages(alice: User) -> None:
    children = [await make_room(creator=alice) for _ in range(5)]
    space = await make_space(alice, *children)
    found, query = [], {"limit": 2}
    while True:
        page = await hierarchy(alice, space, **query)
        assert len(page["rooms"]) <= 2
        found += rooms(page)
        if "next_batch" not in page:
            break
        query["from"] = page["next_batch"]
    assert found == [space, *children]
    path = f"{V1}/rooms/{encode(space)}/hierarchy"
    for changed in ({"max_depth": 3}, {"suggested_only": "true"}, {"from": "nonsense"}):
        (await alice.request("GET", path, **{**query, **changed})).error(400, "M_INVALID_PARAM")


async def test_a_hierarchy_is_for_those_who_may_see_the_space(alice: User, bob: User) -> None:
    space = await alice.create_room(creation_content={"type": "m.space"})
    for room_id in (space, "!unknown:weft.test"):
        (await bob.request("GET", f"{V1}/rooms/{encode(room_id)}/hierarchy")).error(403, "M_FORBIDDEN")
    path = f"{V1}/rooms/{encode(space)}/hierarchy"
    for query in ({"limit": 0}, {"limit": "x"}, {"max_depth": -1}, {"suggested_only": "maybe"}):
        (await alice.request("GET", path, **query)).error(400, "M_INVALID_PARAM")

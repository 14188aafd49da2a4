"""https://spec.matrix.org/v1.19/client-server-api/#room-tagging"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.client import Answer, Homeserver, User
from tests.client_api.support import encode, joined


@pytest.fixture
async def alice(shared_homeserver: Homeserver) -> User:
    return await shared_homeserver.register()


async def tags(user: User, room_id: str) -> Any:
    return (await user.request("GET", f"user/{encode(user.user_id)}/rooms/{encode(room_id)}/tags")).ok()["tags"]


async def change(user: User, method: str, room_id: str, tag: str, body: Any = None) -> Answer:
    path = f"user/{encode(user.user_id)}/rooms/{encode(room_id)}/tags/{encode(tag)}"
    return await user.request(method, path, body)


async def test_tags_come_and_go_and_are_synced(alice: User) -> None:
    room_id = await alice.create_room()
    assert await tags(alice, room_id) == {}
    since = (await alice.sync())["next_batch"]
    (await change(alice, "PUT", room_id, "m.favourite", {"order": 0.25})).ok()
    (await change(alice, "PUT", room_id, "u.Work/life", {})).ok()
    assert await tags(alice, room_id) == {"m.favourite": {"order": 0.25}, "u.Work/life": {}}
    news = await alice.sync(since)
    content = {"tags": {"m.favourite": {"order": 0.25}, "u.Work/life": {}}}
    assert joined(news, room_id)["account_data"]["events"] == [{"type": "m.tag", "content": content}]
    (await change(alice, "PUT", room_id, "m.favourite", {"order": 1})).ok()
    (await change(alice, "DELETE", room_id, "u.Work/life")).ok()
    (await change(alice, "DELETE", room_id, "never there")).ok()
    assert await tags(alice, room_id) == {"m.favourite": {"order": 1}}


async def test_tags_set_at_the_same_time_are_all_kept(alice: User) -> None:
    room_id = await alice.create_room()
    names = [f"u.{number}" for number in range(20)]
    for answer in await asyncio.gather(*(change(alice, "PUT", room_id, name, {}) for name in names)):
        answer.ok()
    assert sorted(await tags(alice, room_id)) == sorted(names)


async def test_tags_have_a_form_whichever_way_they_come(alice: User) -> None:
    room_id = await alice.create_room()
    (await change(alice, "PUT", room_id, "u.x", {"order": "0.5"})).error(400, "M_BAD_JSON")
    (await change(alice, "PUT", room_id, "u.x", {"order": True})).error(400, "M_BAD_JSON")
    (await change(alice, "PUT", room_id, "u.x", [])).error(400, "M_BAD_JSON")
    (await change(alice, "PUT", room_id, "u.x", {"order": 1.01})).error(400, "M_INVALID_PARAM")
    (await change(alice, "PUT", room_id, "u.x", {"order": -1})).error(400, "M_INVALID_PARAM")
    (await change(alice, "PUT", room_id, "é" * 128, {})).error(400, "M_INVALID_PARAM")
    path = f"user/{encode(alice.user_id)}/rooms/{encode(room_id)}/account_data/m.tag"
    for content in ({"tags": []}, {"tags": {"u.x": 1}}, {"tags": {"u.x": {"order": "1"}}}):
        (await alice.request("PUT", path, content)).error(400, "M_BAD_JSON")
    assert await tags(alice, room_id) == {}
    (await alice.request("PUT", path, {"tags": {"u.y": {"order": 0}}})).ok()
    assert await tags(alice, room_id) == {"u.y": {"order": 0}}


async def test_tags_are_ones_own_and_of_ones_rooms(shared_homeserver: Homeserver, alice: User) -> None:
    bob = await shared_homeserver.register()
    room_id = await alice.create_room()
    path = f"user/{encode(alice.user_id)}/rooms/{encode(room_id)}/tags"
    (await bob.request("GET", path)).error(403, "M_FORBIDDEN")
    (await bob.request("PUT", f"{path}/u.x", {})).error(403, "M_FORBIDDEN")
    (await bob.request("DELETE", f"{path}/u.x")).error(403, "M_FORBIDDEN")
    (await change(bob, "PUT", room_id, "u.x", {})).error(404, "M_NOT_FOUND")

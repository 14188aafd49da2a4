"""Filters and account data.

https://spec.matrix.org/v1.19/client-server-api/#filtering, https://spec.matrix.org/v1.19/client-server-api/#client-config
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.client import Homeserver, User
from tests.client_api.support import encode, joined
from tests.conftest import StartServer


@pytest.fixture
async def alice(shared_homeserver: Homeserver) -> User:
    return await shared_homeserver.register()


@pytest.fixture
async def bob(shared_homeserver: Homeserver) -> User:
    return await shared_homeserver.register()


def account_data(user: User, type: str, room_id: str | None = None) -> str:
    room = "" if room_id is None else f"rooms/{encode(room_id)}/"
    return f"user/{encode(user.user_id)}/{room}account_data/{encode(type)}"


async def test_a_filter_can_be_stored_and_read_back(alice: User, bob: User) -> None:
    path = f"user/{encode(alice.user_id)}/filter"
    one: dict[str, Any] = {"room": {"timeline": {"limit": 3, "types": ["m.room.message"]}}, "event_fields": ["type"]}
    first = (await alice.request("POST", path, one)).ok()["filter_id"]
    assert isinstance(first, str)
    assert not first.startswith("{")
    assert (await alice.request("GET", f"{path}/{first}")).ok() == one
    assert (await alice.request("POST", path, one)).ok()["filter_id"] == first
    assert (await alice.request("POST", path, {})).ok()["filter_id"] != first
    (await alice.request("GET", f"{path}/99")).error(404, "M_NOT_FOUND")
    (await bob.request("GET", f"{path}/{first}")).error(403, "M_FORBIDDEN")
    (await bob.request("POST", path, one)).error(403, "M_FORBIDDEN")
    (await bob.request("GET", f"user/{encode(bob.user_id)}/filter/{first}")).error(404, "M_NOT_FOUND")


@pytest.mark.parametrize(
    "filter_json",
    [
        {"room": []},
        {"room": {"timeline": {"limit": "1"}}},
        {"room": {"timeline": {"limit": 1.5}}},
        {"room": {"timeline": {"types": "m.room.message"}}},
        {"room": {"state": {"lazy_load_members": "yes"}}},
        {"room": {"rooms": ["nonsense"]}},
        {"event_format": "other"},
        {"event_fields": "type"},
        {"presence": {"senders": [1]}},
    ],
)
async def test_a_filter_that_is_none_is_refused(alice: User, filter_json: dict[str, Any]) -> None:
    answer = await alice.request("POST", f"user/{encode(alice.user_id)}/filter", filter_json)
    answer.error(400, "M_BAD_JSON")


async def test_the_same_filter_from_many_requests_has_one_id(alice: User) -> None:
    path = f"user/{encode(alice.user_id)}/filter"
    answers = await asyncio.gather(*(alice.request("POST", path, {"event_fields": ["type"]}) for _ in range(8)))
    assert len({answer.ok()["filter_id"] for answer in answers}) == 1


async def test_account_data_is_kept_and_synced_to_its_owner_alone(alice: User, bob: User) -> None:
    room_id = await alice.create_room(preset="public_chat")
    await bob.join(room_id)
    since, bobs = (await alice.sync())["next_batch"], (await bob.sync())["next_batch"]
    content = {"nested": {"order": 0.25, "text": "\0 é"}, "list": [1, None, True]}
    assert (await alice.request("PUT", account_data(alice, "org.example.x"), content)).ok() == {}
    assert (
        await alice.request("PUT", account_data(alice, "m.tag", room_id), {"tags": {"u.x": {"order": 0.5}}})
    ).ok() == {}
    assert (await alice.request("GET", account_data(alice, "org.example.x"))).ok() == content
    assert (await alice.request("GET", account_data(alice, "m.tag", room_id))).ok() == {"tags": {"u.x": {"order": 0.5}}}
    news = await alice.sync(since)
    assert news["account_data"]["events"] == [{"type": "org.example.x", "content": content}]
    of_room = joined(news, room_id)["account_data"]["events"]
    assert of_room == [{"type": "m.tag", "content": {"tags": {"u.x": {"order": 0.5}}}}]
    assert joined(news, room_id)["timeline"]["events"] == []
    nothing = await bob.sync(bobs)
    assert nothing["rooms"] == {}
    assert not nothing.get("account_data", {}).get("events")
    again = await alice.sync(news["next_batch"])
    assert again["rooms"] == {}
    initial = await alice.sync()
    assert {"type": "org.example.x", "content": content} in initial["account_data"]["events"]
    assert "m.push_rules" in [event["type"] for event in initial["account_data"]["events"]]


async def test_account_data_of_others_and_of_rooms_unknown(alice: User, bob: User) -> None:
    room_id = await alice.create_room(preset="public_chat")
    for path in (account_data(bob, "x"), account_data(bob, "x", room_id)):
        (await alice.request("PUT", path, {})).error(403, "M_FORBIDDEN")
        (await alice.request("GET", path)).error(403, "M_FORBIDDEN")
    (await alice.request("GET", account_data(alice, "never.set"))).error(404, "M_NOT_FOUND")
    (await alice.request("GET", account_data(alice, "never.set", room_id))).error(404, "M_NOT_FOUND")
    for method in ("PUT", "GET"):
        answer = await alice.request(method, account_data(alice, "x", "nonsense"), {} if method == "PUT" else None)
        answer.error(400, "M_INVALID_PARAM")
        answer = await alice.request(
            method, account_data(alice, "x", "!unknown:weft.test"), {} if method == "PUT" else None
        )
        answer.error(404, "M_NOT_FOUND")


@pytest.mark.parametrize("type", ["m.fully_read", "m.push_rules"])
async def test_what_the_server_manages_cannot_be_set(alice: User, type: str) -> None:
    room_id = await alice.create_room()
    before = await alice.request("GET", account_data(alice, type))
    (await alice.request("PUT", account_data(alice, type), {"x": 1})).error(405, "M_BAD_JSON")
    (await alice.request("PUT", account_data(alice, type, room_id), {"x": 1})).error(405, "M_BAD_JSON")
    after = await alice.request("GET", account_data(alice, type))
    assert (after.status, after.json) == (before.status, before.json)


async def test_account_data_must_be_an_object_of_bearable_size(alice: User) -> None:
    path = account_data(alice, "x")
    (await alice.request("PUT", path, data=b"[]")).error(400, "M_BAD_JSON")
    (await alice.request("PUT", path, data=b"x")).error(400, "M_NOT_JSON")
    in_room = account_data(alice, "x", await alice.create_room())
    (await alice.request("PUT", in_room, data=b"[]")).error(400, "M_BAD_JSON")
    (await alice.request("PUT", in_room, data=b"x")).error(400, "M_NOT_JSON")
    (await alice.request("PUT", path, data=b'{"a": 1' + b"0" * 40 + b"}")).error(400, "M_BAD_JSON")
    (await alice.request("PUT", path, {"x": "y" * 10**6})).error(413, "M_TOO_LARGE")
    (await alice.request("GET", path)).error(404, "M_NOT_FOUND")


async def test_account_data_survives_a_restart(start_server: StartServer) -> None:
    async with start_server() as homeserver:
        alice = await homeserver.register()
        room_id = await alice.create_room()
        since = (await alice.sync())["next_batch"]
        (await alice.request("PUT", account_data(alice, "x"), {"n": 1})).ok()
        (await alice.request("PUT", account_data(alice, "x", room_id), {"n": 2})).ok()
    async with start_server() as homeserver:
        alice = User(homeserver, alice.user_id, alice.token, alice.device_id)
        news = await alice.sync(since)
        assert news["account_data"]["events"] == [{"type": "x", "content": {"n": 1}}]
        assert joined(news, room_id)["account_data"]["events"] == [{"type": "x", "content": {"n": 2}}]

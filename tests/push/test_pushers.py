"""https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3pushers"""

from __future__ import annotations

from typing import Any

import pytest

from tests.client import Homeserver, User
from tests.client_api.support import make_room
from tests.conftest import StartServer
from tests.push.gateway import gateway_started, push_config, pusher_body, set_pusher

URL = "https://push.example.org/_matrix/push/v1/notify"


@pytest.fixture
async def alice(shared_homeserver: Homeserver) -> User:
    return await shared_homeserver.register()


async def pushers_of(user: User) -> list[dict[str, Any]]:
    pushers: list[dict[str, Any]] = (await user.request("GET", "pushers")).ok()["pushers"]
    return pushers


async def test_pushers_are_set_listed_changed_and_deleted(alice: User) -> None:
    assert await pushers_of(alice) == []
    body = pusher_body(URL, "key", profile_tag="tag", data={"format": "event_id_only", "own": [1]})
    assert (await alice.request("POST", "pushers/set", body)).ok() == {}
    assert await pushers_of(alice) == [body]
    changed = pusher_body(URL, "key", lang="de", device_display_name="Telefon")
    (await alice.request("POST", "pushers/set", changed)).ok()
    assert await pushers_of(alice) == [changed]
    other = pusher_body(URL, "key", app_id="org.example.other")
    (await alice.request("POST", "pushers/set", other)).ok()
    assert await pushers_of(alice) == [changed, other]
    gone = {"kind": None, "app_id": "org.example.app", "pushkey": "key"}
    (await alice.request("POST", "pushers/set", gone)).ok()
    (await alice.request("POST", "pushers/set", gone)).ok()
    assert await pushers_of(alice) == [other]


async def test_a_pushkey_goes_from_one_user_to_the_next_unless_it_is_appended(
    alice: User, shared_homeserver: Homeserver
) -> None:
    bob, carol = await shared_homeserver.register(), await shared_homeserver.register()
    await set_pusher(alice, URL, "shared")
    await set_pusher(bob, URL, "shared", append=True)
    assert len(await pushers_of(alice)) == len(await pushers_of(bob)) == 1
    await set_pusher(carol, URL, "shared", app_id="org.example.another")
    assert len(await pushers_of(alice)) == 1
    await set_pusher(carol, URL, "shared")
    assert await pushers_of(alice) == await pushers_of(bob) == []
    assert len(await pushers_of(carol)) == 2


@pytest.mark.parametrize("missing", ["app_display_name", "device_display_name", "lang", "data", "kind", "app_id"])
async def test_what_is_missing_is_named(alice: User, missing: str) -> None:
    body = pusher_body(URL)
    del body[missing]
    answer = await alice.request("POST", "pushers/set", body)
    assert missing in answer.error(400, "M_MISSING_PARAM")["error"]
    assert await pushers_of(alice) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"pushkey": "x" * 513},
        {"pushkey": "ü" * 257},
        {"pushkey": ""},
        {"pushkey": "a\0"},
        {"app_id": "x" * 65},
        {"app_id": ""},
        {"app_id": "\0"},
        {"kind": "carrier pigeon"},
        {"kind": ""},
        {"lang": "x" * 65},
        {"profile_tag": "\0"},
        {"app_display_name": "x" * 256},
        {"data": {"more": "x" * 9000}},
        {"data": {"url": "http://push.example.org/_matrix/push/v1/notify"}},
        {"data": {"url": "https://push.example.org/"}},
        {"data": {"url": "https://push.example.org/_matrix/push/v1/notify/"}},
        {"data": {"url": "https://user@push.example.org/_matrix/push/v1/notify"}},
        {"data": {"url": "https://push.example.org:port/_matrix/push/v1/notify"}},
        {"data": {"url": "https:///_matrix/push/v1/notify"}},
        {"data": {"url": "https://[/_matrix/push/v1/notify"}},
        {"data": {"url": 7}},
    ],
    ids=str,
)
async def test_nonsense_is_refused(alice: User, changes: dict[str, Any]) -> None:
    answer = await alice.request("POST", "pushers/set", pusher_body(URL, **changes))
    answer.error(400, "M_INVALID_PARAM")
    assert await pushers_of(alice) == []


async def test_other_forms_are_refused(alice: User) -> None:
    no_url = {**pusher_body(URL), "data": {}}
    (await alice.request("POST", "pushers/set", no_url)).error(400, "M_MISSING_PARAM")
    for changes in ({"data": []}, {"append": "yes"}, {"kind": 1}, {"lang": None, "data": "x"}):
        answer = await alice.request("POST", "pushers/set", {**pusher_body(URL), **changes})
        assert answer.status == 400, changes
    assert await pushers_of(alice) == []


async def test_a_user_has_so_many_pushers(start_server: StartServer, tmp_path: Any) -> None:
    async with start_server(push=push_config(tmp_path, max_pushers_per_user=2).push) as homeserver:
        alice = await homeserver.register()
        await set_pusher(alice, URL, "one")
        await set_pusher(alice, URL, "two")
        third = await alice.request("POST", "pushers/set", pusher_body(URL, "three"))
        third.error(400, "M_LIMIT_EXCEEDED")
        await set_pusher(alice, URL, "two", lang="fr")
        assert [pusher["pushkey"] for pusher in await pushers_of(alice)] == ["one", "two"]


async def test_pushers_go_with_their_sessions(start_server: StartServer, tmp_path: Any) -> None:
    """By a change of the password, the deletion of a device, and the end of the account."""
    async with start_server(push=push_config(tmp_path).push) as homeserver, gateway_started() as gateway:
        alice, bob = await homeserver.register("alice"), await homeserver.register("bob")
        room_id = await make_room(bob, creator=alice)
        await set_pusher(bob, gateway.url, "first")
        login = {"type": "m.login.password", "identifier": {"type": "m.id.user", "user": "bob"}}
        answer = (await bob.request("POST", "login", {**login, "password": "password of bob"})).ok()
        second = User(homeserver, bob.user_id, answer["access_token"], answer["device_id"])
        await set_pusher(second, gateway.url, "second")
        await gateway.wait_for(await alice.send(room_id, "to both"))
        auth = {**login, "password": "password of bob"}
        change = {"new_password": "another one", "logout_devices": True, "auth": auth}
        (await second.request("POST", "account/password", change)).ok()
        assert [pusher["pushkey"] for pusher in await pushers_of(second)] == ["second"]
        last = await alice.send(room_id, "to one")
        await gateway.wait_for(last)
        assert last not in gateway.event_ids("first")
        auth = {**login, "password": "another one"}
        (await second.request("POST", "account/deactivate", {"auth": auth})).ok()
        assert homeserver.running is not None
        pool = homeserver.running.server.database.pool
        assert await pool.fetchval("SELECT count(*) FROM pushers") == 0

"""https://spec.matrix.org/v1.19/client-server-api/#presence"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from config.schema import Presence, RateLimit, RateLimits
from homeserver.main import running
from tests.client import Answer, Homeserver, User
from tests.client_api.support import encode, make_room
from tests.conftest import StartServer, make_config


class Clock:
    """The server's time, which the test moves."""

    def __init__(self) -> None:
        self.now_ms = 1_700_000_000_000

    def __call__(self) -> int:
        """The time in milliseconds."""
        return self.now_ms


@pytest.fixture
async def alice(homeserver: Homeserver) -> User:
    return await homeserver.register("alice")


@pytest.fixture
async def bob(homeserver: Homeserver) -> User:
    return await homeserver.register("bob")


async def sync(user: User, since: str | None = None, *, set_presence: str = "online", **query: Any) -> dict[str, Any]:
    """A /sync of a client that says, as clients do, that its user is online."""
    return await user.sync(since, set_presence=set_presence, **query)


async def declare(user: User, presence: str, **more: Any) -> Answer:
    path = f"presence/{encode(user.user_id)}/status"
    return await user.request("PUT", path, {"presence": presence, **more})


async def status(reader: User, user: User) -> Answer:
    return await reader.request("GET", f"presence/{encode(user.user_id)}/status")


async def published(user: User) -> None:
    """Returns when what was noted so far is published."""
    assert user.homeserver.running is not None
    await user.homeserver.running.server.presence.publish()


def told(answer: dict[str, Any]) -> dict[str, Any]:
    """User ID -> the content of their presence."""
    events = answer.get("presence", {"events": []})["events"]
    assert {event["type"] for event in events} <= {"m.presence"}
    return {event["sender"]: event["content"] for event in events}


async def test_who_syncs_is_online_for_those_who_share_a_room(alice: User, bob: User, homeserver: Homeserver) -> None:
    await make_room(bob, creator=alice)
    stranger = await homeserver.register()
    since = (await sync(alice, set_presence="offline"))["next_batch"]
    strange = (await sync(stranger, set_presence="offline"))["next_batch"]
    assert (await status(alice, bob)).ok() == {"presence": "offline"}
    await sync(bob)
    await published(bob)
    news = await sync(alice, since, set_presence="offline")
    assert told(news).keys() == {bob.user_id}
    seen = told(news)[bob.user_id]
    assert (seen["presence"], seen["currently_active"]) == ("online", True)
    assert 0 <= seen["last_active_ago"] < 60_000
    assert told(await sync(alice, news["next_batch"], set_presence="offline")) == {}
    assert told(await sync(stranger, strange, set_presence="offline")) == {}
    assert told(await sync(alice, set_presence="offline")).keys() == {bob.user_id}
    assert (await status(alice, bob)).ok()["presence"] == "online"
    assert (await status(bob, alice)).ok() == {"presence": "offline"}
    (await status(stranger, bob)).error(403, "M_FORBIDDEN")
    (await alice.request("GET", "presence/@nobody:weft.test/status")).error(404, "M_NOT_FOUND")


async def test_a_change_wakes_who_waits(alice: User, bob: User) -> None:
    await make_room(bob, creator=alice)
    since = (await sync(alice, set_presence="offline"))["next_batch"]
    waiting = asyncio.create_task(sync(alice, since, timeout=20_000, set_presence="offline"))
    (await declare(bob, "unavailable", status_msg="at lunch")).ok()
    seen = told(await waiting)[bob.user_id]
    assert (seen["presence"], seen["status_msg"], seen["currently_active"]) == ("unavailable", "at lunch", False)
    (await declare(bob, "unavailable", status_msg="at lunch")).ok()
    (await declare(bob, "online")).ok()
    assert "status_msg" not in (await status(alice, bob)).ok()
    (await declare(bob, "offline")).ok()
    assert (await status(alice, bob)).ok()["presence"] == "offline"


async def test_status_messages_outlive_restarts(start_server: StartServer) -> None:
    async with start_server() as homeserver:
        alice, bob = await homeserver.register("alice"), await homeserver.register("bob")
        await make_room(bob, creator=alice)
        (await declare(bob, "online", status_msg="thinking 💭\0")).ok()
    async with start_server() as homeserver:
        alice, bob = [User(homeserver, user.user_id, user.token, user.device_id) for user in (alice, bob)]
        assert (await status(alice, bob)).ok() == {"presence": "offline", "status_msg": "thinking 💭\0"}
        since = (await sync(alice, set_presence="offline"))["next_batch"]
        await sync(bob)
        await published(bob)
        assert told(await sync(alice, since, set_presence="offline"))[bob.user_id]["status_msg"] == "thinking 💭\0"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def timed(database_url: str, tmp_path: Path, clock: Clock) -> AsyncIterator[Homeserver]:
    """A server whose time the test moves."""
    async with (
        running(make_config(tmp_path), database_url, clock) as server,
        Homeserver(f"http://{server.addresses[0]}", server) as homeserver,
    ):
        yield homeserver


async def test_who_does_nothing_is_idle_and_who_is_gone_is_offline(timed: Homeserver, clock: Clock) -> None:
    alice, bob = await timed.register("alice"), await timed.register("bob")
    room_id = await make_room(bob, creator=alice)
    assert timed.running is not None
    presence = timed.running.server.presence
    await sync(bob)
    await published(bob)

    async def after(milliseconds: int) -> dict[str, Any]:
        clock.now_ms += milliseconds
        presence.expire()
        await published(bob)
        content: dict[str, Any] = (await status(alice, bob)).ok()
        return content

    assert (await after(10_000))["currently_active"] is True
    clock.now_ms += 60_000
    await sync(bob)
    assert await after(0) == {"presence": "online", "currently_active": False, "last_active_ago": 70_000}
    clock.now_ms += 290_000
    await sync(bob)
    assert (await after(0))["presence"] == "unavailable"
    await bob.send(room_id, "back again")
    assert await after(0) == {"presence": "online", "currently_active": True, "last_active_ago": 0}
    assert (await after(31_000))["presence"] == "offline"


async def test_others_are_told_again_who_is_here(timed: Homeserver, clock: Clock) -> None:
    bob, eve = await timed.register("bob"), await timed.register("eve")
    assert timed.running is not None
    presence = timed.running.server.presence
    heard: list[str] = []
    presence.local_observers.append(lambda user_id, _rooms, content: heard.append(f"{user_id} {content['presence']}"))
    await sync(bob)
    await sync(eve, set_presence="offline")
    await published(bob)
    for _ in range(50):  # minutes
        clock.now_ms += 60_000
        presence.on_sync(timed.running.server.sessions.known(bob.token), "unavailable", 60_000)
        presence.expire()
        await published(bob)
    assert heard == [f"{bob.user_id} online", *[f"{bob.user_id} unavailable"] * 3]


async def test_messages_of_who_is_active_tell_nobody_anything(alice: User, bob: User) -> None:
    room_id = await make_room(bob, creator=alice)
    await sync(bob)
    await published(bob)
    since = (await sync(alice, set_presence="offline"))["next_batch"]
    for number in range(5):
        await bob.send(room_id, f"{number}")
        await published(bob)
    assert told(await sync(alice, since, set_presence="offline")) == {}


async def test_a_device_that_is_online_outweighs_the_others(homeserver: Homeserver, alice: User, bob: User) -> None:
    await make_room(bob, creator=alice)
    body = {
        "type": "m.login.password",
        "identifier": {"type": "m.id.user", "user": "bob"},
        "password": "password of bob",
    }
    other = (await homeserver.request("POST", "/_matrix/client/v3/login", body)).ok()
    phone = User(homeserver, other["user_id"], other["access_token"], other["device_id"])
    await sync(bob)
    await sync(phone, set_presence="unavailable")
    await published(bob)
    assert (await status(alice, bob)).ok()["presence"] == "online"
    await sync(bob, set_presence="offline")
    await published(bob)
    assert (await status(alice, bob)).ok()["presence"] == "unavailable"
    await sync(phone, set_presence="offline")
    await published(bob)
    assert (await status(alice, bob)).ok()["presence"] == "offline"


async def test_those_in_a_new_room_are_told_of_each_other(alice: User, bob: User) -> None:
    for user in (alice, bob):
        await sync(user)
    await published(alice)
    tokens = [(await sync(user))["next_batch"] for user in (alice, bob)]
    await make_room(bob, creator=alice)
    await published(alice)
    assert bob.user_id in told(await sync(alice, tokens[0]))
    assert alice.user_id in told(await sync(bob, tokens[1]))


async def test_filters_choose_among_presence(alice: User, bob: User, homeserver: Homeserver) -> None:
    carol = await homeserver.register("carol")
    await make_room(bob, carol, creator=alice)
    for user in (bob, carol):
        (await declare(user, "online")).ok()

    async def chosen(presence: dict[str, Any]) -> set[str]:
        found = await sync(alice, filter=json.dumps({"presence": presence}), set_presence="offline")
        return set(told(found))

    assert await chosen({}) == {bob.user_id, carol.user_id}
    assert await chosen({"not_senders": [bob.user_id]}) == {carol.user_id}
    assert await chosen({"senders": [bob.user_id]}) == {bob.user_id}
    assert await chosen({"not_types": ["m.presence"]}) == set()
    assert len(await chosen({"limit": 1})) == 1


async def test_what_makes_no_sense_is_refused(alice: User, bob: User) -> None:
    await make_room(bob, creator=alice)
    path = f"presence/{encode(alice.user_id)}/status"
    (await bob.request("PUT", path, {"presence": "online"})).error(403, "M_FORBIDDEN")
    (await alice.request("PUT", path, {})).error(400, "M_MISSING_PARAM")
    for body in ({"presence": "busy"}, {"presence": 1}, {"presence": "online", "status_msg": 1}):
        (await alice.request("PUT", path, body)).error(400, "M_BAD_JSON")
    (await declare(alice, "online", status_msg="é" * 600)).error(400, "M_INVALID_PARAM")
    (await alice.request("GET", "sync", set_presence="busy")).error(400, "M_INVALID_PARAM")
    assert (await status(bob, alice)).ok() == {"presence": "offline"}


async def test_changes_are_limited_in_rate(start_server: StartServer) -> None:
    async with start_server(rate_limits=RateLimits(registration=None, presence=RateLimit(0.001, 1))) as homeserver:
        alice = await homeserver.register("alice")
        (await declare(alice, "online")).ok()
        (await declare(alice, "offline")).error(429, "M_LIMIT_EXCEEDED")


async def test_presence_can_be_turned_off(start_server: StartServer) -> None:
    async with start_server(presence=Presence(enabled=False)) as homeserver:
        alice, bob = await homeserver.register("alice"), await homeserver.register("bob")
        await make_room(bob, creator=alice)
        (await declare(bob, "online")).error(403, "M_FORBIDDEN")
        (await status(alice, bob)).error(404, "M_NOT_FOUND")
        await sync(bob)
        await published(bob)
        assert "presence" not in await sync(alice)


async def test_a_new_name_is_news_of_presence(alice: User, bob: User) -> None:
    await make_room(bob, creator=alice)
    await sync(bob)
    await published(alice)
    since = (await sync(alice, set_presence="offline"))["next_batch"]
    profile = f"profile/{encode(bob.user_id)}"
    (await bob.request("PUT", f"{profile}/displayname", {"displayname": "Bob"})).ok()
    (await bob.request("PUT", f"{profile}/avatar_url", {"avatar_url": "mxc://weft.test/bob"})).ok()
    await published(alice)
    seen = told(await sync(alice, since, set_presence="offline"))[bob.user_id]
    assert (seen["presence"], seen["displayname"], seen["avatar_url"]) == ("online", "Bob", "mxc://weft.test/bob")
    assert (await status(alice, bob)).ok().keys() <= {"presence", "currently_active", "last_active_ago", "status_msg"}
    (await bob.request("DELETE", f"{profile}/displayname")).ok()
    await published(alice)
    assert "displayname" not in told(await sync(alice, since, set_presence="offline"))[bob.user_id]

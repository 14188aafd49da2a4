"""https://spec.matrix.org/v1.19/client-server-api/#user-directory and mutual rooms"""

from __future__ import annotations

from typing import Any

import pytest

from config.schema import RateLimit, RateLimits
from tests.client import Answer, Homeserver, User
from tests.client_api.support import encode, make_room
from tests.conftest import StartServer

MUTUAL = "/_matrix/client/v1/mutual_rooms"


@pytest.fixture
async def alice(homeserver: Homeserver) -> User:
    return await homeserver.register("alice")


@pytest.fixture
async def bob(homeserver: Homeserver) -> User:
    return await homeserver.register("bob")


async def search(user: User, term: str, **more: Any) -> Any:
    return (await user.request("POST", "user_directory/search", {"search_term": term, **more})).ok()


def ids(answer: Any) -> list[str]:
    return [user["user_id"] for user in answer["results"]]


async def test_users_of_ones_rooms_and_of_public_ones_are_found(homeserver: Homeserver, alice: User, bob: User) -> None:
    assert await search(alice, "bob") == {"results": [], "limited": False}
    private = await alice.create_room(invite=[bob.user_id])
    assert ids(await search(alice, "bob")) == []
    await bob.join(private)
    (await bob.request("PUT", f"profile/{encode(bob.user_id)}/displayname", {"displayname": "Bobby ÄPFEL"})).ok()
    (await bob.request("PUT", f"profile/{encode(bob.user_id)}/avatar_url", {"avatar_url": "mxc://weft.test/b"})).ok()
    found = {"user_id": bob.user_id, "display_name": "Bobby ÄPFEL", "avatar_url": "mxc://weft.test/b"}
    for term in ("bob", "BOB", "äpfel bob", "bobby", "@bob:weft.test"):
        assert await search(alice, term) == {"results": [found], "limited": False}
    for term in ("%", "b_b", "bob carol", "", "  ", "\0"):
        assert ids(await search(alice, term)) == [], term
    carol = await homeserver.register("carol")
    assert ids(await search(carol, "bob")) == []
    public = await bob.create_room(preset="public_chat")
    assert ids(await search(carol, "bob")) == [bob.user_id]
    await bob.set_state(public, "m.room.join_rules", {"join_rule": "invite"})
    assert ids(await search(carol, "bob")) == []
    await bob.set_state(public, "m.room.history_visibility", {"history_visibility": "world_readable"})
    assert ids(await search(carol, "bob")) == [bob.user_id]
    (await bob.in_room("POST", public, "leave", {})).ok()
    assert ids(await search(carol, "bob")) == []


async def test_results_are_limited(homeserver: Homeserver, alice: User) -> None:
    friends = [await homeserver.register(f"friend{n}") for n in range(4)]
    await make_room(*friends, creator=alice)
    assert len(ids(await search(alice, "friend"))) == 4
    assert await search(alice, "friend", limit=4) | {"results": []} == {"results": [], "limited": False}
    answer = await search(alice, "friend", limit=3)
    assert (len(answer["results"]), answer["limited"]) == (3, True)
    for body, errcode in (
        ({}, "M_MISSING_PARAM"),
        ({"search_term": 1}, "M_BAD_JSON"),
        ({"search_term": "x", "limit": "1"}, "M_BAD_JSON"),
        ({"search_term": "x", "limit": -1}, "M_INVALID_PARAM"),
        ({"search_term": "x" * 600}, "M_INVALID_PARAM"),
    ):
        (await alice.request("POST", "user_directory/search", body)).error(400, errcode)


async def test_closed_accounts_are_not_found(alice: User, bob: User) -> None:
    await make_room(bob, creator=alice)
    assert ids(await search(alice, "bob")) == [bob.user_id]
    auth = {
        "type": "m.login.password",
        "identifier": {"type": "m.id.user", "user": "bob"},
        "password": "password of bob",
    }
    session = (await bob.request("POST", "account/deactivate", {})).json["session"]
    (await bob.request("POST", "account/deactivate", {"auth": {**auth, "session": session}})).ok()
    assert ids(await search(alice, "bob")) == []


async def test_mutual_rooms_are_those_that_both_are_in(homeserver: Homeserver, alice: User, bob: User) -> None:
    rooms = [await make_room(bob, creator=alice) for _ in range(3)]
    await alice.create_room(invite=[bob.user_id])
    (await bob.in_room("POST", rooms[1], "leave", {})).ok()
    answer = (await alice.request("GET", MUTUAL, user_id=bob.user_id)).ok()
    assert answer == {"joined": [rooms[0], rooms[2]], "count": 2}
    assert (await bob.request("GET", MUTUAL, user_id=alice.user_id)).ok() == answer
    assert (await bob.request("GET", MUTUAL, user_id="@nobody:weft.test")).ok() == {"joined": [], "count": 0}
    for query in ({}, {"user_id": "bob"}, {"user_id": alice.user_id}, {"user_id": bob.user_id, "from": "x"}):
        (await alice.request("GET", MUTUAL, **query)).error(400, "M_INVALID_PARAM")


async def test_mutual_rooms_come_in_pages(alice: User, bob: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("homeserver.services.user_directory.PAGE_MUTUAL_ROOMS", 2)
    rooms = [await make_room(bob, creator=alice) for _ in range(5)]
    found, query = [], {"user_id": bob.user_id}
    while True:
        page = (await alice.request("GET", MUTUAL, **query)).ok()
        assert page["count"] == 5
        found += page["joined"]
        if "next_batch" not in page:
            break
        query["from"] = page["next_batch"]
    assert found == rooms


async def test_searches_are_limited_in_rate(start_server: StartServer) -> None:
    limits = RateLimits(registration=None, search=RateLimit(0.001, 1))
    async with start_server(rate_limits=limits) as homeserver:
        alice = await homeserver.register()

        async def answers(path: str, method: str, body: Any = None, **query: Any) -> Answer:
            return await alice.request(method, path, body, **query)

        await answers("user_directory/search", "POST", {"search_term": "x"})
        (await answers("user_directory/search", "POST", {"search_term": "x"})).error(429, "M_LIMIT_EXCEEDED")
        (await answers(MUTUAL, "GET", user_id="@b:weft.test")).error(429, "M_LIMIT_EXCEEDED")
        hierarchy = "/_matrix/client/v1/rooms/!x:weft.test/hierarchy"
        (await answers(hierarchy, "GET")).error(429, "M_LIMIT_EXCEEDED")

"""https://spec.matrix.org/v1.19/client-server-api/#room-aliases"""

from __future__ import annotations

import asyncio
import secrets

import pytest

from tests.client import Homeserver, User
from tests.client_api.support import encode, make_room
from tests.conftest import StartServer


@pytest.fixture
async def alice(shared_homeserver: Homeserver) -> User:
    return await shared_homeserver.register()


@pytest.fixture
async def bob(shared_homeserver: Homeserver) -> User:
    return await shared_homeserver.register()


def new_alias() -> str:
    return f"#{secrets.token_hex(6)}:weft.test"


def path(alias: str) -> str:
    return f"directory/room/{encode(alias)}"


async def test_an_alias_is_made_found_listed_and_removed(alice: User, shared_homeserver: Homeserver) -> None:
    room_id, alias = await alice.create_room(), f"#Ünïcode {secrets.token_hex(4)}:weft.test"
    (await alice.request("GET", path(alias))).error(404, "M_NOT_FOUND")
    (await alice.request("PUT", path(alias), {"room_id": room_id})).ok()
    without_token = await shared_homeserver.request("GET", f"/_matrix/client/v3/{path(alias)}")
    assert without_token.ok() == {"room_id": room_id, "servers": ["weft.test"]}
    assert (await alice.in_room("GET", room_id, "aliases")).ok() == {"aliases": [alias]}
    (await alice.request("DELETE", path(alias))).ok()
    (await alice.request("GET", path(alias))).error(404, "M_NOT_FOUND")
    (await alice.request("DELETE", path(alias))).error(404, "M_NOT_FOUND")
    assert (await alice.in_room("GET", room_id, "aliases")).ok() == {"aliases": []}


async def test_an_alias_leads_to_one_room(alice: User, bob: User) -> None:
    first, second, alias = await alice.create_room(), await bob.create_room(), new_alias()
    (await alice.request("PUT", path(alias), {"room_id": first})).ok()
    (await bob.request("PUT", path(alias), {"room_id": second})).error(409, "M_UNKNOWN")
    (await alice.request("PUT", path(alias), {"room_id": first})).error(409, "M_UNKNOWN")
    taken = new_alias()
    answers = await asyncio.gather(*(alice.request("PUT", path(taken), {"room_id": first}) for _ in range(6)))
    assert sorted(answer.status for answer in answers) == [200, 409, 409, 409, 409, 409]


@pytest.mark.parametrize(
    "alias", ["nonsense", "#", "#x", "#x:elsewhere.test", "!x:weft.test", f"#{'x' * 260}:weft.test"]
)
async def test_what_is_no_alias_of_this_server_is_refused(alice: User, alias: str) -> None:
    room_id = await alice.create_room()
    (await alice.request("PUT", path(alias), {"room_id": room_id})).error(400, "M_INVALID_PARAM")
    (await alice.request("DELETE", path(alias))).error(400, "M_INVALID_PARAM")
    if alias == "#x:elsewhere.test":
        (await alice.request("GET", path(alias))).error(404, "M_NOT_FOUND")
    else:
        (await alice.request("GET", path(alias))).error(400, "M_INVALID_PARAM")


async def test_aliases_are_for_rooms_that_one_is_in(alice: User, bob: User) -> None:
    room_id = await alice.create_room(preset="private_chat")
    for target in (room_id, "!unknown:weft.test", "nonsense"):
        (await bob.request("PUT", path(new_alias()), {"room_id": target})).error(403, "M_FORBIDDEN")
    (await bob.request("PUT", path(new_alias()), {})).error(400, "M_MISSING_PARAM")
    (await bob.request("PUT", path(new_alias()), {"room_id": 1})).error(400, "M_BAD_JSON")
    (await bob.in_room("GET", room_id, "aliases")).error(403, "M_FORBIDDEN")
    (await bob.in_room("GET", "nonsense", "aliases")).error(400, "M_INVALID_PARAM")


async def test_an_alias_is_removed_by_its_maker_or_with_power(alice: User, bob: User) -> None:
    room_id = await make_room(bob, creator=alice)
    hers, his, another = new_alias(), new_alias(), new_alias()
    (await alice.request("PUT", path(hers), {"room_id": room_id})).ok()
    (await bob.request("PUT", path(his), {"room_id": room_id})).ok()
    (await bob.request("PUT", path(another), {"room_id": room_id})).ok()
    (await bob.request("DELETE", path(hers))).error(403, "M_FORBIDDEN")
    (await alice.request("DELETE", path(his))).ok()
    (await bob.in_room("POST", room_id, "leave", {})).ok()
    (await bob.request("DELETE", path(another))).ok()
    assert (await alice.in_room("GET", room_id, "aliases")).ok() == {"aliases": [hers]}


async def test_aliases_survive_a_restart(start_server: StartServer) -> None:
    alias = new_alias()
    async with start_server() as homeserver:
        alice = await homeserver.register()
        room_id = await alice.create_room()
        (await alice.request("PUT", path(alias), {"room_id": room_id})).ok()
    async with start_server() as homeserver:
        bob = await homeserver.register()
        assert (await bob.request("GET", path(alias))).ok()["room_id"] == room_id

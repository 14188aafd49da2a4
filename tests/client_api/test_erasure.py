"""Erasing what a closed account wrote from what newcomers see.

https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3accountdeactivate
"""

from __future__ import annotations

from typing import Any

import pytest

from storage.accounts import AccountRepository
from tests.client import Homeserver, User
from tests.client_api.support import encode, joined, make_room, page_through, state_event
from tests.conftest import StartServer

SECRET = {"msgtype": "m.text", "body": "what alice wrote"}


async def deactivate(user: User, *, erase: bool) -> None:
    name = user.user_id[1:].partition(":")[0]
    auth = {"type": "m.login.password", "user": name, "password": f"password of {name}"}
    (await user.request("POST", "account/deactivate", {"auth": auth, "erase": erase})).ok()


async def seen_by(user: User, room_id: str, event_id: str) -> list[dict[str, Any]]:
    """The content of an event, by every way in which the user may come to it."""
    event = (await user.in_room("GET", room_id, f"event/{encode(event_id)}")).ok()
    context = (await user.in_room("GET", room_id, f"context/{encode(event_id)}")).ok()["event"]
    pages = [*await page_through(user, room_id, "b", limit=3), *await page_through(user, room_id, "f", limit=50)]
    sync = await user.sync(filter='{"room":{"include_leave":true,"timeline":{"limit":100}}}')
    part = joined(sync, room_id) or sync["rooms"]["leave"][room_id]
    short = await user.sync(filter='{"room":{"include_leave":true,"timeline":{"limit":31}}}')
    recent = joined(short, room_id) or short["rooms"]["leave"][room_id]
    events = [*pages, *part["timeline"]["events"], *recent["timeline"]["events"]]
    return [found["content"] for found in (event, context, *events) if found["event_id"] == event_id]


async def is_hidden_from(user: User, room_id: str, event_id: str) -> bool:
    contents = await seen_by(user, room_id, event_id)
    assert len(contents) >= 5, "it is seen everywhere"
    assert contents.count(SECRET) in (0, len(contents)), "it is the same everywhere"
    return SECRET not in contents


@pytest.fixture
async def alice(shared_homeserver: Homeserver) -> User:
    return await shared_homeserver.register()


@pytest.fixture
async def bob(shared_homeserver: Homeserver) -> User:
    return await shared_homeserver.register()


@pytest.fixture
async def carol(shared_homeserver: Homeserver) -> User:
    return await shared_homeserver.register()


async def test_newcomers_see_events_redacted_and_others_as_before(alice: User, bob: User, carol: User) -> None:
    gone = await alice.homeserver.register()
    room_id = await make_room(alice, carol, gone, creator=bob)
    event_id = await alice.send(room_id, SECRET)
    for user in (gone, carol):
        (await user.in_room("POST", room_id, "leave", {})).ok()
    await deactivate(alice, erase=True)
    await carol.join(room_id)
    dave = await bob.homeserver.register()
    await dave.join(room_id)
    (await dave.request("PUT", f"profile/{encode(dave.user_id)}/displayname", {"displayname": "Dave"})).ok()
    assert [await is_hidden_from(user, room_id, event_id) for user in (bob, gone, carol, dave)] == [
        False,
        False,
        True,
        True,
    ]


async def test_without_erasure_nothing_is_hidden(alice: User, bob: User, carol: User) -> None:
    room_id = await make_room(alice, creator=bob)
    event_id = await alice.send(room_id, SECRET)
    await deactivate(alice, erase=False)
    await carol.join(room_id)
    assert not await is_hidden_from(carol, room_id, event_id)


async def test_the_room_stays_what_it_is_without_the_name_of_the_user(alice: User, bob: User, carol: User) -> None:
    (await alice.request("PUT", f"profile/{encode(alice.user_id)}/displayname", {"displayname": "Alice"})).ok()
    room_id = await make_room(bob, creator=alice, name="Wonderland")
    await deactivate(alice, erase=True)
    await carol.join(room_id)
    assert (await state_event(carol, room_id, "m.room.name")).ok() == {"name": "Wonderland"}
    pages = await page_through(carol, room_id, "b", limit=50)
    assert {"name": "Wonderland"} in [event["content"] for event in pages]
    assert "Alice" not in repr([pages, await carol.sync()])
    assert "Alice" in repr(await page_through(bob, room_id, "b", limit=50))


async def test_aggregations_say_nothing_either(alice: User, bob: User, carol: User) -> None:
    room_id = await make_room(alice, creator=bob)
    root, own = await bob.send(room_id, "root"), await alice.send(room_id, "first")
    edit = {**SECRET, "m.new_content": SECRET, "m.relates_to": {"rel_type": "m.replace", "event_id": own}}
    await alice.send(room_id, edit)
    reply = {**SECRET, "m.relates_to": {"rel_type": "m.thread", "event_id": root}}
    await alice.send(room_id, reply)
    await deactivate(alice, erase=True)
    await carol.join(room_id)

    async def bundles(user: User) -> list[Any]:
        threads = (await user.request("GET", f"/_matrix/client/v1/rooms/{encode(room_id)}/threads")).ok()
        relations = f"/_matrix/client/v1/rooms/{encode(room_id)}/relations/{encode(root)}"
        events = [(await user.in_room("GET", room_id, f"event/{encode(event_id)}")).ok() for event_id in (root, own)]
        limited = await user.sync(filter='{"room":{"timeline":{"limit":8}}}')
        return [
            threads["chunk"],
            (await user.request("GET", relations)).ok()["chunk"],
            events,
            joined(limited, room_id),
        ]

    assert all(SECRET["body"] in repr(found) for found in await bundles(bob))
    hidden = await bundles(carol)
    assert SECRET["body"] not in repr(hidden)
    [thread] = hidden[0]
    assert thread["unsigned"]["m.relations"]["m.thread"]["count"] == 1


async def test_erasure_outlives_restarts(start_server: StartServer) -> None:
    async with start_server() as homeserver:
        alice, bob = await homeserver.register("alice"), await homeserver.register("bob")
        room_id = await make_room(alice, creator=bob)
        event_id = await alice.send(room_id, SECRET)
        await deactivate(alice, erase=True)
    async with start_server() as homeserver:
        carol = await homeserver.register("carol")
        await carol.join(room_id)
        assert await is_hidden_from(carol, room_id, event_id)
        assert not await is_hidden_from(User(homeserver, bob.user_id, bob.token, bob.device_id), room_id, event_id)


async def test_what_another_process_erases_is_hidden_too(alice: User, bob: User, carol: User) -> None:
    """`weft user deactivate --erase` works on the database, beside the server."""
    room_id = await make_room(alice, creator=bob)
    event_id = await alice.send(room_id, SECRET)
    assert bob.homeserver.running is not None
    await AccountRepository(bob.homeserver.running.server.database.pool).deactivate(alice.user_id, erase=True)
    while (await alice.request("GET", "account/whoami")).status == 200:
        pass  # the message that ends the session comes after the one that tells of the erasure
    await carol.join(room_id)
    assert await is_hidden_from(carol, room_id, event_id)

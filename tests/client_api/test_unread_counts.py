"""https://spec.matrix.org/v1.19/client-server-api/#receiving-notifications, with the default push rules."""

from __future__ import annotations

from typing import Any

import pytest

from tests.client import Homeserver, User
from tests.client_api.support import encode, joined, make_room
from tests.conftest import StartServer


@pytest.fixture
async def alice(shared_homeserver: Homeserver) -> User:
    return await shared_homeserver.register()


@pytest.fixture
async def bob(shared_homeserver: Homeserver) -> User:
    return await shared_homeserver.register()


async def counts(user: User, room_id: str) -> tuple[int, int]:
    """(notifications, highlights) as an initial sync tells them."""
    unread = joined(await user.sync(), room_id)["unread_notifications"]
    return unread["notification_count"], unread["highlight_count"]


async def read(user: User, room_id: str, event_id: str, type: str = "m.read") -> None:
    (await user.in_room("POST", room_id, f"receipt/{type}/{encode(event_id)}", {})).ok()


def mention(**mentions: Any) -> dict[str, Any]:
    return {"msgtype": "m.text", "body": "psst", "m.mentions": mentions}


async def test_messages_of_others_count_until_they_are_read(alice: User, bob: User) -> None:
    room_id = await make_room(bob, creator=alice)
    assert await counts(bob, room_id) == (0, 0)
    ids = [await alice.send(room_id, str(number)) for number in range(3)]
    assert await counts(bob, room_id) == (3, 0)
    assert await counts(alice, room_id) == (0, 0)
    await read(bob, room_id, ids[1])
    assert await counts(bob, room_id) == (1, 0)
    await read(bob, room_id, ids[2], "m.read.private")
    assert await counts(bob, room_id) == (0, 0)
    await alice.send(room_id, "4")
    await bob.send(room_id, "own")
    assert (await counts(bob, room_id))[0] in (0, 1)
    assert await counts(alice, room_id) == (1, 0)


async def test_incremental_syncs_tell_the_counts_too(alice: User, bob: User) -> None:
    room_id = await make_room(bob, creator=alice)
    since = (await bob.sync())["next_batch"]
    event_id = await alice.send(room_id, "x")
    news = await bob.sync(since)
    assert joined(news, room_id)["unread_notifications"] == {"notification_count": 1, "highlight_count": 0}
    await read(bob, room_id, event_id)
    news = await bob.sync(news["next_batch"])
    assert joined(news, room_id)["unread_notifications"] == {"notification_count": 0, "highlight_count": 0}


async def test_mentions_highlight(shared_homeserver: Homeserver, alice: User, bob: User) -> None:
    carol = await shared_homeserver.register()
    room_id = await make_room(bob, carol, creator=alice)
    event_id = await alice.send(room_id, mention(user_ids=[bob.user_id]))
    assert await counts(bob, room_id) == (1, 1)
    assert await counts(carol, room_id) == (1, 0)
    await alice.send(room_id, mention(room=True))
    assert await counts(bob, room_id) == (2, 2)
    assert await counts(carol, room_id) == (2, 1)
    assert await counts(alice, room_id) == (0, 0)
    await read(bob, room_id, event_id)
    assert await counts(bob, room_id) == (1, 1)
    await bob.send(room_id, mention(room=True))
    assert await counts(carol, room_id) == (3, 1), "bob has not the power to notify the room"


async def test_what_does_not_notify_does_not_count(alice: User, bob: User) -> None:
    room_id = await make_room(bob, creator=alice)
    await alice.set_state(room_id, "m.room.topic", {"topic": "x"})
    event_id = await alice.send(room_id, {"msgtype": "m.notice", "body": "x"})
    relation = {"m.relates_to": {"rel_type": "m.annotation", "event_id": event_id, "key": "+1"}}
    await alice.send(room_id, relation, type="m.reaction")
    await alice.send(room_id, {}, type="org.example.silent")
    assert await counts(bob, room_id) == (0, 0)


@pytest.mark.parametrize("warm", [True, False])
async def test_what_was_redacted_does_not_count(alice: User, bob: User, warm: bool) -> None:
    room_id = await make_room(bob, creator=alice)
    plain = await alice.send(room_id, "x")
    personal = await alice.send(room_id, mention(user_ids=[bob.user_id]))
    everyone = await alice.send(room_id, mention(room=True))
    await alice.send(room_id, "stays")
    if warm:
        assert await counts(bob, room_id) == (4, 2)
    expected = [(3, 2), (2, 1), (1, 0)]
    for number, event_id in enumerate((plain, personal, everyone)):
        (await alice.in_room("PUT", room_id, f"redact/{encode(event_id)}/{number}", {})).ok()
        if warm:
            assert await counts(bob, room_id) == expected[number]
    assert await counts(bob, room_id) == (1, 0)
    assert await counts(alice, room_id) == (0, 0)


async def test_counts_start_with_the_join(alice: User, bob: User) -> None:
    room_id = await alice.create_room(preset="public_chat")
    await alice.send(room_id, mention(room=True))
    await bob.join(room_id)
    assert await counts(bob, room_id) == (0, 0)
    await alice.send(room_id, "x")
    (await bob.in_room("POST", room_id, "leave", {})).ok()
    await bob.join(room_id)
    assert await counts(bob, room_id) == (0, 0)


async def test_counts_survive_a_restart(start_server: StartServer) -> None:
    async with start_server() as homeserver:
        alice, bob = await homeserver.register(), await homeserver.register()
        room_id = await make_room(bob, creator=alice)
        await read(bob, room_id, await alice.send(room_id, "read"))
        await alice.send(room_id, mention(user_ids=[bob.user_id]))
        await alice.send(room_id, "x")
    async with start_server() as homeserver:
        alice = User(homeserver, alice.user_id, alice.token, alice.device_id)
        bob = User(homeserver, bob.user_id, bob.token, bob.device_id)
        assert await counts(bob, room_id) == (2, 1)
        await alice.send(room_id, mention(room=True))
        assert await counts(bob, room_id) == (3, 2)
        assert await counts(alice, room_id) == (0, 0)


async def test_who_sends_a_message_has_read_what_is_before_it(alice: User, bob: User) -> None:
    """https://spec.matrix.org/v1.19/client-server-api/#marking-notifications-as-read"""
    room_id = await make_room(bob, creator=alice)
    root = await alice.send(room_id, "hello")
    threaded = {"msgtype": "m.text", "body": "x", "m.relates_to": {"rel_type": "m.thread", "event_id": root}}
    await alice.send(room_id, threaded)
    assert await counts(bob, room_id) == (2, 0)
    await bob.send(room_id, "hello yourself")
    assert await counts(bob, room_id) == (1, 0), "the thread is not read by that"
    await bob.send(room_id, threaded)
    assert await counts(bob, room_id) == (0, 0)


async def test_messages_of_ignored_users_do_not_count(alice: User, bob: User) -> None:
    room_id = await make_room(bob, creator=alice)
    await alice.send(room_id, {"msgtype": "m.text", "body": "you", "m.mentions": {"user_ids": [bob.user_id]}})
    assert await counts(bob, room_id) == (1, 1)
    path = f"user/{encode(bob.user_id)}/account_data/m.ignored_user_list"
    (await bob.request("PUT", path, {"ignored_users": {alice.user_id: {}}})).ok()
    assert await counts(bob, room_id) == (0, 0)
    await alice.send(room_id, "hello?")
    assert await counts(bob, room_id) == (0, 0)
    (await bob.request("PUT", path, {"ignored_users": {}})).ok()
    assert await counts(bob, room_id) == (2, 1)

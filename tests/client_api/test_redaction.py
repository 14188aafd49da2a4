"""https://spec.matrix.org/v1.19/client-server-api/#redactions"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from config.schema import Caches
from matrix.room_versions import ROOM_VERSIONS
from tests.client import Homeserver, User
from tests.client_api.support import encode, joined, make_room, page_through, state_event
from tests.conftest import StartServer


@pytest.fixture
async def alice(shared_homeserver: Homeserver) -> User:
    return await shared_homeserver.register()


@pytest.fixture
async def bob(shared_homeserver: Homeserver) -> User:
    return await shared_homeserver.register()


async def redact(user: User, room_id: str, event_id: str, txn_id: str = "r", **body: Any) -> Any:
    return await user.in_room("PUT", room_id, f"redact/{encode(event_id)}/{txn_id}", body)


async def event(user: User, room_id: str, event_id: str) -> dict[str, Any]:
    found: dict[str, Any] = (await user.in_room("GET", room_id, f"event/{encode(event_id)}")).ok()
    return found


@pytest.mark.parametrize("version", ROOM_VERSIONS)
async def test_the_target_stands_where_clients_of_any_age_look(shared_homeserver: Homeserver, version: str) -> None:
    alice = await shared_homeserver.register()
    room_id = await alice.create_room(room_version=version)
    target = await alice.send(room_id, "x")
    redaction_id = (await redact(alice, room_id, target, reason="because", redacts="$other")).ok()["event_id"]
    redaction = await event(alice, room_id, redaction_id)
    assert redaction["redacts"] == target
    assert redaction["content"] == {"reason": "because", "redacts": target}
    redacted = await event(alice, room_id, target)
    assert redacted["content"] == {}
    assert redacted["unsigned"]["redacted_because"]["event_id"] == redaction_id
    timeline = await page_through(alice, room_id, "b", limit=2)
    assert [(item["event_id"], item["content"]) for item in timeline[1:2]] == [(target, {})]


async def test_one_may_redact_ones_own_and_with_the_power_others(alice: User, bob: User) -> None:
    room_id = await make_room(bob, creator=alice)
    hers, his = await alice.send(room_id, "a"), await bob.send(room_id, "b")
    (await redact(bob, room_id, hers)).error(403, "M_FORBIDDEN")
    (await redact(bob, room_id, his)).ok()
    his = await bob.send(room_id, "c")
    (await redact(alice, room_id, his, "r2")).ok()
    assert (await event(bob, room_id, hers))["content"]["body"] == "a"
    assert (await event(bob, room_id, his))["content"] == {}


async def test_sending_redactions_can_need_power_of_its_own(alice: User, bob: User) -> None:
    override = {"events": {"m.room.redaction": 50}}
    room_id = await make_room(bob, creator=alice, power_level_content_override=override)
    his = await bob.send(room_id, "b")
    (await redact(bob, room_id, his)).error(403, "M_FORBIDDEN")
    assert (await event(bob, room_id, his))["content"]["body"] == "b"


async def test_events_that_are_not_in_the_room_cannot_be_redacted(alice: User, bob: User) -> None:
    room_id, other = await alice.create_room(), await bob.create_room()
    elsewhere = await bob.send(other, "x")
    for event_id in (elsewhere, "$unknown", "nonsense"):
        (await redact(alice, room_id, event_id)).error(404, "M_NOT_FOUND")
    assert (await event(bob, other, elsewhere))["content"]["body"] == "x"


async def test_a_redaction_is_made_once_for_a_transaction(alice: User) -> None:
    room_id = await alice.create_room()
    target = await alice.send(room_id, "x")
    answers = await asyncio.gather(*(redact(alice, room_id, target, "same") for _ in range(5)))
    assert len({answer.ok()["event_id"] for answer in answers}) == 1
    again = (await redact(alice, room_id, target, "other")).ok()["event_id"]
    assert again != answers[0].json["event_id"]
    assert (await event(alice, room_id, target))["unsigned"]["redacted_because"]["event_id"] == answers[0].json[
        "event_id"
    ]


async def test_a_redaction_may_be_sent_as_an_event(alice: User) -> None:
    room_id = await alice.create_room()
    target = await alice.send(room_id, "x")
    (await alice.in_room("PUT", room_id, "send/m.room.redaction/1", {})).error(400, "M_BAD_JSON")
    await alice.send(room_id, {"redacts": target, "reason": "y"}, type="m.room.redaction")
    assert (await event(alice, room_id, target))["content"] == {}


async def test_redacted_state_keeps_what_the_rules_need(alice: User, bob: User) -> None:
    room_id = await make_room(bob, creator=alice, name="secret")
    name = (await alice.in_room("GET", room_id, "state/m.room.name", format="event")).ok()
    levels = (await alice.in_room("GET", room_id, "state/m.room.power_levels", format="event")).ok()
    member = (await alice.in_room("GET", room_id, f"state/m.room.member/{encode(bob.user_id)}", format="event")).ok()
    for number, target in enumerate((name, levels, member)):
        (await redact(alice, room_id, target["event_id"], f"r{number}")).ok()
    assert (await state_event(bob, room_id, "m.room.name")).ok() == {}
    assert (await state_event(bob, room_id, "m.room.power_levels")).ok()["ban"] == 50
    assert (await state_event(bob, room_id, "m.room.member", bob.user_id)).ok() == {"membership": "join"}
    await bob.send(room_id, "still a member")
    (await bob.in_room("PUT", room_id, "state/m.room.name/", {"name": "x"})).error(403, "M_FORBIDDEN")


async def test_a_redaction_reaches_syncs_as_an_event_and_in_the_target(alice: User, bob: User) -> None:
    room_id = await make_room(bob, creator=alice)
    target = await alice.send(room_id, "x")
    since = (await bob.sync())["next_batch"]
    redaction = (await redact(alice, room_id, target)).ok()["event_id"]
    news = joined(await bob.sync(since), room_id)["timeline"]["events"]
    assert [(item["event_id"], item["type"], item["redacts"]) for item in news] == [
        (redaction, "m.room.redaction", target)
    ]
    whole = {item["event_id"]: item for item in joined(await bob.sync(), room_id)["timeline"]["events"]}
    assert whole[target]["content"] == {}


async def test_no_cache_keeps_what_was_redacted(start_server: StartServer) -> None:
    async with start_server(caches=Caches(events=16)) as homeserver:
        alice = await homeserver.register()
        room_id = await alice.create_room(name="secret", topic="secret")
        target = await alice.send(room_id, "secret")
        name = (await alice.in_room("GET", room_id, "state/m.room.name", format="event")).ok()["event_id"]
        for number in range(20):
            await alice.send(room_id, f"filler {number}")
        (await redact(alice, room_id, target, "1")).ok()
        (await redact(alice, room_id, name, "2")).ok()
        for number in range(20):
            await alice.send(room_id, f"filler {number}")
        sync = joined(await alice.sync(filter='{"room":{"timeline":{"limit":60}}}'), room_id)
        seen = [item for item in sync["timeline"]["events"] if item["event_id"] in (target, name)]
        assert [item["content"] for item in seen] == [{}, {}]
        assert (await state_event(alice, room_id, "m.room.name")).ok() == {}
        bob = await homeserver.register()
        (await alice.in_room("POST", room_id, "invite", {"user_id": bob.user_id})).ok()
        invited = (await bob.sync())["rooms"]["invite"][room_id]["invite_state"]["events"]
        assert [item["content"] for item in invited if item["type"] == "m.room.name"] == [{}]
    async with start_server() as homeserver:
        alice = User(homeserver, alice.user_id, alice.token, alice.device_id)
        assert (await event(alice, room_id, target))["content"] == {}


@pytest.mark.parametrize("version", ROOM_VERSIONS)
async def test_administrators_redact_what_users_of_their_server_send(
    shared_homeserver: Homeserver, version: str
) -> None:
    alice, bob, admin = [await shared_homeserver.register() for _ in range(3)]
    room_id = await make_room(bob, admin, creator=alice, room_version=version)
    target = await alice.send(room_id, "x")
    (await redact(admin, room_id, target, "before")).error(403, "M_FORBIDDEN")
    assert shared_homeserver.running is not None
    server = shared_homeserver.running.server
    await server.database.pool.execute("UPDATE users SET is_admin = true WHERE user_id = $1", admin.user_id)
    server.sessions.forget_user(admin.user_id)
    (await redact(bob, room_id, target)).error(403, "M_FORBIDDEN")
    (await redact(admin, room_id, target)).ok()
    assert (await event(bob, room_id, target))["content"] == {}
    outside = await make_room(creator=alice, room_version=version)
    (await redact(admin, outside, await alice.send(outside, "x"))).error(403, "M_FORBIDDEN")

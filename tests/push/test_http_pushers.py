"""Pushes to a gateway: https://spec.matrix.org/v1.19/push-gateway-api/"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from homeserver.services.push.delivery import MAX_ITEMS
from tests.client import Homeserver, User
from tests.client_api.support import encode, make_room
from tests.conftest import StartServer, started
from tests.engine.waiting import eventually
from tests.push.gateway import Gateway, gateway_started, push_config, read, set_pusher

MENTION = {"msgtype": "m.text", "body": "you"}


@pytest.fixture(scope="module")
async def shared_homeserver(
    module_database_url: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Homeserver]:
    config = push_config(tmp_path_factory.mktemp("server"))
    async with started(config, module_database_url) as homeserver:
        yield homeserver


@pytest.fixture
async def gateway() -> AsyncIterator[Gateway]:
    async with gateway_started() as gateway:
        yield gateway


@pytest.fixture
async def alice(shared_homeserver: Homeserver) -> User:
    return await shared_homeserver.register()


@pytest.fixture
async def bob(shared_homeserver: Homeserver) -> User:
    return await shared_homeserver.register()


async def test_a_push_says_all_that_the_specification_has(alice: User, bob: User, gateway: Gateway) -> None:
    data = {"brand": "own", "default_payload": {"aps": {}}}
    await set_pusher(bob, gateway.url, "bobs phone", data=data)
    (await alice.request("PUT", f"profile/{encode(alice.user_id)}/displayname", {"displayname": "Alice"})).ok()
    alias = f"room-{alice.user_id.split(':')[0][1:]}"
    room_id = await make_room(bob, creator=alice, name="Kitchen", room_alias_name=alias)
    third = await alice.homeserver.register()
    await third.join(room_id)
    event_id = await alice.send(room_id, {**MENTION, "m.mentions": {"user_ids": [bob.user_id]}})
    push = await gateway.wait_for(event_id)
    device = push.pop("devices")[0]
    assert device.pop("pushkey_ts") > 1_000_000_000
    assert device == {
        "app_id": "org.example.app",
        "pushkey": "bobs phone",
        "data": data,
        "tweaks": {"highlight": True, "sound": "default"},
    }
    assert push == {
        "event_id": event_id,
        "room_id": room_id,
        "type": "m.room.message",
        "sender": alice.user_id,
        "sender_display_name": "Alice",
        "room_name": "Kitchen",
        "room_alias": f"#{alias}:weft.test",
        "prio": "high",
        "content": {**MENTION, "m.mentions": {"user_ids": [bob.user_id]}},
        "counts": {"unread": 1},
    }


async def test_the_short_format_has_no_more_than_the_id(alice: User, bob: User, gateway: Gateway) -> None:
    await set_pusher(bob, gateway.url, data={"format": "event_id_only"})
    third = await alice.homeserver.register()
    room_id = await make_room(bob, third, creator=alice)
    event_id = await alice.send(room_id, "hello")
    push = await gateway.wait_for(event_id)
    assert {name: push[name] for name in push if name != "devices"} == {
        "event_id": event_id,
        "room_id": room_id,
        "prio": "low",
        "counts": {"unread": 1},
    }
    assert push["devices"][0]["data"] == {"format": "event_id_only"}


async def test_encrypted_events_are_pushed(alice: User, bob: User, gateway: Gateway) -> None:
    await set_pusher(bob, gateway.url)
    third = await alice.homeserver.register()
    room_id = await make_room(bob, third, creator=alice)
    content = {"algorithm": "m.megolm.v1.aes-sha2", "ciphertext": "x"}
    event_id = await alice.send(room_id, content, type="m.room.encrypted")
    push = await gateway.wait_for(event_id)
    assert push["type"] == "m.room.encrypted"
    assert push["prio"] == "high"
    assert push["counts"] == {"unread": 1}


async def test_an_invite_is_pushed(alice: User, bob: User, gateway: Gateway) -> None:
    await set_pusher(bob, gateway.url)
    room_id = await alice.create_room(preset="private_chat", name="Secret", invite=[bob.user_id])
    await gateway.wait(lambda: bool(gateway.taken))
    push = gateway.taken[0]
    assert (push["room_id"], push["type"], push["user_is_target"]) == (room_id, "m.room.member", True)
    assert push["content"]["membership"] == "invite"
    assert push["room_name"] == "Secret"
    assert push["counts"] == {}


async def test_what_does_not_notify_is_not_pushed(alice: User, bob: User, gateway: Gateway) -> None:
    await set_pusher(bob, gateway.url)
    carol = await alice.homeserver.register()
    room_id = await make_room(bob, carol, creator=alice)
    ignored = {"ignored_users": {carol.user_id: {}}}
    (await bob.request("PUT", f"user/{encode(bob.user_id)}/account_data/m.ignored_user_list", ignored)).ok()
    await bob.send(room_id, "my own")
    await carol.send(room_id, "from one who is ignored")
    first = await alice.send(room_id, "hello")
    await alice.send(room_id, {"msgtype": "m.notice", "body": "beep"})
    edit = {"msgtype": "m.text", "body": "better", "m.relates_to": {"rel_type": "m.replace", "event_id": first}}
    await alice.send(room_id, {**edit, "m.new_content": {"msgtype": "m.text", "body": "better"}})
    await alice.set_state(room_id, "m.room.topic", {"topic": "cakes"})
    muted = await make_room(bob, carol, creator=alice)
    (await bob.request("PUT", f"pushrules/global/room/{encode(muted)}", {"actions": []})).ok()
    await alice.send(muted, "to deaf ears")
    last = await alice.send(room_id, "that was all")
    await gateway.wait_for(last)
    assert gateway.event_ids() == [first, last]


async def test_own_rules_say_what_is_pushed_and_with_what_sound(alice: User, bob: User, gateway: Gateway) -> None:
    await set_pusher(bob, gateway.url)
    carol = await alice.homeserver.register()
    room_id = await make_room(bob, carol, creator=alice)
    loud: list[Any] = ["notify", {"set_tweak": "sound", "value": "cake.wav"}]
    (await bob.request("PUT", "pushrules/global/content/cake", {"pattern": "cake", "actions": loud})).ok()
    quiet = {"enabled": False}
    (await bob.request("PUT", "pushrules/global/underride/.m.rule.message/enabled", quiet)).ok()
    await alice.send(room_id, "hello")
    event_id = await alice.send(room_id, "There is cake")
    push = await gateway.wait_for(event_id)
    assert gateway.event_ids() == [event_id]
    assert push["devices"][0]["tweaks"] == {"sound": "cake.wav"}
    assert push["prio"] == "high"


async def test_a_display_name_is_looked_for_by_rules_that_want_it(alice: User, bob: User, gateway: Gateway) -> None:
    await set_pusher(bob, gateway.url)
    carol = await alice.homeserver.register()
    room_id = await make_room(bob, carol, creator=alice)
    rule = {"conditions": [{"kind": "contains_display_name"}], "actions": ["notify"]}
    (await bob.request("PUT", "pushrules/global/override/name", rule)).ok()
    (await bob.request("PUT", "pushrules/global/underride/.m.rule.message/enabled", {"enabled": False})).ok()
    (await bob.request("PUT", f"profile/{encode(bob.user_id)}/displayname", {"displayname": "Robert"})).ok()
    await alice.send(room_id, "hello all")
    event_id = await alice.send(room_id, "hello Robert")
    await gateway.wait_for(event_id)
    assert gateway.event_ids() == [event_id]


async def test_reading_tells_the_lower_count(alice: User, bob: User, gateway: Gateway) -> None:
    await set_pusher(bob, gateway.url)
    rooms = [await make_room(bob, creator=alice) for _ in range(2)]
    first = await alice.send(rooms[0], "one")
    await gateway.wait_for(first)
    second = await alice.send(rooms[1], "two")
    assert (await gateway.wait_for(second))["counts"] == {"unread": 2}
    await read(bob, rooms[0], first)
    await gateway.wait_for_count(1)
    assert "event_id" not in gateway.taken[-1]
    assert gateway.taken[-1]["devices"][0]["pushkey"] == "key"
    await read(bob, rooms[1], second)
    await gateway.wait_for_count(0)
    assert gateway.taken[-1]["counts"] == {"unread": 0}, "where it is all there is to say, 0 is said"
    assert len(gateway.taken) == 4


async def test_a_redaction_and_leaving_tell_the_lower_count(alice: User, bob: User, gateway: Gateway) -> None:
    await set_pusher(bob, gateway.url)
    room_id, other = [await make_room(bob, creator=alice) for _ in range(2)]
    first = await alice.send(room_id, "one")
    await gateway.wait_for(await alice.send(other, "two"))
    (await alice.in_room("PUT", room_id, f"redact/{encode(first)}/r", {})).ok()
    await gateway.wait_for_count(1)
    (await bob.in_room("POST", other, "leave", {})).ok()
    await gateway.wait_for_count(0)


@pytest.mark.parametrize("is_in_data", [True, False])
async def test_clients_that_count_themselves_are_told_no_counts(
    alice: User, bob: User, gateway: Gateway, is_in_data: bool
) -> None:
    wish: dict[str, Any] = {"org.matrix.msc4076.disable_badge_count": True}
    await set_pusher(bob, gateway.url, **({"data": wish} if is_in_data else wish))
    room_id = await make_room(bob, creator=alice)
    first = await alice.send(room_id, "one")
    assert "counts" not in await gateway.wait_for(first)
    await read(bob, room_id, first)
    second = await alice.send(room_id, "two")
    await gateway.wait_for(second)
    assert len(gateway.taken) == 2


async def test_what_was_read_or_redacted_meanwhile_is_not_pushed(alice: User, bob: User, gateway: Gateway) -> None:
    await set_pusher(bob, gateway.url)
    room_id = await make_room(bob, creator=alice)
    gateway.is_open.clear()
    in_flight = await alice.send(room_id, "on its way")
    await gateway.wait(lambda: gateway.tried == 1)
    await alice.send(room_id, "read before it gets out")
    seen = await alice.send(room_id, "read too")
    await read(bob, room_id, seen)
    gone = await alice.send(room_id, "redacted")
    (await alice.in_room("PUT", room_id, f"redact/{encode(gone)}/r", {})).ok()
    threaded = {"msgtype": "m.text", "body": "x", "m.relates_to": {"rel_type": "m.thread", "event_id": in_flight}}
    in_thread = await alice.send(room_id, threaded)
    await read(bob, room_id, in_thread, thread_id=in_flight)
    last = await alice.send(room_id, "new")
    gateway.is_open.set()
    push = await gateway.wait_for(last)
    assert gateway.event_ids() == [in_flight, last]
    assert push["counts"] == {"unread": 1}


async def test_each_device_has_its_own_pushes(alice: User, bob: User, gateway: Gateway) -> None:
    body = {"type": "m.login.password", "identifier": {"type": "m.id.user", "user": bob.user_id}}
    name = bob.user_id[1:].split(":")[0]
    login = (await bob.request("POST", "login", {**body, "password": f"password of {name}"})).ok()
    tablet = User(bob.homeserver, bob.user_id, login["access_token"], login["device_id"])
    await set_pusher(bob, gateway.url, "phone")
    await set_pusher(tablet, gateway.url, "tablet")
    room_id = await make_room(bob, creator=alice)
    first = await alice.send(room_id, "both")
    await gateway.wait(lambda: len(gateway.event_ids()) == 2)
    assert {push["devices"][0]["pushkey"] for push in gateway.taken} == {"phone", "tablet"}
    (await tablet.request("POST", "logout", {})).ok()
    second = await alice.send(room_id, "one")
    third = await alice.send(room_id, "more")
    await gateway.wait(lambda: third in gateway.event_ids("phone"))
    assert gateway.event_ids("tablet") == [first]
    assert gateway.event_ids("phone") == [first, second, third]
    pushers = (await bob.request("GET", "pushers")).ok()["pushers"]
    assert [pusher["pushkey"] for pusher in pushers] == ["phone"]


async def test_a_rejected_pushkey_goes(alice: User, bob: User, gateway: Gateway) -> None:
    await set_pusher(bob, gateway.url, "dead")
    await set_pusher(bob, gateway.url, "alive", append=True)
    room_id = await make_room(bob, creator=alice)
    gateway.rejected = ["dead", "somebody else's"]
    await alice.send(room_id, "one")
    await gateway.wait(lambda: len(gateway.taken) == 2)
    last = await alice.send(room_id, "two")
    await gateway.wait(lambda: last in gateway.event_ids("alive"))
    known = alice.homeserver.running.server.pushers.known  # type: ignore[union-attr]
    await eventually(lambda: [pusher.row.pushkey for pusher in known(bob.user_id).pushers] == ["alive"])
    assert last not in gateway.event_ids("dead")
    pushers = (await bob.request("GET", "pushers")).ok()["pushers"]
    assert [pusher["pushkey"] for pusher in pushers] == ["alive"]


async def test_a_gateway_that_fails_gets_everything_later_and_in_order(
    alice: User, bob: User, gateway: Gateway
) -> None:
    await set_pusher(bob, gateway.url)
    room_id = await make_room(bob, creator=alice)
    gateway.status = 502
    sent = [await alice.send(room_id, str(n)) for n in range(5)]
    await gateway.wait(lambda: gateway.tried >= 4)
    gateway.status, gateway.headers = 429, {"Retry-After": "0"}
    await gateway.wait(lambda: gateway.tried >= 6)
    gateway.status = 200
    await gateway.wait_for(sent[-1])
    assert gateway.event_ids() == sent
    metrics = (await alice.homeserver.request("GET", "/metrics")).json
    assert 'pushes_total{result="failed"}' in metrics


async def test_a_stalled_pusher_holds_up_no_other(alice: User, bob: User, gateway: Gateway) -> None:
    async with gateway_started() as stalled:
        await set_pusher(bob, stalled.url, "stalled")
        await set_pusher(bob, gateway.url, "well")
        stalled.is_open.clear()
        room_id = await make_room(bob, creator=alice)
        sent = []
        for number in range(MAX_ITEMS + 10):
            sent.append(await alice.send(room_id, str(number)))
            await gateway.wait_for(sent[-1])
        assert gateway.event_ids() == sent
        stalled.is_open.set()
        await stalled.wait_for(sent[-1])
        assert len(stalled.event_ids()) <= 12, "of too many that wait, the newest is pushed"


async def test_private_addresses_get_nothing(start_server: StartServer, tmp_path: Path, gateway: Gateway) -> None:
    strict = push_config(tmp_path, allowed_ip_ranges=(), min_retry_interval_ms=1, max_retry_interval_ms=1)
    async with start_server(push=strict.push) as homeserver:
        alice, bob = await homeserver.register(), await homeserver.register()
        await set_pusher(bob, gateway.url, "by address")
        await set_pusher(bob, gateway.url.replace("127.0.0.1", "localhost"), "by name")
        await set_pusher(bob, gateway.url.replace("127.0.0.1", "[::ffff:127.0.0.1]"), "in disguise")
        room_id = await make_room(bob, creator=alice)
        await alice.send(room_id, "hello")
        assert homeserver.running is not None
        registry = homeserver.running.server.metrics.registry
        await eventually(lambda: (registry.get_sample_value("pushes_total", {"result": "failed"}) or 0) >= 9)
        assert gateway.tried == 0


def start(start_server: StartServer, tmp_path: Path, **changes: Any) -> AbstractAsyncContextManager[Homeserver]:
    return start_server(push=push_config(tmp_path, **changes).push)


async def test_what_was_not_pushed_is_pushed_after_a_restart(
    start_server: StartServer, tmp_path: Path, gateway: Gateway
) -> None:
    async with start(start_server, tmp_path) as homeserver:
        alice, bob = await homeserver.register(), await homeserver.register()
        await set_pusher(bob, gateway.url)
        room_id = await make_room(bob, creator=alice)
        done = await alice.send(room_id, "pushed")
        await gateway.wait_for(done)
        gateway.status = 500
        late = [await alice.send(room_id, str(n)) for n in range(3)]
        await alice.create_room(invite=[bob.user_id])
        await gateway.wait(lambda: gateway.tried >= 2)
    gateway.status = 200
    async with start(start_server, tmp_path) as homeserver:
        alice.homeserver = bob.homeserver = homeserver
        await gateway.wait(lambda: len(gateway.event_ids()) == 5)
        [*told, invitation] = gateway.event_ids()
        assert told == [done, *late]
        last = await alice.send(room_id, "after")
        push = await gateway.wait_for(last)
        assert gateway.event_ids() == [*told, invitation, last]
        assert push["counts"] == {"unread": 5}
        gateway.status = 500
        many = [await alice.send(room_id, str(n)) for n in range(MAX_ITEMS + 1)]
    gateway.status = 200
    async with start(start_server, tmp_path):
        await gateway.wait_for(many[-1])
        assert gateway.event_ids() == [*told, invitation, last, many[-1]], "of too many, the newest"


async def test_too_old_events_are_not_pushed(start_server: StartServer, tmp_path: Path, gateway: Gateway) -> None:
    async with start(start_server, tmp_path, give_up_after_ms=1) as homeserver:
        alice, bob = await homeserver.register(), await homeserver.register()
        await set_pusher(bob, gateway.url)
        room_id = await make_room(bob, creator=alice)
        gateway.status = 500
        assert homeserver.running is not None
        registry = homeserver.running.server.metrics.registry
        old = await alice.send(room_id, "old by the time it can be pushed")
        await gateway.wait(lambda: gateway.tried >= 1)
        gateway.status = 200
        await eventually(lambda: registry.get_sample_value("pushes_total", {"result": "dropped"}))
        assert old not in gateway.event_ids()

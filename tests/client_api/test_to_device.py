"""https://spec.matrix.org/v1.19/client-server-api/#send-to-device-messaging"""

from __future__ import annotations

import asyncio
from typing import Any

from homeserver.services.encryption.to_device import MAX_PER_SYNC
from tests.client import Answer, Homeserver, User
from tests.client_api.encryption import Follower, follow, log_in
from tests.conftest import StartServer


async def send(sender: User, txn_id: str, messages: dict[str, Any], *, type: str = "org.example.note") -> Answer:
    return await sender.request("PUT", f"sendToDevice/{type}/{txn_id}", {"messages": messages})


def texts(follower: Follower) -> list[Any]:
    return [message["content"]["text"] for message in follower.messages]


async def test_a_message_reaches_the_device_it_is_for(shared_homeserver: Homeserver) -> None:
    alice, bob = await shared_homeserver.register(), await shared_homeserver.register()
    phone, laptop = await follow(bob), await follow(await log_in(bob, "LAPTOP"))

    assert (await send(alice, "1", {bob.user_id: {"LAPTOP": {"text": "hello", "n": 1.5}}})).ok() == {}

    for device in (phone, laptop):
        await device.sync()
    expected = {"type": "org.example.note", "sender": alice.user_id, "content": {"text": "hello", "n": 1.5}}
    assert (phone.messages, laptop.messages) == ([], [expected])
    await laptop.sync()
    assert len(laptop.messages) == 1


async def test_an_asterisk_is_every_device_and_a_device_named_beside_it_gets_its_own(
    shared_homeserver: Homeserver,
) -> None:
    alice = await shared_homeserver.register()
    phone, laptop = await follow(alice), await follow(await log_in(alice, "LAPTOP"))
    messages = {alice.user_id: {"*": {"text": "all"}, "LAPTOP": {"text": "one"}, "NO SUCH DEVICE": {"text": "none"}}}
    (await send(alice, "1", {**messages, "@nobody:weft.test": {"*": {"text": "x"}}})).ok()
    for device in (phone, laptop):
        await device.sync()
    assert (texts(phone), texts(laptop)) == (["all"], ["one"])


async def test_a_device_that_waits_is_woken(shared_homeserver: Homeserver) -> None:
    alice, bob = await shared_homeserver.register(), await shared_homeserver.register()
    device = await follow(bob)

    async def wait() -> None:
        while not device.messages:
            await device.sync(timeout=20_000)

    waiting = asyncio.create_task(wait())
    await asyncio.sleep(0.05)
    (await send(alice, "1", {bob.user_id: {bob.device_id: {"text": "wake up"}}})).ok()
    await asyncio.wait_for(waiting, 10)
    assert texts(device) == ["wake up"]


async def test_a_request_sent_again_sends_nothing_again(start_server: StartServer) -> None:
    async with start_server() as homeserver:
        alice, bob = await homeserver.register("alice"), await homeserver.register("bob")
        device = await follow(bob)
        to_bob = {bob.user_id: {"*": {"text": "once"}}}
        for answer in await asyncio.gather(*(send(alice, "1", to_bob) for _ in range(5))):
            answer.ok()
        await device.sync()
        (await send(alice, "1", to_bob)).ok()
    async with start_server() as homeserver:
        alice.homeserver = bob.homeserver = homeserver
        (await send(alice, "1", to_bob)).ok()
        await device.sync()
        assert texts(device) == ["once"]
        (await send(alice, "1", to_bob, type="org.example.other")).ok()
        (await send(await log_in(alice, "OTHER"), "1", to_bob)).ok()
        await device.sync()
        assert texts(device) == ["once"] * 3


async def test_a_long_queue_comes_in_parts_and_in_order(shared_homeserver: Homeserver) -> None:
    alice, bob = await shared_homeserver.register(), await shared_homeserver.register()
    device = await follow(bob)
    count = 2 * MAX_PER_SYNC + 7
    for number in range(count):
        (await send(alice, f"{number}", {bob.user_id: {bob.device_id: {"text": number}}})).ok()

    for expected in (MAX_PER_SYNC, 2 * MAX_PER_SYNC, count, count):
        before = device.token
        await device.sync()
        assert texts(device) == list(range(expected))
    again = await bob.sync(before)
    assert again["to_device"]["events"] == []


async def test_what_was_not_acknowledged_comes_again(start_server: StartServer) -> None:
    async with start_server() as homeserver:
        alice, bob = await homeserver.register("alice"), await homeserver.register("bob")
        token = (await bob.sync())["next_batch"]
        (await send(alice, "1", {bob.user_id: {"*": {"text": "first"}}})).ok()
        lost = await bob.sync(token)
    async with start_server() as homeserver:
        alice.homeserver = bob.homeserver = homeserver
        got = await bob.sync(token)
        assert got["to_device"] == lost["to_device"]
        assert (await bob.sync())["to_device"] == lost["to_device"], "a sync from the beginning acknowledges nothing"
        (await send(alice, "2", {bob.user_id: {"*": {"text": "second"}}})).ok()
        second = await bob.sync(got["next_batch"])
        assert [event["content"]["text"] for event in second["to_device"]["events"]] == ["second"]
        first_again = await bob.sync(token)
        assert [event["content"]["text"] for event in first_again["to_device"]["events"]] == ["second"]


async def test_messages_go_with_their_device(shared_homeserver: Homeserver) -> None:
    alice, bob = await shared_homeserver.register(), await shared_homeserver.register()
    laptop = await log_in(bob, "LAPTOP")
    (await send(alice, "1", {bob.user_id: {"LAPTOP": {"text": "old"}}})).ok()
    (await laptop.request("POST", "logout", {})).ok()
    assert (await follow(await log_in(bob, "LAPTOP"))).messages == []


async def test_nonsense_is_refused(shared_homeserver: Homeserver) -> None:
    alice = await shared_homeserver.register()
    device = await follow(alice)
    (await alice.request("PUT", "sendToDevice/a/1", {})).error(400, "M_MISSING_PARAM")
    for messages in ([], {alice.user_id: []}, {alice.user_id: {"*": "text"}}, {alice.user_id: {"*": {"n": 10**30}}}):
        (await send(alice, "1", messages)).error(400, "M_BAD_JSON")  # type: ignore[arg-type]
    (await send(alice, "1", {"nobody": {"*": {}}})).error(400, "M_INVALID_PARAM")
    (await send(alice, "1", {alice.user_id: {"*": {"text": "x" * 70_000}}})).error(413, "M_TOO_LARGE")
    (await send(alice, "x" * 300, {alice.user_id: {"*": {}}})).error(400, "M_INVALID_PARAM")
    (await send(alice, "%00", {alice.user_id: {"*": {}}})).error(400, "M_INVALID_PARAM")
    (await send(alice, "1", {alice.user_id: {"*": {}}}, type="%00")).error(400, "M_INVALID_PARAM")
    await device.sync()
    assert device.messages == []
    for token in ("s1_", "s_1", "s1_2_3", "s1_x", "s1_2"):
        (await alice.request("GET", "sync", since=token)).error(400, "M_INVALID_PARAM")

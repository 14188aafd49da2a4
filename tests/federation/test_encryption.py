"""End-to-end encryption between users of two servers.

https://spec.matrix.org/v1.19/server-server-api/#end-to-end-encryption
"""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import Any
from urllib.parse import quote

from tests.client import Homeserver
from tests.client_api.encryption import Device, claim, log_in, query
from tests.federation.conftest import MakeServer, name_of
from tests.federation.peer import Peer
from tests.federation.test_chat import ARRIVES_WITHIN_S, shared_room, two_users
from tests.federation.test_edus import tell, until
from tests.federation.test_hostile_rooms import Host
from tests.federation.test_sending import Receiver, join


async def test_keys_and_messages_cross_servers(make_server: MakeServer) -> None:
    alice, bob = await two_users(make_server)
    device = Device(bob)
    await device.upload(device_keys=device.keys, one_time_keys=device.one_time_keys(1))
    found = await query(alice, bob)
    assert found["device_keys"][bob.user_id][bob.device_id]["keys"] == device.keys["keys"]
    assert len(await claim(alice, bob)) == 1
    body: dict[str, Any] = {"messages": {bob.user_id: {bob.device_id: {"n": 1}}, alice.user_id: {"*": {"n": 1}}}}
    for _ in range(2):
        (await alice.request("PUT", "sendToDevice/org.example/1", body)).ok()
    events = await until(bob, lambda sync: sync.get("to_device", {}).get("events"))
    assert events == [{"type": "org.example", "sender": alice.user_id, "content": {"n": 1}}]


async def test_devices_are_told_of(make_server: MakeServer, peer: Peer) -> None:
    weft = await make_server("localhost")
    alice = await weft.register("alice")
    device = Device(alice)
    await device.upload(device_keys=device.keys)
    path = f"/_matrix/federation/v1/user/devices/{quote(alice.user_id, safe='')}"
    answer = (await peer.ask(name_of(weft), "GET", path)).ok()
    assert answer["user_id"] == alice.user_id
    assert answer["stream_id"] > 0
    assert [entry["device_id"] for entry in answer["devices"]] == [alice.device_id]
    assert answer["devices"][0]["keys"] == device.keys
    for user_id in (f"@nobody:{name_of(weft)}", f"@a:{peer.name}", "nonsense"):
        path = f"/_matrix/federation/v1/user/devices/{quote(user_id, safe='')}"
        (await peer.ask(name_of(weft), "GET", path)).error(404, "M_NOT_FOUND")


async def test_changed_devices_are_announced_to_the_other_server(make_server: MakeServer) -> None:
    alice, bob = await two_users(make_server)
    await shared_room(alice, bob)

    async def told_after(since: str) -> str:
        async with asyncio.timeout(ARRIVES_WITHIN_S):
            while bob.user_id not in (sync := await alice.sync(since, timeout=5000))["device_lists"]["changed"]:
                since = sync["next_batch"]
        next_batch: str = sync["next_batch"]
        return next_batch

    since = (await alice.sync())["next_batch"]
    device = Device(bob)
    await device.upload(device_keys=device.keys)
    since = await told_after(since)
    laptop = Device(await log_in(bob, "LAPTOP"))
    await laptop.upload(device_keys=laptop.keys)
    since = await told_after(since)
    assert (await query(alice, bob))["device_keys"][bob.user_id].keys() == {bob.device_id, "LAPTOP"}
    (await laptop.user.request("POST", "logout", {})).ok()
    await told_after(since)
    assert (await query(alice, bob))["device_keys"][bob.user_id].keys() == {bob.device_id}


async def test_announcements_are_a_chain(make_server: MakeServer, peer: Peer) -> None:
    alice = await (await make_server("localhost")).register("alice")
    receiver = Receiver(peer)
    room_id = await alice.create_room(preset="public_chat")
    await join(peer, alice, room_id)
    for device in (Device(alice), laptop := Device(await log_in(alice, "LAPTOP"))):
        await device.upload(device_keys=device.keys)
    (await laptop.user.request("POST", "logout", {})).ok()

    def updates() -> list[dict[str, Any]]:
        edus = [edu for content in receiver.taken for edu in content["edus"]]
        return [edu["content"] for edu in edus if edu["edu_type"] == "m.device_list_update"]

    await receiver.until(lambda: len(updates()) >= 3)
    assert [update["device_id"] for update in updates()] == [alice.device_id, "LAPTOP", "LAPTOP"]
    assert [update.get("deleted", False) for update in updates()] == [False, False, True]
    assert updates()[1]["keys"] == laptop.keys
    assert all(update["user_id"] == alice.user_id for update in updates())
    path = f"/_matrix/federation/v1/user/devices/{quote(alice.user_id, safe='')}"
    answer = (await peer.ask(name_of(alice.homeserver), "GET", path)).ok()
    assert answer["stream_id"] == updates()[-1]["stream_id"]
    for before, after in pairwise(updates()):
        assert after["prev_id"] == [before["stream_id"]]


async def test_servers_that_a_user_meets_look_up_their_devices(weft: Homeserver, peer: Peer) -> None:
    alice, receiver = await weft.register(), Receiver(peer)
    device = Device(alice)
    await device.upload(device_keys=device.keys)
    for _ in range(2):
        (await Host(peer, weft).let_in(alice)).ok()
    # The second room is no news: what is told next comes right after what was told at first.
    message = {"messages": {f"@host:{peer.name}": {"*": {}}}}
    (await alice.request("PUT", "sendToDevice/org.example/1", message)).ok()

    def edus() -> list[dict[str, Any]]:
        return [edu for content in receiver.taken for edu in content["edus"]]

    await receiver.until(lambda: len(edus()) >= 2)
    assert [edu["edu_type"] for edu in edus()] == ["m.device_list_update", "m.direct_to_device"]
    path = f"/_matrix/federation/v1/user/devices/{quote(alice.user_id, safe='')}"
    answer = (await peer.ask(name_of(weft), "GET", path)).ok()
    (told,) = (edu["content"] for edu in edus()[:1])
    assert (told["keys"], told["stream_id"], told["prev_id"]) == (device.keys, answer["stream_id"], [])


async def test_messages_come_once_and_from_their_servers_users_only(weft: Homeserver, peer: Peer) -> None:
    alice = await weft.register()
    eve = f"@eve:{peer.name}"

    def message(sender: str, message_id: str, **changes: Any) -> dict[str, Any]:
        content = {"sender": sender, "type": "org.example", "message_id": message_id}
        return {
            "edu_type": "m.direct_to_device",
            "content": {**content, "messages": {alice.user_id: {"*": {"id": message_id}}}, **changes},
        }

    await tell(
        peer,
        weft,
        "messages",
        message(alice.user_id, "forged"),
        message(eve, "good"),
        message(eve, "good"),
        message(eve, "a\0b"),
        message(eve, "type", type="\0"),
        message(eve, "shape", messages={alice.user_id: {"*": 1}}),
        message(eve, "others", messages={f"@bob:{peer.name}": {"*": {}}, "@\0": {"*": {}}}),
        {"edu_type": "m.device_list_update", "content": {"user_id": alice.user_id}},
        {"edu_type": "m.device_list_update", "content": {"user_id": eve, "device_id": "A", "stream_id": 1}},
        message(eve, "last"),
    )
    await tell(peer, weft, "again", message(eve, "good"))
    events = (await alice.sync())["to_device"]["events"]
    assert [(event["sender"], event["content"]["id"]) for event in events] == [(eve, "good"), (eve, "last")]

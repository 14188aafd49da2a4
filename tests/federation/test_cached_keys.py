"""Keys of other servers' users are kept while a room is shared, and follow what their servers tell.

https://spec.matrix.org/v1.19/server-server-api/#device-management
"""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from aiohttp import web

from tests.client import Homeserver, User
from tests.client_api.support import make_room
from tests.federation.peer import Peer, raw
from tests.federation.test_edus import tell
from tests.federation.test_sending import join

DEVICES = "/_matrix/federation/v1/user/devices/"
QUERY = "/_matrix/federation/v1/user/keys/query"
_numbers = itertools.count(1)


class Eve:
    """A user of a peer, her devices by ID and the number of their last change."""

    def __init__(self, peer: Peer, homeserver: Homeserver, user_id: str) -> None:
        self.peer = peer
        self.homeserver = homeserver
        self.user_id = user_id
        self.stream_id = 10
        self.devices = {"A": self.keys("A")}
        peer.handlers[DEVICES] = self.answer_devices
        peer.handlers[QUERY] = self.answer_query

    def keys(self, device_id: str, key: str = "one") -> dict[str, Any]:
        return {
            "user_id": self.user_id,
            "device_id": device_id,
            "algorithms": [],
            "keys": {f"ed25519:{device_id}": key},
        }

    async def answer_devices(self, _request: web.BaseRequest) -> web.StreamResponse:
        devices = [{"device_id": device_id, "keys": keys} for device_id, keys in self.devices.items()]
        answer = {"user_id": self.user_id, "stream_id": self.stream_id, "devices": devices}
        return web.json_response(answer)

    async def answer_query(self, _request: web.BaseRequest) -> web.StreamResponse:
        return web.json_response({"device_keys": {self.user_id: self.devices}})

    @property
    def asked(self) -> int:
        """How often her server was asked for her devices."""
        return self.peer.count(f"{DEVICES}{self.user_id}")

    async def update(self, device_id: str, *, prev_id: list[int] | None = None, **changes: Any) -> None:
        """Tells of a change; of one that follows on the last, unless `prev_id` is another."""
        prev_id = [self.stream_id] if prev_id is None else prev_id
        self.stream_id += 1
        content = {"user_id": self.user_id, "device_id": device_id, "stream_id": self.stream_id, "prev_id": prev_id}
        await self.tell("m.device_list_update", {**content, **changes})

    async def tell(self, edu_type: str, content: dict[str, Any]) -> None:
        edu = {"edu_type": edu_type, "content": content}
        await tell(self.peer, self.homeserver, f"cached{next(_numbers)}", edu)


@pytest.fixture
async def alice(weft: Homeserver) -> User:
    return await weft.register()


@pytest.fixture
async def eve(alice: User, peer: Peer) -> Eve:
    """Eve, who is in a room of Alice's."""
    room_id = await alice.create_room(preset="public_chat")
    return Eve(peer, alice.homeserver, await join(peer, alice, room_id))


async def seen(alice: User, eve: Eve, *device_ids: str) -> dict[str, str]:
    """Device ID -> key of the devices that Alice is told of."""
    answer = (await alice.request("POST", "keys/query", {"device_keys": {eve.user_id: list(device_ids)}})).ok()
    assert answer["failures"] == {}
    return {
        device_id: next(iter(keys["keys"].values())) for device_id, keys in answer["device_keys"][eve.user_id].items()
    }


async def test_keys_are_asked_for_once_and_follow_updates(alice: User, eve: Eve) -> None:
    for _ in range(2):
        assert await seen(alice, eve) == {"A": "one"}
    since = (await alice.sync())["next_batch"]
    await eve.update("B", keys=eve.keys("B"), device_display_name="Phone")
    sync = await alice.sync(since)
    assert sync["device_lists"]["changed"] == [eve.user_id]
    assert await seen(alice, eve) == {"A": "one", "B": "one"}
    assert await seen(alice, eve, "B") == {"B": "one"}
    await eve.update("A", keys=eve.keys("A", "two"))
    await eve.update("B", deleted=True)
    assert await seen(alice, eve) == {"A": "two"}
    assert eve.asked == 1


async def test_after_a_gap_they_are_asked_for_again(alice: User, eve: Eve) -> None:
    assert await seen(alice, eve) == {"A": "one"}
    eve.devices["C"] = eve.keys("C")
    eve.stream_id = 15
    await eve.update("A", prev_id=[14], keys=eve.keys("A"))
    assert await seen(alice, eve) == {"A": "one", "C": "one"}
    await eve.update("C", prev_id=[3], stream_id=4, keys=eve.keys("C"))  # which is in there
    await eve.update("D", prev_id=[3], stream_id=4, deleted=True)
    assert await seen(alice, eve) == {"A": "one", "C": "one"}
    assert eve.asked == 2
    nul = await alice.request("POST", "keys/query", {"device_keys": {f"@\0:{eve.peer.name}": []}})
    assert nul.status in (200, 400)
    await eve.tell("m.signing_key_update", {"user_id": eve.user_id})
    await seen(alice, eve)
    await eve.tell("m.device_list_update", {"user_id": eve.user_id, "device_id": 1})
    await seen(alice, eve)
    assert eve.asked == 4


async def test_a_server_that_is_set_up_anew_counts_anew(alice: User, eve: Eve) -> None:
    assert await seen(alice, eve) == {"A": "one"}
    eve.devices = {"B": eve.keys("B")}
    eve.stream_id = 0
    await eve.update("B", prev_id=[], keys=eve.keys("B"))
    assert await seen(alice, eve) == {"B": "one"}
    await eve.update("B", keys=eve.keys("B", "two"))
    assert await seen(alice, eve) == {"B": "two"}
    assert eve.asked == 2


async def test_a_server_need_not_count(alice: User, eve: Eve) -> None:
    assert await seen(alice, eve) == {"A": "one"}
    for key in ("two", "three"):
        eve.devices = {"A": eve.keys("A", key)}
        placeholder = {"device_id": "placeholder", "device_display_name": "Placeholder", "stream_id": 1, "prev_id": []}
        await eve.tell("m.device_list_update", {"user_id": eve.user_id, **placeholder})
        assert await seen(alice, eve) == {"A": key}


async def test_what_does_not_tell_its_number_is_asked_for_again_after_a_change(alice: User, eve: Eve) -> None:
    answer_devices = eve.peer.handlers.pop(DEVICES)
    for _ in range(2):
        assert await seen(alice, eve) == {"A": "one"}
    assert eve.peer.count(QUERY) == 1
    eve.devices["B"] = eve.keys("B")
    await eve.update("B", keys=eve.keys("B"))
    eve.peer.handlers[DEVICES] = answer_devices
    assert await seen(alice, eve) == {"A": "one", "B": "one"}
    await eve.update("B", deleted=True)
    assert await seen(alice, eve) == {"A": "one"}
    assert (eve.peer.count(QUERY), eve.asked) == (1, 2)


async def test_a_change_while_they_are_fetched_is_not_lost(alice: User, eve: Eve) -> None:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        response = await eve.answer_devices(request)
        if eve.asked == 1:
            eve.devices["B"] = eve.keys("B")
            await eve.update("B", keys=eve.devices["B"])
        return response

    eve.peer.handlers[DEVICES] = answer
    assert await seen(alice, eve) == {"A": "one"}
    assert await seen(alice, eve) == {"A": "one", "B": "one"}
    assert await seen(alice, eve) == {"A": "one", "B": "one"}
    assert eve.asked == 2


async def test_they_are_given_while_the_server_is_down(alice: User, eve: Eve) -> None:
    assert await seen(alice, eve) == {"A": "one"}
    eve.peer.handlers[DEVICES] = eve.peer.handlers[QUERY] = raw(b"", 503)
    assert await seen(alice, eve) == {"A": "one"}
    await eve.update("A", prev_id=[], keys=eve.keys("A", "two"))
    assert await seen(alice, eve) == {"A": "one"}
    stranger = f"@stranger:{eve.peer.name}"
    body = {"device_keys": {eve.user_id: [], stranger: []}}
    answer = (await alice.request("POST", "keys/query", body)).ok()
    assert list(answer["device_keys"]) == [eve.user_id]
    assert list(answer["failures"]) == [eve.peer.name]


async def test_they_count_while_a_room_is_shared_only(alice: User, eve: Eve) -> None:
    assert await seen(alice, eve) == {"A": "one"}
    (room_id,) = (await alice.request("GET", "joined_rooms")).ok()["joined_rooms"]
    (await alice.in_room("POST", room_id, "leave", {})).ok()
    eve.devices = {"B": eve.keys("B")}
    for _ in range(2):  # which is asked for live each time
        assert await seen(alice, eve) == {"B": "one"}
    assert (eve.asked, eve.peer.count(QUERY)) == (1, 2)
    room_id = await make_room(creator=await alice.homeserver.register())
    await join(eve.peer, alice, room_id)
    eve.devices = {"C": eve.keys("C")}
    for _ in range(2):
        assert await seen(alice, eve) == {"C": "one"}
    assert eve.asked == 2
    assert alice.homeserver.running is not None
    await alice.homeserver.running.server.federation.cached_keys.clean()
    assert await seen(alice, eve) == {"C": "one"}
    assert eve.asked == 2

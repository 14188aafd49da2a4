"""Transactions to a server that fails, stalls and comes back; to one that was away when this one restarted.

https://spec.matrix.org/v1.19/server-server-api/#transactions
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import orjson
import pytest
from aiohttp import web

from benchmarks.authority import Authority
from config.schema import Listener
from matrix.hashes import compute_event_id
from matrix.room_versions import ROOM_VERSIONS
from matrix.signatures import hash_and_sign_event, sign_event
from tests.client import Homeserver, User
from tests.conftest import make_config, started
from tests.databases import Clones
from tests.federation.conftest import federation_options, name_of
from tests.federation.peer import Peer
from tests.ports import free_port

SEND = "/_matrix/federation/v1/send/"
VERSION = ROOM_VERSIONS["12"]
WITHIN_S = 20

Restart = Callable[[], AbstractAsyncContextManager[Homeserver]]


class Receiver:
    """What a peer does with transactions: gives each of `statuses` in turn, then takes what comes.

    `received` are (transaction ID, content), and `taken` those that were answered with 200.
    """

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.received: list[tuple[str, dict[str, Any]]] = []
        self.taken: list[dict[str, Any]] = []
        self.statuses: list[int] = []
        self.open = asyncio.Event()
        self.open.set()
        self.running = 0
        self.most_running = 0
        self._changed = asyncio.Condition()
        peer.handlers[SEND] = self._receive

    async def _receive(self, request: web.BaseRequest) -> web.StreamResponse:
        content = orjson.loads(await request.read())
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        status = self.statuses.pop(0) if self.statuses else 200
        self.received.append((request.path.removeprefix(SEND), content))
        await self._notify()
        try:
            await self.open.wait()
        finally:
            self.running -= 1
        if status == 200:
            self.taken.append(content)
        await self._notify()
        return web.json_response({"pdus": {}} if status == 200 else {"errcode": "M_UNKNOWN"}, status=status)

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Waits for requests until something is so."""
        async with asyncio.timeout(WITHIN_S), self._changed:
            await self._changed.wait_for(condition)

    @property
    def bodies(self) -> list[str]:
        """The messages of all events that were taken, in order."""
        pdus = [pdu for content in self.taken for pdu in content["pdus"]]
        return [pdu["content"]["body"] for pdu in pdus if pdu["type"] == "m.room.message"]


@pytest.fixture
async def receiver(peer: Peer) -> Receiver:
    return Receiver(peer)


@pytest.fixture
async def restart(
    clones: Clones, authority: Authority, certificate: tuple[Path, Path], tmp_path: Path
) -> AsyncIterator[Restart]:
    """Starts one and the same server, as often as a test likes."""
    port = free_port()
    config = make_config(tmp_path)
    public = Listener(port=port, tls_certificate=certificate[0], tls_key=certificate[1])
    config = replace(
        config,
        server_name=f"localhost:{port}",
        federation=federation_options(authority),
        listeners=(*config.listeners, public),
    )
    async with clones.one() as url:

        @asynccontextmanager
        async def start() -> AsyncIterator[Homeserver]:
            async with started(config, url) as homeserver:
                yield homeserver

        yield start


async def join(peer: Peer, user: User, room_id: str) -> str:
    """Lets a user of the peer into a room; their ID."""
    server, eve = name_of(user.homeserver), f"@eve:{peer.name}"
    path = f"{quote(room_id, safe='')}/{quote(eve, safe='')}"
    made = (await peer.ask(server, "GET", f"/_matrix/federation/v1/make_join/{path}?ver=12")).ok()
    event = hash_and_sign_event({**made["event"], "origin_server_ts": 1}, VERSION, peer.name, peer.key)
    path = f"{quote(room_id, safe='')}/{quote(compute_event_id(event, VERSION), safe='')}"
    (await peer.ask(server, "PUT", f"/_matrix/federation/v2/send_join/{path}", event)).ok()
    return eve


async def send_all(user: User, room_id: str, first: int, last: int) -> list[str]:
    bodies = [str(number) for number in range(first, last)]
    for body in bodies:
        await user.send(room_id, body)
    return bodies


async def test_one_transaction_at_a_time_in_order(weft: Homeserver, receiver: Receiver) -> None:
    alice = await weft.register()
    room_id = await alice.create_room(preset="public_chat")
    await join(receiver.peer, alice, room_id)
    receiver.open.clear()
    bodies = await send_all(alice, room_id, 0, 60)
    await receiver.until(lambda: receiver.running == 1)
    receiver.open.set()
    await receiver.until(lambda: len(receiver.bodies) >= len(bodies))
    assert receiver.bodies == bodies
    assert receiver.most_running == 1
    assert max(len(content["pdus"]) for content in receiver.taken) <= 50
    assert len({transaction_id for transaction_id, _ in receiver.received}) == len(receiver.received)


async def test_a_transaction_is_repeated_until_it_is_answered(weft: Homeserver, receiver: Receiver) -> None:
    alice = await weft.register()
    room_id = await alice.create_room(preset="public_chat")
    await join(receiver.peer, alice, room_id)
    receiver.statuses = [500, 429, 403, 502]
    bodies = await send_all(alice, room_id, 0, 3)
    await receiver.until(lambda: len(receiver.bodies) == len(bodies))
    assert receiver.bodies == bodies
    first = receiver.received[:5]
    assert len({transaction_id for transaction_id, _ in first}) == 1
    assert all(content == first[0][1] for _, content in first)


async def test_who_refuses_what_it_is_sent_is_tried_again_when_it_speaks(weft: Homeserver, receiver: Receiver) -> None:
    alice, peer = await weft.register(), receiver.peer
    room_id = await alice.create_room(preset="public_chat")
    await join(peer, alice, room_id)
    receiver.statuses = [403, 500] * 4  # after which, without a word, it would be half a minute
    await alice.send(room_id, "hello")
    for count in range(1, 9):
        await receiver.until(lambda count=count: len(receiver.received) >= count)  # type: ignore[misc]
        (await peer.ask(name_of(weft), "GET", "/_matrix/federation/v1/publicRooms")).ok()
    await receiver.until(lambda: receiver.bodies == ["hello"])


async def test_what_a_server_refuses_does_not_block_the_rest(weft: Homeserver, receiver: Receiver) -> None:
    alice = await weft.register()
    room_id = await alice.create_room(preset="public_chat")
    await join(receiver.peer, alice, room_id)
    receiver.statuses = [400] * 5
    await alice.send(room_id, "poison")
    await alice.send(room_id, "fine")
    await receiver.until(lambda: "fine" in receiver.bodies)
    assert receiver.bodies == ["fine"]


async def test_a_newer_edu_takes_the_place_of_an_older_one(weft: Homeserver, receiver: Receiver) -> None:
    alice = await weft.register()
    room_id = await alice.create_room(preset="public_chat")
    await join(receiver.peer, alice, room_id)
    receiver.open.clear()
    await alice.send(room_id, "first")
    await receiver.until(lambda: receiver.running == 1)
    for typing in (True, False, True, False):
        path = f"typing/{quote(alice.user_id)}"
        (await alice.in_room("PUT", room_id, path, {"typing": typing, "timeout": 30000})).ok()
    receiver.open.set()

    def typings() -> list[bool]:
        edus = [edu for content in receiver.taken for edu in content["edus"] if edu["edu_type"] == "m.typing"]
        return [edu["content"]["typing"] for edu in edus]

    await receiver.until(lambda: bool(typings()))
    assert typings() == [False]


async def test_what_was_not_answered_comes_again_after_a_restart(receiver: Receiver, restart: Restart) -> None:
    async with restart() as weft:
        alice = await weft.register()
        room_id = await alice.create_room(preset="public_chat")
        eve = await join(receiver.peer, alice, room_id)
        receiver.open.clear()
        bodies = await send_all(alice, room_id, 0, 70)
        await receiver.until(lambda: receiver.running == 1)
        message = {"messages": {eve: {"*": {"secret": 1}}}}
        (await alice.request("PUT", "sendToDevice/org.example/1", message)).ok()
        (await alice.in_room("POST", room_id, "kick", {"user_id": eve})).ok()
        assert weft.running is not None
        weft.running.server.federation.sender.abandon()  # between sending and the answer
    receiver.taken.clear()
    receiver.open.set()
    await receiver.until(lambda: receiver.running == 0)
    receiver.taken.clear()
    async with restart():

        def kicked() -> bool:
            pdus = [pdu for content in receiver.taken for pdu in content["pdus"]]
            return any(pdu["content"].get("membership") == "leave" for pdu in pdus)

        def edus() -> list[dict[str, Any]]:
            return [edu for content in receiver.taken for edu in content["edus"]]

        await receiver.until(lambda: kicked() and bool(edus()))
    assert [edu["content"]["messages"] for edu in edus()] == [message["messages"]]
    assert set(receiver.bodies) <= set(bodies)  # the room is the other server's business no more


async def test_whose_invitation_is_taken_back_is_told(weft: Homeserver, receiver: Receiver) -> None:
    alice, eve = await weft.register(), f"@eve:{receiver.peer.name}"
    room_id = await alice.create_room()

    async def sign(request: web.BaseRequest) -> web.StreamResponse:
        event = orjson.loads(await request.read())["event"]
        return web.json_response({"event": sign_event(event, VERSION, receiver.peer.name, receiver.peer.key)})

    receiver.peer.handlers[f"/_matrix/federation/v2/invite/{room_id}/"] = sign
    (await alice.in_room("POST", room_id, "invite", {"user_id": eve})).ok()
    await alice.send(room_id, "which nobody there is to hear")
    (await alice.in_room("POST", room_id, "kick", {"user_id": eve})).ok()
    await receiver.until(lambda: bool(receiver.taken))
    (leave,) = receiver.taken[0]["pdus"]
    assert (leave["state_key"], leave["content"]["membership"]) == (eve, "leave")


async def test_events_are_caught_up_with_after_a_restart(receiver: Receiver, restart: Restart) -> None:
    async with restart() as weft:
        alice = await weft.register()
        room_id = await alice.create_room(preset="public_chat")
        await join(receiver.peer, alice, room_id)
        await alice.send(room_id, "before")
        await receiver.until(lambda: receiver.bodies == ["before"])
        receiver.open.clear()
        bodies = await send_all(alice, room_id, 0, 70)
        await receiver.until(lambda: receiver.running == 1)
    receiver.open.set()
    await receiver.until(lambda: receiver.running == 0)
    receiver.taken.clear()
    async with restart():
        await receiver.until(lambda: len(receiver.bodies) >= len(bodies))
        assert receiver.bodies == bodies
    asked = len(receiver.received)
    async with restart() as weft:
        alice.homeserver = weft
        await alice.send(room_id, "after")
        await receiver.until(lambda: "after" in receiver.bodies)
    assert len(receiver.received) == asked + 1, "who lacks nothing is left alone at the start"


async def test_transactions_that_are_too_large_are_refused(weft: Homeserver, peer: Peer) -> None:
    for changes in ({"pdus": [{}] * 51}, {"edus": [{}] * 101}):
        content = {"origin": peer.name, "origin_server_ts": 1, "pdus": [], **changes}
        (await peer.ask(name_of(weft), "PUT", f"{SEND}large", content)).error(400, "M_INVALID_PARAM")
    content = {"origin": peer.name, "origin_server_ts": 1, "pdus": [{}] * 50, "edus": [{}] * 100}
    (await peer.ask(name_of(weft), "PUT", f"{SEND}large", content)).ok()
    (await peer.ask(name_of(weft), "PUT", f"{SEND}a%00b", content)).error(400, "M_INVALID_PARAM")

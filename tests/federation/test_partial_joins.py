"""Rooms that are joined before it is known who is in them (docs/adr/0016).

https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv2send_joinroomideventid
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiohttp import web

from benchmarks.authority import Authority
from config.schema import Listener
from matrix.pdu import Pdu, build_pdu, parse_pdu
from matrix.signatures import SigningKey
from tests.client import Homeserver, User
from tests.client_api.support import encode, joined, state_event, state_of
from tests.conftest import make_config, started
from tests.databases import Clones
from tests.federation.conftest import federation_options
from tests.federation.peer import Peer, json, raw, running_peer
from tests.federation.test_hostile_rooms import VERSION, Host
from tests.ports import free_port

GHOSTS = 600
"""More than are checked and told at a time."""
MEMBER = "m.room.member"
_numbers = itertools.count(1)


class LargeRoom(Host):
    """A room of many, who are left out of what is answered to a join; `gate` lets the whole state through."""

    def __init__(self, peer: Peer, homeserver: Homeserver, ghosts: int = 3, banned: str | None = None) -> None:
        super().__init__(peer, homeserver)
        self.gate = asyncio.Event()
        self.received: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.joined = asyncio.Event()
        self.servers = [peer.name]
        self.ghosts = [self.ghost(number) for number in range(ghosts)]
        self.members = list(self.ghosts)
        if banned is not None:
            create, member = self.state[:2]
            self.members.append(self.event(MEMBER, {"membership": "ban"}, [], [create, member], state_key=banned))
        peer.handlers[f"/_matrix/federation/v1/state/{self.room_id}"] = self._state
        peer.handlers[f"/_matrix/federation/v1/state_ids/{self.room_id}"] = self._state_ids
        peer.handlers["/_matrix/federation/v1/send/"] = self._receive

    def ghost(self, number: int) -> Pdu:
        """The join of somebody."""
        create, _, rules = self.state[:3]
        user_id = f"@ghost{number}:{self.peer.name}"
        content = {"membership": "join", "displayname": f"Ghost {number}"}
        return self.by(user_id, MEMBER, content, rules, [create, rules])

    def by(self, user_id: str, type: str, content: Any, before: Pdu, auth: list[Pdu]) -> Pdu:
        """An event of a member; a state event of their own where it is about membership."""
        return build_pdu(
            room_version=VERSION,
            room_id=self.room_id,
            type=type,
            sender=user_id,
            state_key=user_id if type == MEMBER else None,
            content=content,
            prev_events=[before.reference],
            auth_events=[pdu.reference for pdu in auth],
            depth=before.depth + 1,
            origin_server_ts=int(time.time() * 1000),
            server_name=self.peer.name,
            signing_key=self.peer.key,
        )

    async def _send_join(self, request: web.BaseRequest) -> web.StreamResponse:
        assert dict(request.query) == {"omit_members": "true"}
        self.join = parse_pdu(await request.json(), VERSION)
        state = [pdu.json for pdu in self.state]
        answer = {"event": self.join.json, "state": state, "auth_chain": state, "origin": self.peer.name}
        self.joined.set()
        return web.json_response({**answer, "members_omitted": True, "servers_in_room": self.servers})

    def whole(self, **changes: Any) -> dict[str, Any]:
        """The state before the join, and what it rests on."""
        pdus = [pdu.json for pdu in (*self.state, *self.members)]
        return {"pdus": pdus, "auth_chain": [pdu.json for pdu in self.state], **changes}

    async def _state(self, request: web.BaseRequest) -> web.StreamResponse:
        assert request.query["event_id"] == self.join.event_id
        await self.gate.wait()
        return web.json_response(self.whole())

    async def _state_ids(self, _request: web.BaseRequest) -> web.StreamResponse:
        whole = self.whole()
        ids = [parse_pdu(pdu, VERSION).event_id for pdu in (*whole["pdus"], self.join.json)]
        chain = [parse_pdu(pdu, VERSION).event_id for pdu in whole["auth_chain"]]
        return web.json_response({"pdu_ids": ids, "auth_chain_ids": chain})

    async def _receive(self, request: web.BaseRequest) -> web.StreamResponse:
        for pdu in (await request.json())["pdus"]:
            self.received.put_nowait(pdu)
        return web.json_response({"pdus": {}})

    async def say(self, ghost: Pdu, before: Pdu, body: str) -> tuple[Pdu, Any]:
        """A message of a member, sent to the server; with what that answers."""
        content = {"msgtype": "m.text", "body": body}
        event = self.by(ghost.sender, "m.room.message", content, before, [self.state[0], ghost])
        transaction = {"origin": self.peer.name, "origin_server_ts": 0, "pdus": [event.json]}
        path = f"/_matrix/federation/v1/send/partial{next(_numbers)}"
        return event, (await self.peer.ask(self.server_name, "PUT", path, transaction)).ok()["pdus"][event.event_id]


async def sync_until(user: User, since: str, room_id: str, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Syncs until a room's part is as wanted; returns that answer."""
    async with asyncio.timeout(10):
        while True:
            answer = await user.sync(since, timeout=5_000)
            if wanted(joined(answer, room_id)):
                return answer
            since = answer["next_batch"]


def has_members(count: int) -> Callable[[dict[str, Any]], bool]:
    """Whether a part of a sync tells of so many members."""
    return lambda part: bool(part) and sum(key[0] == MEMBER for key in state_of(part)) >= count


def says(body: str) -> Callable[[dict[str, Any]], bool]:
    """Whether a part of a sync has a message."""
    return lambda part: bool(part) and body in [e["content"].get("body") for e in part["timeline"]["events"]]


@pytest.fixture
async def alice(weft: Homeserver) -> User:
    """Who joins."""
    return await weft.register()


async def test_who_joins_can_send_before_the_members_are_known(alice: User, peer: Peer) -> None:
    room = LargeRoom(peer, alice.homeserver, GHOSTS)
    since = (await alice.sync())["next_batch"]
    (await room.let_in(alice)).ok()
    first = await alice.sync(since)
    assert {key[0] for key in state_of(joined(first, room.room_id))} >= {"m.room.create", "m.room.join_rules"}
    event_id = await alice.send(room.room_id, "first!")
    sent = await asyncio.wait_for(room.received.get(), 5)
    assert (sent["content"]["body"], sent["prev_events"]) == ("first!", [room.join.event_id])
    # What others say waits, and nobody waits for them.
    mine = parse_pdu(sent, VERSION)
    said, answer = await room.say(room.ghosts[0], mine, "boo")
    assert answer == {}
    path = f"event/{encode(said.event_id)}"
    assert (await alice.in_room("GET", room.room_id, path)).status == 404
    assert len((await alice.in_room("GET", room.room_id, "joined_members")).ok()["joined"]) == 2
    page = (await alice.in_room("GET", room.room_id, "messages", dir="b", limit=50)).ok()
    assert page["end"]
    assert len(page["chunk"]) == 2
    path = f"/_matrix/federation/v1/state_ids/{encode(room.room_id)}?event_id={encode(event_id)}"
    assert (await peer.ask(room.server_name, "GET", path)).status == 404

    room.gate.set()
    whole = await sync_until(alice, first["next_batch"], room.room_id, has_members(GHOSTS + 1))
    assert {ghost.sender for ghost in room.ghosts} <= set(whole["device_lists"]["changed"])
    assert joined(whole, room.room_id)["summary"]["m.joined_member_count"] == GHOSTS + 2
    if not says("boo")(joined(whole, room.room_id)):
        await sync_until(alice, whole["next_batch"], room.room_id, says("boo"))
    assert len((await alice.in_room("GET", room.room_id, "joined_members")).ok()["joined"]) == GHOSTS + 2
    # They were in the room at what happened meanwhile, too.
    ids = (await peer.ask(room.server_name, "GET", path)).ok()
    assert {ghost.event_id for ghost in room.ghosts} <= set(ids["pdu_ids"])
    await alice.send(room.room_id, "welcome")
    assert (await asyncio.wait_for(room.received.get(), 5))["prev_events"] == [said.event_id]


@pytest.mark.parametrize("asks", [True, False])
async def test_who_loads_members_lazily_is_told_what_they_asked_for(alice: User, peer: Peer, asks: bool) -> None:
    room = LargeRoom(peer, alice.homeserver)
    lazy = '{"room":{"state":{"lazy_load_members":true}}}'
    room.state.append(room.event("m.room.name", {"name": "Large"}, [], room.state[:2]))
    (await room.let_in(alice)).ok()
    since = (await alice.sync(filter=lazy))["next_batch"]
    if asks:
        (await alice.in_room("GET", room.room_id, "members")).ok()
    room.gate.set()
    async with asyncio.timeout(10):
        while "summary" not in (part := joined(await alice.sync(since, timeout=5000, filter=lazy), room.room_id)):
            pass
    assert part["summary"]["m.joined_member_count"] == 5
    told = {key[1] for key in state_of(part)}
    assert (told >= {ghost.sender for ghost in room.ghosts}) is asks


async def test_who_is_banned_does_not_slip_in_meanwhile(alice: User, peer: Peer) -> None:
    carol = await alice.homeserver.register()
    room = LargeRoom(peer, alice.homeserver, banned=carol.user_id)
    (await room.let_in(alice)).ok()
    joining = asyncio.create_task(room.let_in(carol))
    kicking = asyncio.create_task(alice.in_room("POST", room.room_id, "kick", {"user_id": room.ghosts[0].sender}))
    room.gate.set()
    assert (await joining).status == 403
    assert (await kicking).status == 403
    assert (await state_event(alice, room.room_id, MEMBER, carol.user_id)).ok()["membership"] == "ban"


def _forged(room: LargeRoom) -> dict[str, Any]:
    """A state in which somebody is said to be in the room without having signed that."""
    other = SigningKey.from_seed("peer", b"q" * 32)
    own, room.peer.key = room.peer.key, other
    try:
        forged = room.ghost(66)
    finally:
        room.peer.key = own
    return room.whole(pdus=[*room.whole()["pdus"], forged.json, {"type": "nonsense"}])


HOSTILE: dict[str, Callable[[LargeRoom], Any]] = {
    "no create": lambda room: json(room.whole(pdus=room.whole()["pdus"][1:])),
    "no lists": lambda room: json({"pdus": 5}),
    "an error": lambda room: json({"errcode": "M_UNKNOWN", "error": "no"}, 500),
    "no JSON": lambda room: raw(orjson.dumps(room.whole())[:-20]),
    "too large": lambda room: json(room.whole(pdus=[{"x": "y" * 300_000}])),
    "no events": lambda room: json(room.whole(pdus=[1, 2])),
}


@pytest.mark.parametrize("kind", HOSTILE)
async def test_another_server_is_asked_where_one_tells_no_state(
    alice: User, peer: Peer, authority: Authority, kind: str
) -> None:
    async with running_peer(authority, "localhost") as other:
        room = LargeRoom(peer, alice.homeserver)
        room.servers.append(other.name)
        path = f"/_matrix/federation/v1/state/{room.room_id}"
        peer.handlers[path] = HOSTILE[kind](room)
        other.handlers[path] = json(_forged(room))
        since = (await alice.sync())["next_batch"]
        (await room.let_in(alice)).ok()
        await sync_until(alice, since, room.room_id, has_members(len(room.ghosts)))
        members = (await alice.in_room("GET", room.room_id, "joined_members")).ok()["joined"]
        assert members.keys() == {alice.user_id, room.user_id, *(ghost.sender for ghost in room.ghosts)}


@pytest.fixture
async def restart(
    clones: Clones,
    authority: Authority,
    certificate: tuple[Path, Path],
    tmp_path: Path,
) -> AsyncIterator[Callable[[], Awaitable[Homeserver]]]:
    """Starts a server, and starts it again on its data."""
    port = free_port()
    public = Listener(
        port=port, tls_certificate=certificate[0], tls_key=certificate[1], resources=frozenset({"federation"})
    )
    config = make_config(tmp_path)
    config = replace(
        config,
        server_name=f"localhost:{port}",
        federation=federation_options(authority),
        listeners=(*config.listeners, public),
    )
    async with clones.one() as url:
        running: list[Any] = []

        async def start() -> Homeserver:
            for one in running:
                await one.__aexit__(None, None, None)
            running[:] = [started(config, url)]
            homeserver: Homeserver = await running[0].__aenter__()
            return homeserver

        yield start
        for one in running:
            await one.__aexit__(None, None, None)


async def test_a_restart_in_the_middle_loses_nothing(restart: Callable[[], Awaitable[Homeserver]], peer: Peer) -> None:
    homeserver = await restart()
    alice = await homeserver.register("alice")
    room = LargeRoom(peer, homeserver)
    room.servers.append("null")  # which is a name as good as any
    (await room.let_in(alice)).ok()
    await alice.send(room.room_id, "first!")
    mine = parse_pdu(await asyncio.wait_for(room.received.get(), 5), VERSION)
    since = (await alice.sync())["next_batch"]
    _, answer = await room.say(room.ghosts[0], mine, "boo")
    assert answer == {}
    alice.homeserver = await restart()
    await alice.send(room.room_id, "still here")  # and goes where the room is said to be
    assert (await asyncio.wait_for(room.received.get(), 5))["content"]["body"] == "still here"
    room.gate.set()
    answer = await sync_until(alice, since, room.room_id, has_members(3))
    if not says("boo")(joined(answer, room.room_id)):
        await sync_until(alice, answer["next_batch"], room.room_id, says("boo"))
    alice.homeserver = await restart()
    # Who was away while the members came to be known is told them still.
    assert has_members(len(room.ghosts) + 1)(joined(await alice.sync(since), room.room_id))


@pytest.mark.parametrize("restarts", [False, True])
async def test_states_of_a_stay_without_members_are_not_believed(
    restart: Callable[[], Awaitable[Homeserver]], peer: Peer, restarts: bool
) -> None:
    homeserver = await restart()
    alice = await homeserver.register("alice")
    room = LargeRoom(peer, homeserver)
    (await room.let_in(alice)).ok()
    event_id = await alice.send(room.room_id, "first!")
    mine = parse_pdu(await asyncio.wait_for(room.received.get(), 5), VERSION)
    (await alice.in_room("POST", room.room_id, "leave", {})).ok()
    if restarts:
        alice.homeserver = await restart()
    (await room.let_in(alice)).ok()
    room.gate.set()
    since = (await alice.sync())["next_batch"]
    await sync_until(alice, since, room.room_id, has_members(3))
    if restarts:
        alice.homeserver = await restart()
    # By the state after what alice said in her first stay nobody else is there.
    said, answer = await room.say(room.ghosts[0], mine, "boo")
    assert answer == {}
    shown = await alice.in_room("GET", room.room_id, f"event/{encode(said.event_id)}")
    assert shown.ok()["content"]["body"] == "boo"
    ids = f"/_matrix/federation/v1/state_ids/{encode(room.room_id)}?event_id="
    (await peer.ask(room.server_name, "GET", ids + encode(event_id))).error(404, "M_NOT_FOUND")
    told = (await peer.ask(room.server_name, "GET", ids + encode(said.event_id))).ok()["pdu_ids"]
    assert {ghost.event_id for ghost in room.ghosts} <= set(told)


async def test_a_server_that_gives_what_is_missing_slowly_holds_up_no_other(
    alice: User, peer: Peer, authority: Authority
) -> None:
    async with running_peer(authority, "localhost") as other:
        room = LargeRoom(peer, alice.homeserver)
        room.peer = other
        slow = room.ghost(66)
        room.peer = peer
        room.members.append(slow)
        answered = asyncio.Event()
        lost: list[Any] = []

        async def missing(_request: web.BaseRequest) -> web.StreamResponse:
            await answered.wait()
            return web.json_response({"events": lost})

        other.handlers[f"/_matrix/federation/v1/get_missing_events/{room.room_id}"] = missing
        since = (await alice.sync())["next_batch"]
        (await room.let_in(alice)).ok()
        room.peer = other
        before = room.by(slow.sender, "m.room.message", {"body": "lost"}, room.join, [room.state[0], slow])
        lost.append(before.json)
        _, answer = await room.say(slow, before, "late")
        room.peer = peer
        assert answer == {}
        room.gate.set()
        answer = await sync_until(alice, since, room.room_id, has_members(len(room.ghosts)))
        said, answer = await asyncio.wait_for(room.say(room.ghosts[0], room.join, "boo"), 5)
        assert answer == {}
        assert (await alice.in_room("GET", room.room_id, f"event/{encode(said.event_id)}")).status == 200
        answered.set()
        await sync_until(alice, since, room.room_id, says("late"))
        shown = await alice.in_room("GET", room.room_id, f"event/{encode(before.event_id)}")
        assert shown.ok()["content"]["body"] == "lost"

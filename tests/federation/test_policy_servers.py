"""Rooms whose events a policy server signs: https://spec.matrix.org/v1.19/server-server-api/#policy-servers"""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import quote

import orjson
import pytest
from aiohttp import web

from matrix.pdu import Pdu
from matrix.policy_servers import POLICY_KEY_ID
from matrix.room_versions import ROOM_VERSIONS, RoomVersion
from matrix.signatures import SigningKey, sign_event, verify_event_signature
from tests.client import Homeserver, User
from tests.client_api.support import encode, state_event
from tests.federation.conftest import name_of
from tests.federation.peer import Peer, json, raw
from tests.federation.test_hostile_events import Intruder, is_shown

SIGN = "/_matrix/policy/v1/sign"
KEY = SigningKey("policy_server", b"l" * 32)
OTHER_KEY = SigningKey("policy_server", b"m" * 32)
SPAM = {"errcode": "M_FORBIDDEN", "error": "This is spam"}


class PolicyServer:
    """A peer that signs all but what says "spam". It is in a room of Alice's, which names it."""

    def __init__(self, peer: Peer, version: RoomVersion) -> None:
        self.peer = peer
        self.version = version
        self.key = KEY
        self.asked: list[dict[str, Any]] = []
        peer.handlers[SIGN] = self.sign

    async def sign(self, request: web.BaseRequest) -> web.StreamResponse:
        event = orjson.loads(await request.read())
        self.asked.append(event)
        if "spam" in str(event["content"]):
            return web.json_response(SPAM, status=400)
        return web.json_response(self.signatures(event))

    def signatures(self, event: dict[str, Any]) -> dict[str, Any]:
        signed = sign_event({**event, "signatures": {}}, self.version, self.peer.name, self.key)
        signatures: dict[str, Any] = signed["signatures"]
        return signatures

    def signed(self, pdu: Pdu) -> dict[str, Any]:
        """An event with its signature, beside that of the sender's server, which is the same here."""
        own = {**pdu.json["signatures"][self.peer.name], **self.signatures(pdu.json)[self.peer.name]}
        return {**pdu.json, "signatures": {**pdu.json["signatures"], self.peer.name: own}}


def policy(peer: Peer) -> dict[str, Any]:
    """The content of m.room.policy."""
    return {"via": peer.name, "public_keys": {"ed25519": KEY.public_key_base64}}


@pytest.fixture
async def alice(weft: Homeserver) -> User:
    """Who has the rooms."""
    return await weft.register()


async def guard(alice: User, peer: Peer, version: str = "12") -> tuple[Intruder, PolicyServer]:
    """A room of Alice's with a policy server."""
    room_id = await alice.create_room(preset="public_chat", room_version=version)
    intruder = await Intruder.enter(peer, alice.homeserver, room_id)
    server = PolicyServer(peer, ROOM_VERSIONS[version])
    await alice.set_state(room_id, "m.room.policy", policy(peer))
    assert server.asked == []
    return intruder, server


async def test_events_are_sent_with_its_signature(alice: User, peer: Peer) -> None:
    intruder, server = await guard(alice, peer)
    event_id = await alice.send(intruder.room_id, "hello", txn_id="one")
    assert await alice.send(intruder.room_id, "hello", txn_id="one") == event_id
    await alice.set_state(intruder.room_id, "m.room.topic", {"topic": "talk"})
    ids = await asyncio.gather(*(alice.send(intruder.room_id, str(number)) for number in range(3)))
    assert [event["type"] for event in server.asked] == ["m.room.message", "m.room.topic", *["m.room.message"] * 3]
    page = (await alice.in_room("GET", intruder.room_id, "messages", dir="b", limit=4)).ok()
    assert {event["event_id"] for event in page["chunk"][:3]} == set(ids)
    path = f"/_matrix/federation/v1/event/{quote(event_id, safe='')}"
    (event,) = (await peer.ask(name_of(alice.homeserver), "GET", path)).ok()["pdus"]
    assert verify_event_signature(event, intruder.version, peer.name, POLICY_KEY_ID, KEY.public_key)
    assert set(event["signatures"]) == {peer.name, name_of(alice.homeserver)}
    (redaction_id,) = (await alice.in_room("PUT", intruder.room_id, f"redact/{encode(event_id)}/r", {})).ok().values()
    redacted = (await alice.in_room("GET", intruder.room_id, f"event/{encode(event_id)}")).ok()
    assert (redacted["content"], redacted["unsigned"]["redacted_because"]["event_id"]) == ({}, redaction_id)


async def test_what_it_refuses_is_not_sent(alice: User, peer: Peer) -> None:
    intruder, server = await guard(alice, peer)
    before = (await alice.sync())["next_batch"]
    path = "send/m.room.message/again"
    refused = await alice.in_room("PUT", intruder.room_id, path, {"body": "spam", "msgtype": "m.text"})
    assert refused.error(403, "M_FORBIDDEN")["error"] == "This is spam"
    server.key = OTHER_KEY  # which is not the one that the room has named
    (await alice.in_room("PUT", intruder.room_id, path, {"body": "fine"})).error(403, "M_FORBIDDEN")
    for answer in (json({}), json([]), json({peer.name: {POLICY_KEY_ID: 1}})):
        peer.handlers[SIGN] = answer
        (await alice.in_room("PUT", intruder.room_id, path, {"body": "fine"})).error(403, "M_FORBIDDEN")
    del peer.handlers[SIGN]
    (await alice.in_room("PUT", intruder.room_id, path, {"body": "fine"})).error(400, "M_UNRECOGNIZED")
    peer.handlers[SIGN] = raw(b"", 502)
    for _ in range(2):  # the second time it is not even asked
        (await alice.in_room("PUT", intruder.room_id, path, {"body": "fine"})).error(502, "M_UNKNOWN")
    assert intruder.room_id not in (await alice.sync(before))["rooms"].get("join", {})
    assert peer.count(SIGN) == 7
    await alice.set_state(intruder.room_id, "m.room.policy", {})  # rooms can always get rid of it
    await alice.send(intruder.room_id, "spam")
    assert peer.count(SIGN) == 7


async def test_a_server_that_is_not_in_the_room_is_not_asked(alice: User, peer: Peer) -> None:
    room_id = await alice.create_room()
    await alice.set_state(room_id, "m.room.policy", policy(peer))
    await alice.send(room_id, "spam")
    assert peer.asked == []


@pytest.mark.parametrize("version", ["1", "11"])
async def test_events_of_others_are_judged_by_their_signature(alice: User, peer: Peer, version: str) -> None:
    intruder, server = await guard(alice, peer, version)
    good = intruder.event()
    (await intruder.send(server.signed(good))).ok()
    assert await is_shown(alice, intruder.room_id, good.event_id)
    assert server.asked == []
    unsigned, spam = intruder.event(), intruder.event(content={"body": "spam"})
    answer = (await intruder.send(unsigned, spam)).ok()
    assert answer == {"pdus": {unsigned.event_id: {}, spam.event_id: {}}}
    assert await is_shown(alice, intruder.room_id, unsigned.event_id)
    assert not await is_shown(alice, intruder.room_id, spam.event_id)
    assert len(server.asked) == 2
    (await intruder.send(unsigned, spam)).ok()
    assert len(server.asked) == 2  # what is known is not asked for again
    path = f"/_matrix/federation/v1/event/{quote(unsigned.event_id, safe='')}"
    (event,) = (await peer.ask(name_of(alice.homeserver), "GET", path)).ok()["pdus"]
    assert POLICY_KEY_ID in event["signatures"][peer.name]
    await alice.send(intruder.room_id, "and so on")


async def test_an_event_is_not_shown_that_it_cannot_be_asked_for(alice: User, peer: Peer) -> None:
    intruder, _server = await guard(alice, peer)
    peer.handlers[SIGN] = raw(b"", 503)
    event = intruder.event()
    (await intruder.send(event)).ok()
    assert not await is_shown(alice, intruder.room_id, event.event_id)
    leave = intruder.event("m.room.member", {"membership": "leave"}, state_key=intruder.user_id)
    (await intruder.send(leave)).ok()
    member = (await state_event(alice, intruder.room_id, "m.room.member", intruder.user_id)).ok()
    assert member["membership"] == "join"


async def test_nobody_is_let_in_whom_it_refuses(alice: User, peer: Peer) -> None:
    intruder, server = await guard(alice, peer)
    here, user_id = name_of(alice.homeserver), f"@spam:{peer.name}"
    room = quote(intruder.room_id, safe="")
    path = f"/_matrix/federation/v1/make_join/{room}/{quote(user_id, safe='')}?ver=12"
    template = (await peer.ask(here, "GET", path)).ok()["event"]
    template["content"]["reason"] = "spam"
    template["prev_events"] = [intruder.join.event_id]
    join = intruder.event(
        "m.room.member",
        template["content"],
        sender=user_id,
        state_key=user_id,
        auth_events=[intruder.state[key].reference for key in (("m.room.power_levels", ""), ("m.room.join_rules", ""))],
    )
    path = f"/_matrix/federation/v2/send_join/{room}/{quote(join.event_id, safe='')}"
    (await peer.ask(here, "PUT", path, join.json)).error(403, "M_FORBIDDEN")
    (await state_event(alice, intruder.room_id, "m.room.member", user_id)).error(404, "M_NOT_FOUND")
    assert len(server.asked) == 1


@pytest.mark.parametrize("version", ["11", "12"])
async def test_a_room_is_upgraded_with_its_signature_or_not_at_all(alice: User, peer: Peer, version: str) -> None:
    intruder, server = await guard(alice, peer)
    alias = f"#old{version}:{name_of(alice.homeserver)}"
    path = f"directory/room/{encode(alias)}"
    (await alice.request("PUT", path, {"room_id": intruder.room_id})).ok()
    server.key = OTHER_KEY
    upgrade = {"new_version": version}
    since = (await alice.sync())["next_batch"]
    (await alice.in_room("POST", intruder.room_id, "upgrade", upgrade)).error(403, "M_FORBIDDEN")
    rooms = (await alice.sync(since))["rooms"]
    assert "join" not in rooms
    assert (await alice.request("GET", path)).ok()["room_id"] == intruder.room_id
    server.key, server.asked = KEY, []
    new = (await alice.in_room("POST", intruder.room_id, "upgrade", upgrade)).ok()["replacement_room"]
    assert [event["type"] for event in server.asked] == ["m.room.tombstone", "m.room.power_levels"]
    tombstone = (await state_event(alice, intruder.room_id, "m.room.tombstone", "")).ok()
    assert tombstone["replacement_room"] == new
    assert (await alice.request("GET", path)).ok()["room_id"] == new
    await alice.send(new, "here")

"""Knocks that cross servers, and what is told of the rooms that are knocked on.

https://spec.matrix.org/v1.19/server-server-api/#knocking-rooms
"""

from __future__ import annotations

import time
from typing import Any
from urllib.parse import quote

import pytest
from aiohttp import web

from matrix.hashes import compute_event_id
from matrix.pdu import Pdu, build_pdu, parse_pdu
from matrix.room_versions import ROOM_VERSIONS
from matrix.signatures import hash_and_sign_event
from tests.client import Homeserver
from tests.federation.conftest import name_of
from tests.federation.peer import Peer

V1 = "/_matrix/federation/v1"


async def knock(peer: Peer, weft: Homeserver, room_id: str, version: str) -> dict[str, Any]:
    """A knock of Eve's: what is answered to it, and its event ID."""
    room, name, rooms = quote(room_id, safe=""), name_of(weft), ROOM_VERSIONS[version]
    uri = f"{V1}/make_knock/{room}/{quote(f'@eve:{peer.name}', safe='')}"
    made = (await peer.ask(name, "GET", f"{uri}?ver=1&ver={version}")).ok()
    assert made["room_version"] == version
    event = hash_and_sign_event({**made["event"], "origin_server_ts": 1}, rooms, peer.name, peer.key)
    event_id = compute_event_id(event, rooms)
    uri = f"{V1}/send_knock/{room}/{quote(event_id, safe='')}"
    return {**(await peer.ask(name, "PUT", uri, event)).ok(), "event_id": event_id}


async def test_who_knocks_sees_nothing_of_the_room(weft: Homeserver, peer: Peer) -> None:
    alice, name = await weft.register(), name_of(weft)
    rules = {"type": "m.room.join_rules", "state_key": "", "content": {"join_rule": "knock"}}
    room_id = await alice.create_room(room_version="11", initial_state=[rules])
    secret = await alice.send(room_id, "secret")
    knocked = (await knock(peer, weft, room_id, "11"))["event_id"]
    later = await alice.send(room_id, "secret, too")
    room, events = quote(room_id, safe=""), [quote(event_id, safe="") for event_id in (secret, later)]
    for event in events:
        for path in (f"event/{event}", f"event_auth/{room}/{event}", f"state_ids/{room}?event_id={event}"):
            (await peer.ask(name, "GET", f"{V1}/{path}")).error(403, "M_FORBIDDEN")
    (await peer.ask(name, "GET", f"{V1}/timestamp_to_event/{room}?ts=2&dir=f")).error(404, "M_NOT_FOUND")
    page = (await peer.ask(name, "GET", f"{V1}/backfill/{room}?v={events[1]}&limit=50")).ok()
    assert [pdu["state_key"] for pdu in page["pdus"]] == [f"@eve:{peer.name}"]
    missing = {"earliest_events": [], "latest_events": [later, knocked]}
    found = (await peer.ask(name, "POST", f"{V1}/get_missing_events/{room}", missing)).ok()
    assert [pdu["state_key"] for pdu in found["events"]] == [f"@eve:{peer.name}"]
    (await alice.in_room("POST", room_id, "kick", {"user_id": f"@eve:{peer.name}"})).ok()
    missing["latest_events"] = [[await alice.send(room_id, "not for her") for _ in range(3)][-1]]
    found = (await peer.ask(name, "POST", f"{V1}/get_missing_events/{room}", missing)).ok()
    assert {pdu.get("state_key") for pdu in found["events"]} == {f"@eve:{peer.name}"}
    (await peer.ask(name, "GET", f"{V1}/event_auth/{room}/{events[1]}")).error(403, "M_FORBIDDEN")
    (await peer.ask(name, "GET", f"{V1}/event_auth/{room}/{quote(knocked, safe='')}")).ok()


@pytest.mark.parametrize("version", ["7", "12"])
async def test_who_knocks_is_told_of_the_room_by_its_events(weft: Homeserver, peer: Peer, version: str) -> None:
    alice, eve = await weft.register(), f"@eve:{peer.name}"
    rules = {"type": "m.room.join_rules", "state_key": "", "content": {"join_rule": "knock"}}
    room_id = await alice.create_room(name="Den", room_version=version, initial_state=[rules])
    room, name, rooms = quote(room_id, safe=""), name_of(weft), ROOM_VERSIONS[version]
    uri = f"{V1}/make_knock/{room}/{quote(eve, safe='')}"
    refused = (await peer.ask(name, "GET", f"{uri}?ver=1&ver=6")).error(400, "M_INCOMPATIBLE_ROOM_VERSION")
    assert refused["room_version"] == version
    told = (await knock(peer, weft, room_id, version))["knock_room_state"]
    assert {parse_pdu(event, rooms).type for event in told} == {"m.room.create", "m.room.name", "m.room.join_rules"}


async def test_what_is_no_event_of_the_room_is_not_shown(weft: Homeserver, peer: Peer) -> None:
    alice, version = await weft.register(), ROOM_VERSIONS["12"]

    def event(type: str, content: dict[str, Any], room_id: str = "") -> Pdu:
        return build_pdu(
            room_version=version,
            room_id=room_id,
            type=type,
            sender=f"@host:{peer.name}",
            state_key="",
            content=content,
            prev_events=[],
            auth_events=[],
            depth=1,
            origin_server_ts=int(time.time() * 1000),
            server_name=peer.name,
            signing_key=peer.key,
        )

    create = event("m.room.create", {"room_version": "12"})
    topic = event("m.room.topic", {"topic": "here"}, create.room_id)
    name = event("m.room.name", {"name": "elsewhere"}, f"!{'a' * 43}")
    forged = {**event("m.room.avatar", {"url": "mxc://a/b"}, create.room_id).json, "signatures": {}}
    bare = {"type": "m.room.encryption", "state_key": "", "sender": f"@host:{peer.name}", "content": {}}
    told = [create.json, topic.json, name.json, forged, bare]

    async def make(request: web.BaseRequest) -> web.StreamResponse:
        fields = {"type": "m.room.member", "room_id": create.room_id, "sender": alice.user_id, "depth": 5}
        links = {"state_key": alice.user_id, "prev_events": [topic.event_id], "auth_events": [topic.event_id]}
        template = {**fields, **links, "content": {"membership": "knock"}}
        return web.json_response({"room_version": "12", "event": template})

    peer.handlers[f"{V1}/make_knock/{create.room_id}/"] = make

    async def take(request: web.BaseRequest) -> web.StreamResponse:
        knock = await request.json()
        assert (knock["origin"], knock["sender"]) == (name_of(weft), alice.user_id)
        return web.json_response({"knock_room_state": told})

    peer.handlers[f"{V1}/send_knock/{create.room_id}/"] = take
    (await alice.request("POST", f"knock/{quote(create.room_id, safe='')}?via={peer.name}", {})).ok()
    shown = (await alice.sync())["rooms"]["knock"][create.room_id]["knock_state"]["events"]
    assert [event["type"] for event in shown] == ["m.room.create", "m.room.topic", "m.room.member"]

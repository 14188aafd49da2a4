"""What was said in a room before: before anybody here was in it, or before what has come already.

https://spec.matrix.org/v1.19/server-server-api/#backfilling-and-retrieving-missing-events
"""

from __future__ import annotations

from typing import Any

import orjson
from aiohttp import web

from matrix.pdu import build_pdu
from tests.client import Homeserver
from tests.client_api.support import encode, page_through
from tests.federation.peer import Peer, json
from tests.federation.test_hostile_events import Intruder, is_shown
from tests.federation.test_hostile_rooms import VERSION, Host

FEDERATION = "/_matrix/federation/v1"


async def test_what_stands_on_history_is_judged_by_its_own_state(weft: Homeserver, peer: Peer) -> None:
    """Two branches meet in the past: a ghost has joined on the first of them, and the second is what history shows."""
    alice = await weft.register()
    host = Host(peer, weft)
    create, member, rules = host.state
    ghost_id = f"@ghost:{peer.name}"
    fields = {"room_version": VERSION, "room_id": host.room_id, "sender": ghost_id, "origin_server_ts": 1_700_000_000}
    keys = {"server_name": peer.name, "signing_key": peer.key}
    ghost = build_pdu(
        **fields,
        **keys,
        type="m.room.member",
        state_key=ghost_id,
        content={"membership": "join"},
        prev_events=[rules.reference],
        auth_events=[create.reference, rules.reference],
        depth=rules.depth + 1,
    )
    aside = host.event("m.room.message", {"body": "aside"}, [rules], [create, member], state_key=None)
    merge = host.event("m.room.message", {"body": "together"}, [ghost, aside], [create, member], state_key=None)
    host.state.append(ghost)
    host.newest = merge
    (await host.let_in(alice)).ok()
    past = [merge, aside, ghost, rules, member, create]
    peer.handlers[f"{FEDERATION}/backfill/{host.room_id}"] = json({"pdus": [pdu.json for pdu in past]})
    page = (await alice.in_room("GET", host.room_id, "messages", dir="b", limit=50)).ok()
    assert [event["event_id"] for event in page["chunk"]][-6:] == [pdu.event_id for pdu in past]

    ids = {"pdu_ids": [pdu.event_id for pdu in host.state], "auth_chain_ids": [create.event_id, rules.event_id]}
    peer.handlers[f"{FEDERATION}/state_ids/{host.room_id}"] = json(ids)
    late = build_pdu(
        **fields,
        **keys,
        type="m.room.message",
        state_key=None,
        content={"body": "I was there"},
        prev_events=[merge.reference],
        auth_events=[create.reference, ghost.reference],
        depth=merge.depth + 1,
    )
    content = {"origin": peer.name, "origin_server_ts": 0, "pdus": [late.json]}
    sent = await peer.ask(host.server_name, "PUT", f"{FEDERATION}/send/late", content)
    assert sent.ok() == {"pdus": {late.event_id: {}}}
    shown = await alice.in_room("GET", host.room_id, f"event/{encode(late.event_id)}")
    assert shown.ok()["content"]["body"] == "I was there"


async def test_what_was_before_the_join_is_nothing_that_was_missed(weft: Homeserver, peer: Peer) -> None:
    alice = await weft.register()
    host = Host(peer, weft)
    create, member, rules = host.state
    (await host.let_in(alice)).ok()
    lost = host.event("m.room.message", {"body": "lost"}, [host.welcome], [create, member], state_key=None)
    found = host.event("m.room.message", {"body": "found"}, [lost], [create, member], state_key=None)
    asked = []

    async def missing(request: web.BaseRequest) -> web.StreamResponse:
        asked.append(orjson.loads(await request.read()))
        return web.json_response({"events": [pdu.json for pdu in (rules, lost)]})

    peer.handlers[f"{FEDERATION}/get_missing_events/{host.room_id}"] = missing
    content = {"origin": peer.name, "origin_server_ts": 0, "pdus": [found.json]}
    (await peer.ask(host.server_name, "PUT", f"{FEDERATION}/send/missed", content)).ok()
    shown = [await is_shown(alice, host.room_id, pdu.event_id) for pdu in (lost, found, rules)]
    assert shown == [True, True, False]
    assert [request["min_depth"] for request in asked] == [rules.depth + 1]


async def test_what_comes_after_what_stands_on_it_is_not_built_upon(weft: Homeserver, peer: Peer) -> None:
    alice = await weft.register()
    room_id = await alice.create_room(preset="public_chat", room_version="11")
    intruder = await Intruder.enter(peer, weft, room_id)
    late = intruder.event()
    early = intruder.event(prev_events=[late.reference], depth=late.depth + 1)
    ids = [intruder.join.event_id, *(pdu.event_id for pdu in intruder.state.values())]
    peer.handlers[f"{FEDERATION}/state_ids/{room_id}"] = json({"pdu_ids": ids, "auth_chain_ids": []})
    (await intruder.send(early)).ok()
    (await intruder.send(late)).ok()
    assert [await is_shown(alice, room_id, pdu.event_id) for pdu in (early, late)] == [True, True]
    event_id = await alice.send(room_id, "next")
    (event,) = (await peer.ask(intruder.server_name, "GET", f"{FEDERATION}/event/{encode(event_id)}")).ok()["pdus"]
    assert event["prev_events"] == [early.event_id]


async def test_history_is_what_was_before_and_nothing_beside_it(weft: Homeserver, peer: Peer) -> None:
    """Who is banned could speak beside the ban otherwise, through any server that is asked for history."""
    alice = await weft.register()
    host = Host(peer, weft)
    create, member, rules = host.state
    aside = host.event("m.room.message", {"body": "I was never banned"}, [rules], [create, member], state_key=None)
    host.newest = before = host.event("m.room.message", {"body": "hello"}, [rules], [create, member], state_key=None)
    (await host.let_in(alice)).ok()
    past = [aside, before, rules, member, create]
    peer.handlers[f"{FEDERATION}/backfill/{host.room_id}"] = json({"pdus": [pdu.json for pdu in past]})
    ids = {"pdu_ids": [pdu.event_id for pdu in host.state], "auth_chain_ids": [create.event_id]}
    peer.handlers[f"{FEDERATION}/state_ids/{host.room_id}"] = json(ids)
    page = (await alice.in_room("GET", host.room_id, "messages", dir="b", limit=50)).ok()
    assert [event["event_id"] for event in page["chunk"]][-4:] == [pdu.event_id for pdu in past[1:]]
    assert aside.event_id not in [event["event_id"] for event in page["chunk"]]


async def test_history_shows_redactions_that_have_an_effect(weft: Homeserver, peer: Peer) -> None:
    """Also one whose target another server gives as it was, and later than the redaction."""
    alice = await weft.register()
    host = Host(peer, weft)
    create, member, rules = host.state
    auth = [create, member]
    first = host.event("m.room.message", {"body": "first"}, [rules], auth, state_key=None)
    second = host.event("m.room.message", {"body": "second"}, [first], auth, state_key=None)
    good = host.event("m.room.redaction", {"redacts": second.event_id}, [second], auth, state_key=None)
    early = host.event("m.room.redaction", {"redacts": first.event_id}, [good], auth, state_key=None)
    void = host.event("m.room.redaction", {"redacts": "$" + "x" * 43}, [early], auth, state_key=None)
    host.newest = void
    (await host.let_in(alice)).ok()
    chunks = [[void, early, good, second], [first, rules, member, create]]

    async def backfill(_request: web.BaseRequest) -> web.StreamResponse:
        return web.json_response({"pdus": [pdu.json for pdu in (chunks.pop(0) if chunks else [])]})

    peer.handlers[f"{FEDERATION}/backfill/{host.room_id}"] = backfill
    ids = {"pdu_ids": [pdu.event_id for pdu in host.state], "auth_chain_ids": [create.event_id]}
    peer.handlers[f"{FEDERATION}/state_ids/{host.room_id}"] = json(ids)
    shown = {event["event_id"]: event for event in await page_through(alice, host.room_id, "b", limit=50)}
    assert {first.event_id, second.event_id, good.event_id} <= shown.keys()
    assert {early.event_id, void.event_id}.isdisjoint(shown)
    by = [shown[pdu.event_id]["unsigned"]["redacted_by"] for pdu in (first, second)]
    assert (by, shown[first.event_id]["content"]) == ([early.event_id, good.event_id], {})


async def test_history_that_cannot_be_judged_is_asked_for_again(weft: Homeserver, peer: Peer) -> None:
    """A server that keeps the auth events to itself does not have the events rejected for ever."""
    alice = await weft.register()
    host = Host(peer, weft)
    create, _, rules = host.state
    fields: dict[str, Any] = {"room_version": VERSION, "room_id": host.room_id, "origin_server_ts": 1_700_000_000}
    fields |= {"sender": f"@ghost:{peer.name}", "server_name": peer.name, "signing_key": peer.key}
    ghost = build_pdu(
        **fields,
        type="m.room.member",
        state_key=f"@ghost:{peer.name}",
        content={"membership": "join"},
        prev_events=[rules.reference],
        auth_events=[create.reference, rules.reference],
        depth=rules.depth + 1,
    )
    said = build_pdu(
        **fields,
        type="m.room.message",
        state_key=None,
        content={"body": "boo"},
        prev_events=[ghost.reference],
        auth_events=[create.reference, ghost.reference],
        depth=ghost.depth + 1,
    )
    host.newest = said
    (await host.let_in(alice)).ok()
    chain = f"{FEDERATION}/event_auth/{host.room_id}/"
    peer.handlers[f"{FEDERATION}/backfill/{host.room_id}"] = json({"pdus": [said.json]})
    ids = {"pdu_ids": [pdu.event_id for pdu in host.state], "auth_chain_ids": []}
    peer.handlers[f"{FEDERATION}/state_ids/{host.room_id}"] = json(ids)
    for known in ([], [ghost, create, rules]):
        peer.handlers[chain] = json({"auth_chain": [pdu.json for pdu in known]})
        shown = await page_through(alice, host.room_id, "b", limit=50)
        assert (said.event_id in [event["event_id"] for event in shown]) is bool(known)


async def test_who_has_left_still_tells_what_they_said_and_the_state_before_it(weft: Homeserver, peer: Peer) -> None:
    alice = await weft.register()
    room_id = await alice.create_room(preset="public_chat", room_version="11")
    intruder = await Intruder.enter(peer, weft, room_id)
    event_id = await alice.send(room_id, "farewell")
    (await alice.in_room("POST", room_id, "leave", {})).ok()
    (event,) = (await peer.ask(intruder.server_name, "GET", f"{FEDERATION}/event/{encode(event_id)}")).ok()["pdus"]
    assert event["content"]["body"] == "farewell"
    path = f"{FEDERATION}/state_ids/{encode(room_id)}?event_id={encode(event_id)}"
    told = (await peer.ask(intruder.server_name, "GET", path)).ok()["pdu_ids"]
    assert set(told) == {intruder.join.event_id, *(pdu.event_id for pdu in intruder.state.values())}
    join = f"{FEDERATION}/make_join/{encode(room_id)}/{encode('@eve:' + peer.name)}?ver=11"
    (await peer.ask(intruder.server_name, "GET", join)).error(404, "M_NOT_FOUND")


async def test_a_state_is_fetched_whole_where_its_events_are_not_given_singly(weft: Homeserver, peer: Peer) -> None:
    alice = await weft.register()
    room_id = await alice.create_room(preset="public_chat", room_version="11")
    intruder = await Intruder.enter(peer, weft, room_id)
    ghost_id = f"@ghost:{peer.name}"
    auth = [intruder.state[key].reference for key in (("m.room.create", ""), ("m.room.power_levels", ""))]
    ghost = intruder.event(
        "m.room.member",
        {"membership": "join"},
        sender=ghost_id,
        state_key=ghost_id,
        auth_events=[*auth, intruder.state["m.room.join_rules", ""].reference],
    )
    event = intruder.event(prev_events=[ghost.reference], depth=ghost.depth + 1)
    chain = [pdu.json for pdu in intruder.state.values()]
    state = [*chain, intruder.join.json, ghost.json]
    ids = [pdu.event_id for pdu in (*intruder.state.values(), intruder.join, ghost)]
    peer.handlers[f"{FEDERATION}/state_ids/{room_id}"] = json({"pdu_ids": ids, "auth_chain_ids": []})
    peer.handlers[f"{FEDERATION}/state/{room_id}"] = json({"pdus": state, "auth_chain": chain})
    (await intruder.send(event)).ok()
    assert ghost_id in (await alice.in_room("GET", room_id, "joined_members")).ok()["joined"]

"""Events that their senders have not made, or that are made to be taken for others.

https://spec.matrix.org/v1.19/server-server-api/#validating-hashes-and-signatures-on-received-events
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from config.schema import Caches
from homeserver.services.federation.dummy_events import MAX_EXTREMITIES, MAX_PATIENT_EXTREMITIES
from homeserver.services.federation.outliers import Packed
from homeserver.services.federation.verification import Verified
from matrix.canonical_json import MAX_DEPTH
from matrix.pdu import EventReference
from matrix.pdu_format import MAX_PREV_EVENTS
from matrix.signatures import SigningKey, hash_and_sign_event, sign_event
from tests.client import Homeserver, User
from tests.client_api.support import encode, state_event
from tests.federation.conftest import MakeServer
from tests.federation.peer import Peer, json
from tests.federation.test_hostile_events import enter, is_shown


@pytest.fixture
async def alice(weft: Homeserver) -> User:
    """Who has the rooms."""
    return await weft.register()


@pytest.mark.parametrize(("version", "promise"), [("2", {}), ("10", {}), ("11", "none"), ("12", "none")])
async def test_an_invitation_needs_a_signature_if_it_redeems_none(
    alice: User, peer: Peer, version: str, promise: Any
) -> None:
    """Invitations by third parties need no signature of their senders' servers, but that is no way round it: with
    another hash all that speaks of a third party is redacted."""
    intruder = await enter(alice, peer, version)
    friend = f"@friend:{peer.name}"
    auth = [intruder.state[type, ""] for type in ("m.room.power_levels", "m.room.join_rules")]
    if version != "12":
        auth.append(intruder.state["m.room.create", ""])
    invite = intruder.event(
        "m.room.member",
        {"membership": "invite", "third_party_invite": promise},
        sender=alice.user_id,
        state_key=friend,
        auth_events=[pdu.reference for pdu in (*auth, intruder.state["m.room.member", alice.user_id])],
        signing_key=SigningKey("any", b"a" * 32),
    )
    forged = {**invite.json, "hashes": {"sha256": "A" * 43}, "signatures": {}}
    await intruder.send(sign_event(forged, intruder.version, peer.name, peer.key))
    (await state_event(alice, intruder.room_id, "m.room.member", friend)).error(404, "M_NOT_FOUND")


async def test_auth_events_that_are_named_twice_authorise_nothing(alice: User, peer: Peer) -> None:
    intruder = await enter(alice, peer)
    auth = [intruder.state["m.room.create", ""], intruder.state["m.room.power_levels", ""], intruder.join]
    on_tip = intruder.event(auth_events=[pdu.reference for pdu in (*auth, auth[1])])
    await intruder.send(on_tip)
    await alice.send(intruder.room_id, "meanwhile")
    aside = intruder.event(auth_events=[pdu.reference for pdu in (*auth, auth[0])])
    await intruder.send(aside)
    for event in (on_tip, aside):
        assert not await is_shown(alice, intruder.room_id, event.event_id)


async def test_an_id_that_another_event_has_is_not_given_to_this_one(alice: User, peer: Peer) -> None:
    intruder, other = await enter(alice, peer, "1"), await enter(alice, peer, "1")
    assert alice.homeserver.running is not None
    server = alice.homeserver.running.server
    room = await server.access.access_joined_room(alice.user_id, other.room_id)
    fields = {"content": {"membership": "join"}, "state_key": intruder.user_id, "opaque_id": "chosen"}
    first = other.event("m.room.member", **fields)
    await server.federation.outliers.persist(room.room, [Verified(first, frozenset())])
    for sender in (intruder, other):
        second = sender.event(opaque_id="chosen")
        assert "error" in (await sender.send(second)).ok()["pdus"][first.event_id]
    known = await server.events.load_id(first.event_id)
    assert known is not None
    assert (known.pdu.json, known.room) == (first.json, room.room)
    twin = intruder.event("m.room.member", **fields)
    here = await server.access.access_joined_room(alice.user_id, intruder.room_id)
    packed = {twin.event_id: Packed.of(twin)}
    placed = await server.federation.outliers.persist_packed(here.room, here.version, packed)
    assert placed[twin.event_id].key is None


async def test_a_join_that_is_known_from_a_state_already_is_taken_in_once(make_server: MakeServer, peer: Peer) -> None:
    few = 16
    weft = await make_server(caches=Caches(rooms=few, events=few, snapshots=few, tokens=few, users=few))
    alice = await weft.register()
    intruder, other = await enter(alice, peer), await enter(alice, peer)
    assert weft.running is not None
    server = weft.running.server
    room = await server.access.access_joined_room(alice.user_id, intruder.room_id)
    friend = f"@friend:{peer.name}"
    rules = [intruder.state[type, ""] for type in ("m.room.create", "m.room.power_levels", "m.room.join_rules")]
    join = intruder.event(
        "m.room.member",
        {"membership": "join"},
        sender=friend,
        state_key=friend,
        auth_events=[pdu.reference for pdu in rules],
    )
    await server.federation.outliers.persist(room.room, [Verified(join, frozenset())])
    for number in range(2 * few):  # until it has gone out of memory
        await alice.send(other.room_id, str(number))
    assert server.events.known(join.event_id) is None
    path = f"/_matrix/federation/v2/send_join/{encode(intruder.room_id)}/{encode(join.event_id)}"
    (await peer.ask(intruder.server_name, "PUT", path, join.json)).ok()
    assert (await state_event(alice, intruder.room_id, "m.room.member", friend)).ok()["membership"] == "join"


async def test_ends_that_an_event_cannot_name_remain(alice: User, peer: Peer) -> None:
    levels = {"events": {"m.room.topic": 0}, "users": {alice.user_id: 100}}
    intruder = await enter(alice, peer, power_level_content_override=levels)
    topic = intruder.event("m.room.topic", {"topic": "beside"}, state_key="")
    await intruder.send(topic, *(intruder.event(content={"body": str(n)}) for n in range(MAX_PREV_EVENTS + 4)))
    assert alice.homeserver.running is not None
    server = alice.homeserver.running.server
    room = await server.access.access_joined_room(alice.user_id, intruder.room_id)
    event_id = await alice.send(intruder.room_id, "hello")
    ends = [extremity.reference.event_id for extremity in room.tip.extremities]
    assert (len(ends), ends[0], ends[-1]) == (6, topic.event_id, event_id)
    path = f"/_matrix/federation/v1/state_ids/{encode(intruder.room_id)}?event_id={encode(event_id)}"
    told = (await peer.ask(intruder.server_name, "GET", path)).ok()["pdu_ids"]
    assert topic.event_id not in told  # it is in none of the branches that the event stands on
    assert (await state_event(alice, intruder.room_id, "m.room.topic")).ok() == {"topic": "beside"}


async def test_very_many_branches_are_brought_together_at_once(alice: User, peer: Peer) -> None:
    intruder = await enter(alice, peer)
    assert alice.homeserver.running is not None
    room = await alice.homeserver.running.server.access.access_joined_room(alice.user_id, intruder.room_id)
    await intruder.send(*(intruder.event(content={"body": str(n)}) for n in range(MAX_PATIENT_EXTREMITIES + 1)))
    async with asyncio.timeout(10):
        while len(room.tip.extremities) > MAX_EXTREMITIES:
            await alice.sync()


@pytest.mark.parametrize("version", ["10", "12"])
async def test_redactions_without_effect_are_not_shown(alice: User, peer: Peer, version: str) -> None:
    """Clients would believe them."""
    intruder = await enter(alice, peer, version)
    sent = await alice.send(intruder.room_id, "mine")
    later = intruder.event(content={"body": "mallory's"})
    for target in (sent, "$" + "x" * 43, later.event_id, "$" + "".join(map(str, range(9000))), None):
        content = {"redacts": sent, "reason": "Because"}
        before = [EventReference(sent, "")] if target == sent else [intruder.join.reference]
        redaction = intruder.event("m.room.redaction", content, redacts=target, prev_events=before)
        if target is None and version == "12":
            redaction = intruder.event("m.room.redaction", {})
        assert (await intruder.send(redaction)).ok() == {"pdus": {redaction.event_id: {}}}
        assert not await is_shown(alice, intruder.room_id, redaction.event_id)
        if target == later.event_id:
            await intruder.send(later)
            shown = (await alice.in_room("GET", intruder.room_id, f"event/{encode(target)}")).ok()
            assert (shown["content"], shown["unsigned"]["redacted_by"]) == ({}, redaction.event_id)
    shown = (await alice.in_room("GET", intruder.room_id, f"event/{encode(sent)}")).ok()
    assert shown["content"]["body"] == "mine"


@pytest.mark.parametrize("version", ["5", "12"])
async def test_an_event_that_nests_deep_spoils_no_others(alice: User, peer: Peer, version: str) -> None:
    """Anybody may have sent it on a server that bears it: their server's other users are not to suffer from that."""
    intruder = await enter(alice, peer, version)
    events = [intruder.event(content={"body": str(n)}) for n in range(2)]

    def signed(event: dict[str, Any]) -> dict[str, Any]:
        return hash_and_sign_event(event, intruder.version, peer.name, peer.key)

    nested: dict[str, Any] = {}
    for _ in range(MAX_DEPTH - 3):
        nested = {"a": nested}
    deepest = intruder.event(content=nested)  # that is as deep as events may be, before they are put into transactions
    too_deep = signed({**deepest.json, "content": {"a": nested}})
    for _ in range(3 * MAX_DEPTH):
        nested = {"a": nested}
    abysmal = signed({**deepest.json, "content": nested})
    edu = {"edu_type": "m.direct_to_device", "content": {"sender": intruder.user_id, "messages": nested}}
    sent = (await intruder.send(events[0], too_deep, deepest, abysmal, events[1], edus=[edu])).ok()["pdus"]
    assert len(sent) == 5
    for event in (*events, deepest):
        assert sent[event.event_id] == {}
        assert await is_shown(alice, intruder.room_id, event.event_id)
    missed = intruder.event(content={"body": "missed"})
    gap = intruder.event(prev_events=[missed.reference])
    answer = {"events": [abysmal, missed.json]}
    peer.handlers[f"/_matrix/federation/v1/get_missing_events/{intruder.room_id}"] = json(answer)
    assert (await intruder.send(gap)).ok() == {"pdus": {gap.event_id: {}}}
    assert await is_shown(alice, intruder.room_id, missed.event_id)


async def test_events_before_themselves_go_round_no_circle(alice: User, peer: Peer) -> None:
    """In room versions whose event IDs are chosen, by a server that answers whatever it is asked about them."""
    intruder = await enter(alice, peer, "1")
    names = {opaque_id: f"${opaque_id}:{peer.name}" for opaque_id in ("one", "two", "own")}
    one, two, own = (
        intruder.event(opaque_id=opaque_id, depth=depth, prev_events=[EventReference(names[before], "")])
        for opaque_id, before, depth in (("one", "two", 2**63 - 1), ("two", "one", 5), ("own", "own", 1))
    )
    federation, room_id = "/_matrix/federation/v1", intruder.room_id
    state = [*(pdu.event_id for pdu in intruder.state.values()), intruder.join.event_id]
    circle = [pdu.json for pdu in (one, two, own)]
    peer.handlers[f"{federation}/get_missing_events/{room_id}"] = json({"events": circle})
    peer.handlers[f"{federation}/state_ids/{room_id}"] = json({"pdu_ids": state, "auth_chain_ids": []})
    peer.handlers[f"{federation}/backfill/{room_id}"] = json({"pdus": circle})
    for event in (one, own, two):
        assert (await intruder.send(event)).status == 200
    event_id = await alice.send(room_id, "after")
    (await alice.in_room("GET", room_id, "messages", dir="b", limit=50)).ok()
    path = f"{federation}/backfill/{encode(room_id)}?limit=50&v={encode(event_id)}&v={encode(own.event_id)}"
    told = (await peer.ask(intruder.server_name, "GET", path)).ok()["pdus"]
    assert {event["event_id"] for event in told} >= {event_id, *names.values()}


@pytest.mark.parametrize("version", ["2", "11"])
async def test_a_key_that_is_out_of_use_signs_nothing_new(alice: User, peer: Peer, version: str) -> None:
    """Who has got hold of it must not speak for its server, not even in rooms that do not look at keys' validity."""
    old, peer.key = peer.key, SigningKey("new", b"n" * 32)
    until = 1_700_000_000_000
    entry = {old.key_id: {"key": old.public_key_base64, "expired_ts": until}}
    peer.keys_changed = lambda _: peer.keys(old_verify_keys=entry)
    intruder = await enter(alice, peer, version)
    for ts, is_good in ((until, True), (until + 1, False)):
        event = intruder.event(signing_key=old, origin_server_ts=ts)
        (result,) = (await intruder.send(event)).ok()["pdus"].values()
        assert (result == {}) is is_good
        assert await is_shown(alice, intruder.room_id, event.event_id) is is_good


async def test_who_may_not_speak_is_not_asked_to_for_each_branch(peer: Peer, weft: Homeserver) -> None:
    alice = await weft.register()
    bob = await weft.register()
    levels = {"events_default": 50, "users": {alice.user_id: 100, f"@mallory:{peer.name}": 50}}
    intruder = await enter(alice, peer, power_level_content_override=levels)
    (await bob.request("POST", f"join/{encode(intruder.room_id)}", {})).ok()
    (await alice.in_room("POST", intruder.room_id, "leave", {})).ok()
    assert weft.running is not None
    dummy_events = weft.running.server.federation.dummy_events
    many = [intruder.event(content={"body": str(n)}) for n in range(MAX_PATIENT_EXTREMITIES + 2)]
    await intruder.send(*many[:-1])
    await dummy_events.send_due(weft.running.server.clock())
    await intruder.send(many[-1])
    assert not dummy_events.is_due(intruder.room_id, weft.running.server.clock())

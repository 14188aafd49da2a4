"""A server that is in a room does there what it may not: the room goes on as if nothing had been.

https://spec.matrix.org/v1.19/server-server-api/#checks-performed-on-receipt-of-a-pdu
"""

from __future__ import annotations

import asyncio
import itertools
import time
from typing import Any
from urllib.parse import quote

import pytest
from aiohttp import web

from benchmarks.authority import Authority
from config.schema import Caches
from homeserver.services.federation.dummy_events import DELAY_MS, MAX_EXTREMITIES
from homeserver.services.federation.incoming_transactions import MAX_RUNNING
from homeserver.services.federation.outliers import Packed
from homeserver.services.federation.verification import Verified
from homeserver.services.rooms import branches
from matrix.hashes import content_hash
from matrix.pdu import EventReference, Pdu, build_pdu, parse_pdu
from matrix.room_versions import ROOM_VERSIONS
from matrix.signatures import SigningKey, sign_event
from tests.client import Answer, Homeserver, User
from tests.client_api.support import page_through, state_event
from tests.federation.conftest import MakeServer, name_of
from tests.federation.peer import Peer, json, running_peer

_numbers = itertools.count(1)


class Intruder:
    """A user of a peer who has joined a room of a Weft server, by the rules; what comes then is another matter."""

    def __init__(self, peer: Peer, server_name: str, room_id: str, join: Pdu, answer: dict[str, Any]) -> None:
        self.peer = peer
        self.server_name = server_name
        self.room_id = room_id
        self.user_id = join.sender
        self.version = join.room_version
        self.join = join
        state = [parse_pdu(event, self.version) for event in answer["state"]]
        self.state = {pdu.state_key_pair: pdu for pdu in state}

    @classmethod
    async def enter(cls, peer: Peer, homeserver: Homeserver, room_id: str) -> Intruder:
        """Joins a public room."""
        server_name, user_id = name_of(homeserver), f"@mallory:{peer.name}"
        versions = "&".join(f"ver={version}" for version in ROOM_VERSIONS)
        path = f"/_matrix/federation/v1/make_join/{quote(room_id, safe='')}/{quote(user_id, safe='')}?{versions}"
        template = (await peer.ask(server_name, "GET", path)).ok()
        version = ROOM_VERSIONS[template["room_version"]]
        event = {key: value for key, value in template["event"].items() if key != "origin"}
        event["origin_server_ts"] = int(time.time() * 1000)
        if version.event_references_have_hashes:
            event["event_id"] = f"$join{next(_numbers)}:{peer.name}"
        event["hashes"] = {"sha256": content_hash(event)}
        join = parse_pdu(sign_event(event, version, peer.name, peer.key), version)
        path = f"/_matrix/federation/v2/send_join/{quote(room_id, safe='')}/{quote(join.event_id, safe='')}"
        answer = (await peer.ask(server_name, "PUT", path, join.json)).ok()
        return cls(peer, server_name, room_id, join, answer)

    def event(self, type: str = "m.room.message", content: Any = None, **changes: Any) -> Pdu:
        """An event of the intruder's that stands on the join, or differs as it is told to."""
        auth = [self.state["m.room.power_levels", ""], self.join]
        if not self.version.room_id_is_create_event_hash:
            auth.insert(0, self.state["m.room.create", ""])
        fields: dict[str, Any] = {
            "room_version": self.version,
            "room_id": self.room_id,
            "type": type,
            "sender": self.user_id,
            "state_key": None,
            "content": {"body": "boo", "msgtype": "m.text"} if content is None else content,
            "prev_events": [self.join.reference],
            "auth_events": [pdu.reference for pdu in auth],
            "depth": self.join.depth + 1,
            "origin_server_ts": int(time.time() * 1000),
            "server_name": self.peer.name,
            "signing_key": self.peer.key,
            "opaque_id": f"event{next(_numbers)}",
        }
        return build_pdu(**{**fields, **changes})

    async def send(self, *events: Any, edus: Any = (), transaction_id: str | None = None) -> Answer:
        """A transaction with these events, Pdus or their JSON."""
        content = {
            "origin": self.peer.name,
            "origin_server_ts": int(time.time() * 1000),
            "pdus": [event.json if isinstance(event, Pdu) else event for event in events],
            "edus": list(edus),
        }
        path = f"/_matrix/federation/v1/send/{transaction_id or f'txn{next(_numbers)}'}"
        return await self.peer.ask(self.server_name, "PUT", path, content)


async def is_shown(user: User, room_id: str, event_id: str) -> bool:
    """Whether members of the room see an event."""
    answer = await user.in_room("GET", room_id, f"event/{quote(event_id, safe='')}")
    return answer.status == 200


@pytest.fixture
async def alice(weft: Homeserver) -> User:
    """Who has the rooms."""
    return await weft.register()


async def enter(alice: User, peer: Peer, version: str = "11", **options: Any) -> Intruder:
    """A room of Alice's with an intruder."""
    room_id = await alice.create_room(preset="public_chat", room_version=version, **options)
    return await Intruder.enter(peer, alice.homeserver, room_id)


@pytest.mark.parametrize("version", ["1", "3", "6", "11", "12"])
async def test_good_events_come_in(alice: User, peer: Peer, version: str) -> None:
    intruder = await enter(alice, peer, version)
    event = intruder.event()
    assert (await intruder.send(event)).ok() == {"pdus": {event.event_id: {}}}
    assert await is_shown(alice, intruder.room_id, event.event_id)


async def test_an_event_without_its_signature_is_dropped(alice: User, peer: Peer) -> None:
    intruder = await enter(alice, peer)
    stranger = SigningKey("peer", b"s" * 32)
    for event in (intruder.event(signing_key=stranger), intruder.event(signing_key=SigningKey("other", b"o" * 32))):
        result = (await intruder.send(event)).ok()["pdus"][event.event_id]
        assert "has not signed" in result["error"]
        assert not await is_shown(alice, intruder.room_id, event.event_id)


async def test_an_event_of_somebody_else_is_dropped(alice: User, peer: Peer) -> None:
    intruder = await enter(alice, peer)
    for sender in (alice.user_id, "@somebody:elsewhere.test"):
        event = intruder.event(sender=sender)
        assert "error" in (await intruder.send(event)).ok()["pdus"][event.event_id]
        assert not await is_shown(alice, intruder.room_id, event.event_id)


async def test_an_event_with_another_hash_is_redacted(alice: User, peer: Peer) -> None:
    intruder = await enter(alice, peer)
    event = intruder.event()
    changed = {**event.json, "content": {"body": "something else", "msgtype": "m.text"}}
    assert (await intruder.send(changed)).ok() == {"pdus": {event.event_id: {}}}
    shown = (await alice.in_room("GET", intruder.room_id, f"event/{quote(event.event_id, safe='')}")).ok()
    assert shown["content"] == {}


@pytest.mark.parametrize(
    "content", [{"body": 1.5}, {"body": 2**60}, {"body": "x" * 66_000}], ids=["float", "huge", "long"]
)
async def test_events_that_no_room_can_have_are_dropped(alice: User, peer: Peer, content: dict[str, Any]) -> None:
    intruder = await enter(alice, peer)
    event = {**intruder.event().json, "content": content}
    event["hashes"] = {"sha256": content_hash(event)}
    event = sign_event(event, intruder.version, peer.name, peer.key)
    (result,) = (await intruder.send(event)).ok()["pdus"].values()
    assert "error" in result
    timeline = await page_through(alice, intruder.room_id, "b", limit=50)
    assert all(shown["type"] != "m.room.message" for shown in timeline)


async def test_power_that_one_does_not_have_is_not_taken(alice: User, peer: Peer) -> None:
    intruder = await enter(alice, peer)
    levels = intruder.state["m.room.power_levels", ""].content
    event = intruder.event(
        "m.room.power_levels", {**levels, "users": {intruder.user_id: 100}}, state_key="", depth=2**40
    )
    assert (await intruder.send(event)).ok() == {"pdus": {event.event_id: {}}}  # rejecting is no error
    assert not await is_shown(alice, intruder.room_id, event.event_id)
    assert (await state_event(alice, intruder.room_id, "m.room.power_levels")).ok() == levels
    after = intruder.event(prev_events=[event.reference])
    assert (await intruder.send(after)).ok() == {"pdus": {after.event_id: {}}}
    assert await is_shown(alice, intruder.room_id, after.event_id)  # "should be allowed if they still pass"


async def test_who_is_banned_cannot_speak_from_before_the_ban(alice: User, peer: Peer) -> None:
    intruder = await enter(alice, peer)
    (await alice.in_room("POST", intruder.room_id, "ban", {"user_id": intruder.user_id})).ok()
    event = intruder.event()
    assert (await intruder.send(event)).ok() == {"pdus": {event.event_id: {}}}  # soft failure is no error
    assert not await is_shown(alice, intruder.room_id, event.event_id)


async def test_others_are_told_the_state_before_an_event_that_was_set_aside(alice: User, peer: Peer) -> None:
    intruder = await enter(alice, peer)
    (await alice.in_room("POST", intruder.room_id, "ban", {"user_id": intruder.user_id})).ok()
    leave = intruder.event("m.room.member", {"membership": "leave"}, state_key=intruder.user_id)
    assert (await intruder.send(leave)).ok() == {"pdus": {leave.event_id: {}}}
    path = f"/_matrix/federation/v1/state_ids/{quote(intruder.room_id, safe='')}"
    answer = await peer.ask(intruder.server_name, "GET", f"{path}?event_id={quote(leave.event_id, safe='')}")
    assert sorted(answer.ok()["pdu_ids"]) == sorted(
        [*(pdu.event_id for pdu in intruder.state.values()), intruder.join.event_id]
    )


async def test_auth_events_of_another_room_authorise_nothing(alice: User, peer: Peer) -> None:
    intruder = await enter(alice, peer)
    other = await enter(alice, peer)
    foreign = [other.state["m.room.create", ""], other.state["m.room.power_levels", ""], other.join]
    event = intruder.event(auth_events=[pdu.reference for pdu in foreign])
    await intruder.send(event)
    assert not await is_shown(alice, intruder.room_id, event.event_id)


async def test_predecessors_of_another_room_are_none(alice: User, peer: Peer) -> None:
    intruder = await enter(alice, peer)
    other = await enter(alice, peer)
    event = intruder.event(prev_events=[other.join.reference])
    assert "error" in (await intruder.send(event)).ok()["pdus"][event.event_id]
    assert not await is_shown(alice, intruder.room_id, event.event_id)


async def test_missing_predecessors_that_nobody_gives_end_the_matter(alice: User, peer: Peer) -> None:
    intruder = await enter(alice, peer)
    missing = [EventReference(f"${number:043}", "") for number in range(20)]
    event = intruder.event(prev_events=missing)
    before = len(peer.asked)
    assert "error" in (await intruder.send(event)).ok()["pdus"][event.event_id]
    assert len(peer.asked) - before < 10
    too_many = intruder.event(prev_events=[*missing, EventReference(f"${21:043}", "")])
    assert "error" in (await intruder.send(too_many)).ok()["pdus"][too_many.event_id]
    await alice.send(intruder.room_id, "still here")


@pytest.mark.parametrize("events", [None, "events", [1, {}, None], [{"type": "m.room.message"}] * 1000])
async def test_nonsense_for_missing_events_is_left_out(alice: User, peer: Peer, events: Any) -> None:
    intruder = await enter(alice, peer)
    room = quote(intruder.room_id, safe="")
    peer.handlers[f"/_matrix/federation/v1/get_missing_events/{intruder.room_id}"] = json({"events": events})
    peer.handlers[f"/_matrix/federation/v1/get_missing_events/{room}"] = json({"events": events})
    peer.handlers[f"/_matrix/federation/v1/state_ids/{intruder.room_id}"] = json({"pdu_ids": events})
    event = intruder.event(prev_events=[EventReference("$" + "x" * 43, "")])
    assert "error" in (await intruder.send(event)).ok()["pdus"][event.event_id]
    await alice.send(intruder.room_id, "still here")


async def test_events_that_name_themselves_and_each_other_are_dropped(alice: User, peer: Peer) -> None:
    intruder = await enter(alice, peer, "1")
    one, other = f"$one{next(_numbers)}:{peer.name}", f"$other{next(_numbers)}:{peer.name}"
    for event_id, before in ((one, one), (one, other), (other, one)):
        event = intruder.event(
            opaque_id=event_id[1:].partition(":")[0],
            prev_events=[EventReference(before, "A" * 43)],
            auth_events=[EventReference(before, "A" * 43)],
        )
        assert "error" in (await intruder.send(event)).ok()["pdus"][event.event_id]
    await alice.send(intruder.room_id, "still here")


async def test_a_room_does_not_begin_twice(alice: User, peer: Peer) -> None:
    intruder = await enter(alice, peer)
    event = intruder.event(
        "m.room.create", {"room_version": "11"}, state_key="", prev_events=[], auth_events=[], depth=1
    )
    assert "error" in (await intruder.send(event)).ok()["pdus"][event.event_id]
    assert (await state_event(alice, intruder.room_id, "m.room.create")).ok()["room_version"] == "11"


async def test_rooms_that_this_server_is_not_in_are_none_of_its_business(alice: User, peer: Peer) -> None:
    intruder = await enter(alice, peer)
    event = intruder.event(room_id=f"!elsewhere:{peer.name}")
    assert (await intruder.send(event)).ok() == {"pdus": {}}


async def test_transactions_have_a_limit(alice: User, peer: Peer) -> None:
    intruder = await enter(alice, peer)
    events = [intruder.event() for _ in range(51)]
    (await intruder.send(*events)).error(400, "M_INVALID_PARAM")
    (await intruder.send(edus=[{"edu_type": "m.typing", "content": {}}] * 101)).error(400, "M_INVALID_PARAM")
    assert not await is_shown(alice, intruder.room_id, events[0].event_id)


async def test_a_transaction_is_taken_in_once(alice: User, peer: Peer) -> None:
    intruder = await enter(alice, peer)
    event, other = intruder.event(), intruder.event(content={"body": "another"})
    first = (await intruder.send(event, transaction_id="once")).ok()
    assert (await intruder.send(other, transaction_id="once")).ok() == first
    assert not await is_shown(alice, intruder.room_id, other.event_id)


async def test_a_server_sends_few_transactions_at_once(alice: User, peer: Peer, authority: Authority) -> None:
    intruder = await enter(alice, peer)
    asked, answered = asyncio.Event(), asyncio.Event()

    async def hang(_request: web.BaseRequest) -> web.StreamResponse:
        asked.set()
        await answered.wait()
        return web.json_response({"events": []})

    peer.handlers["/_matrix/federation/v1/get_missing_events/"] = hang
    stuck = intruder.event(prev_events=[intruder.event().reference])
    first = asyncio.create_task(intruder.send(stuck, transaction_id="first"))
    await asked.wait()
    others = [asyncio.create_task(intruder.send(intruder.event())) for _ in range(MAX_RUNNING)]
    done, waiting = await asyncio.wait(others, return_when=asyncio.FIRST_COMPLETED)
    assert [one.result().json["errcode"] for one in done] == ["M_LIMIT_EXCEEDED"]
    again = asyncio.create_task(intruder.send(stuck, transaction_id="first"))  # which is none more
    async with running_peer(authority, "127.0.0.1") as other:
        honest = await Intruder.enter(other, alice.homeserver, intruder.room_id)
        assert (await honest.send(honest.event())).status == 200
    answered.set()
    assert (await first).ok() == (await again).ok()
    assert [(await one).status for one in waiting] == [200] * (MAX_RUNNING - 1)


async def test_who_was_never_there_reads_nothing(alice: User, peer: Peer) -> None:
    room_id = await alice.create_room(preset="public_chat")
    event_id = await alice.send(room_id, "among us")
    room, event = quote(room_id, safe=""), quote(event_id, safe="")
    for path in (
        f"backfill/{room}?v={event}&limit=5",
        f"state_ids/{room}?event_id={event}",
        f"state/{room}?event_id={event}",
        f"event_auth/{room}/{event}",
        f"event/{event}",
        f"timestamp_to_event/{room}?ts=0&dir=f",
    ):
        server = name_of(alice.homeserver)
        (await peer.ask(server, "GET", f"/_matrix/federation/v1/{path}")).error(403, "M_FORBIDDEN")


@pytest.mark.parametrize("version", ["5", "11"])
async def test_events_that_cannot_be_stored_are_dropped_alone(alice: User, peer: Peer, version: str) -> None:
    intruder = await enter(alice, peer, version)
    good = intruder.event()
    bad = [
        intruder.event(type="m.room\0.message"),
        intruder.event(type="m.note", state_key="a\0b", content={}),
        *([intruder.event(content={"number": 10**30})] if version == "5" else ()),
    ]
    results = (await intruder.send(*bad, good)).ok()["pdus"]
    assert [("error" in results[event.event_id]) for event in (*bad, good)] == [True] * len(bad) + [False]
    assert await is_shown(alice, intruder.room_id, good.event_id)


async def test_an_event_without_depth_does_not_hush_the_next(alice: User, peer: Peer) -> None:
    intruder = await enter(alice, peer)
    since = (await alice.sync())["next_batch"]
    shallow = intruder.event(depth=0)
    loud = intruder.event(prev_events=[shallow.reference], depth=1)
    assert (await intruder.send(shallow, loud)).ok() == {"pdus": {shallow.event_id: {}, loud.event_id: {}}}
    room = (await alice.sync(since))["rooms"]["join"][intruder.room_id]
    assert room["unread_notifications"]["notification_count"] == 2


async def test_an_event_whose_id_is_no_string_is_dropped_alone(alice: User, peer: Peer) -> None:
    intruder = await enter(alice, peer, "1")
    good = intruder.event()
    for event_id in ([], 5, None, {"a": "b"}):
        answer = await intruder.send({**intruder.event().json, "event_id": event_id}, good)
        assert answer.ok() == {"pdus": {good.event_id: {}}}


async def test_an_event_of_one_room_is_no_child_of_another_rooms(alice: User, peer: Peer) -> None:
    private = await alice.create_room()
    said = await alice.send(private, "among us")
    path = f"event/{quote(said, safe='')}"
    (await alice.in_room("GET", private, path)).ok()
    intruder = await enter(alice, peer)
    thread = {"msgtype": "m.text", "body": "me too", "m.relates_to": {"rel_type": "m.thread", "event_id": said}}
    event = intruder.event(content=thread)
    assert (await intruder.send(event)).ok() == {"pdus": {event.event_id: {}}}
    after = (await alice.in_room("GET", private, path)).ok()
    assert after["unsigned"].get("m.relations") is None


async def test_a_slow_server_keeps_nobody_from_speaking(alice: User, peer: Peer, authority: Authority) -> None:
    intruder = await enter(alice, peer)
    asked, answered = asyncio.Event(), asyncio.Event()

    async def hang(_request: web.BaseRequest) -> web.StreamResponse:
        asked.set()
        await answered.wait()
        return web.json_response({"events": []})

    peer.handlers["/_matrix/federation/v1/get_missing_events/"] = hang
    unknown = intruder.event()
    sending = asyncio.create_task(intruder.send(intruder.event(prev_events=[unknown.reference])))
    async with asyncio.timeout(5):
        await asked.wait()
        said = await alice.send(intruder.room_id, "I do not wait")
        async with running_peer(authority, "127.0.0.1") as other:  # nor do users of other servers
            honest = await Intruder.enter(other, alice.homeserver, intruder.room_id)
            good = honest.event()
            assert (await honest.send(good)).ok() == {"pdus": {good.event_id: {}}}
    assert await is_shown(alice, intruder.room_id, said)
    assert await is_shown(alice, intruder.room_id, good.event_id)
    late = asyncio.create_task(intruder.send(second := intruder.event()))
    assert not sending.done()
    assert not late.done(), "events of one server keep their order"
    answered.set()
    assert (await late).ok()["pdus"] == {second.event_id: {}}
    ((_, result),) = (await sending).ok()["pdus"].items()
    assert "error" in result


async def test_an_event_that_comes_in_many_ways_at_once_is_stored_once(alice: User, peer: Peer) -> None:
    intruder = await enter(alice, peer)
    assert alice.homeserver.running is not None
    server = alice.homeserver.running.server
    room = await server.access.access_joined_room(alice.user_id, intruder.room_id)
    content = {"membership": "join", "displayname": "Mallory"}
    event = intruder.event("m.room.member", content, state_key=intruder.user_id)
    packed = {event.event_id: Packed.of(event)}
    outliers = server.federation.outliers
    for _ in range(2):  # so that each has a connection, and the statement on it
        await asyncio.gather(*(server.events.load_ids([f"$unknown{number}"]) for number in range(4)))
    kept, also_kept, placed, answer = await asyncio.gather(
        outliers.persist(room.room, [Verified(event, frozenset())]),
        outliers.persist(room.room, [Verified(event, frozenset())]),
        outliers.persist_packed(room.room, room.version, packed),
        intruder.send(event),
    )
    assert answer.ok() == {"pdus": {event.event_id: {}}}
    assert {event.event_id} <= kept.keys() & also_kept.keys() & placed.keys()
    assert await is_shown(alice, intruder.room_id, event.event_id)
    await alice.send(intruder.room_id, "nothing has happened")


async def test_many_branches_are_brought_together_when_nobody_speaks(alice: User, peer: Peer) -> None:
    intruder = await enter(alice, peer)
    for number in range(MAX_EXTREMITIES + 2):
        await intruder.send(intruder.event(content={"body": str(number)}))
    assert alice.homeserver.running is not None
    server = alice.homeserver.running.server
    dummy_events = server.federation.dummy_events
    await dummy_events.send_due(server.clock())  # somebody might still speak
    newest = (await alice.in_room("GET", intruder.room_id, "messages", dir="b", limit=1)).ok()["chunk"][0]
    assert newest["content"] == {"body": str(MAX_EXTREMITIES + 1)}
    for _ in range(2):
        await dummy_events.send_due(server.clock() + DELAY_MS)
    newest, before = (await alice.in_room("GET", intruder.room_id, "messages", dir="b", limit=2)).ok()["chunk"]
    assert (newest["type"], newest["sender"]) == ("org.matrix.dummy_event", alice.user_id)
    assert before["content"] == {"body": str(MAX_EXTREMITIES + 1)}
    path = f"/_matrix/federation/v1/event/{quote(newest['event_id'], safe='')}"
    (event,) = (await peer.ask(name_of(alice.homeserver), "GET", path)).ok()["pdus"]
    assert len(event["prev_events"]) == MAX_EXTREMITIES + 2


@pytest.mark.parametrize("in_thread", [False, True])
async def test_what_resolution_changes_is_told_after_a_restart_too(
    alice: User, peer: Peer, authority: Authority, monkeypatch: pytest.MonkeyPatch, in_thread: bool
) -> None:
    monkeypatch.setattr(branches, "IN_THREAD_FROM_EVENTS", 0 if in_thread else 500)
    levels = {"events": {"m.room.topic": 0}, "users": {alice.user_id: 100, f"@mallory:{peer.name}": 50}}
    intruder = await enter(alice, peer, topic="old", power_level_content_override=levels)
    async with running_peer(authority, "127.0.0.1") as another:
        eve = await Intruder.enter(another, alice.homeserver, intruder.room_id)
        await eve.send(eve.event("m.room.topic", {"topic": "new"}, state_key=""))
        since = (await alice.sync())["next_batch"]
        auth = [eve.state["m.room.create", ""], eve.state["m.room.power_levels", ""], intruder.join, eve.join]
        kick = intruder.event(
            "m.room.member",
            {"membership": "leave"},
            state_key=eve.user_id,
            prev_events=[eve.join.reference],
            auth_events=[pdu.reference for pdu in auth],
            depth=eve.join.depth + 1,
        )
        (await intruder.send(kick)).ok()
        for _ in range(2):
            state = (await alice.sync(since))["rooms"]["join"][intruder.room_id]["state"]["events"]
            assert [e["content"]["topic"] for e in state if e["type"] == "m.room.topic"] == ["old"]
            assert alice.homeserver.running is not None  # the room is read anew, as after a restart
            (await alice.homeserver.running.server.access.access_room(intruder.room_id)).stale = True


async def test_a_room_that_cannot_be_resolved_holds_up_no_other(make_server: MakeServer, peer: Peer) -> None:
    few = 16
    server = await make_server(caches=Caches(rooms=few, events=few, snapshots=few, tokens=few, users=few))
    alice = await server.register()
    levels = {"events": {"m.room.topic": 0}, "users": {alice.user_id: 100, f"@mallory:{peer.name}": 50}}
    damaged = await enter(alice, peer, power_level_content_override=levels)
    other = await enter(alice, peer)
    await damaged.send(damaged.event("m.room.topic", {"topic": "one"}, state_key=""))
    for number in range(2 * few):  # until the damaged event has gone out of memory
        await alice.send(other.room_id, str(number))
    assert server.running is not None
    rules = damaged.state["m.room.join_rules", ""].event_id
    pool = server.running.server.database.pool
    await pool.execute("UPDATE events SET event_id = 'lost' WHERE event_id = $1", rules)
    lost, good = damaged.event("m.room.topic", {"topic": "two"}, state_key=""), other.event()
    results = (await damaged.send(lost, good)).ok()["pdus"]
    assert results == {lost.event_id: {"error": "Auth events of the room are missing"}, good.event_id: {}}
    assert await is_shown(alice, other.room_id, good.event_id)

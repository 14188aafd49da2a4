"""Whatever another server answers or asks, it or a user gets an orderly error, and the server goes on.

Answers and requests are good ones in which something is not as it should be, by chance: a seed says what.
"""

from __future__ import annotations

import copy
import json
import os
import random
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import quote

import pytest
from aiohttp import web

from matrix.hashes import content_hash
from matrix.room_versions import ROOM_VERSIONS
from matrix.signatures import sign_event
from tests.client import Answer, Homeserver, User
from tests.federation.peer import Peer
from tests.federation.test_hostile_events import Intruder
from tests.federation.test_hostile_rooms import Host

ROUNDS = int(os.environ.get("STRANGE_ROUNDS", "12"))
SEED = int(os.environ.get("SEED", "1"))

JUNK: tuple[Any, ...] = (
    None, True, False, 0, -1, 1.5, 2**53, 2**63, 2**64, 10**30, "", "a", "\0", "\ud800", "a" * 70_000,
    "@", "$", "!", "#",
    [], {}, [[]], [None], {"a": None}, {"": {}}, [{}] * 50, ["a"] * 50, "@a:b", "$a", "!a:b", "m.room.member",
)  # fmt: skip


def deep(levels: int) -> Any:
    value: Any = []
    for _ in range(levels):
        value = [value]
    return value


def spoiled(chance: random.Random, value: Any) -> Any:
    """The same with something in it that is not as it should be."""
    value = copy.deepcopy(value)
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        value = _spoil(chance, value)
    return value


def _spoil(chance: random.Random, value: Any) -> Any:
    if not isinstance(value, (dict, list)) or not value or chance.random() < 0.15:
        return copy.deepcopy(chance.choice((*JUNK, deep(300))))
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    key = chance.choice(keys)
    what = chance.random()
    if what < 0.12:
        del value[key]
    elif what < 0.2 and isinstance(value, list):
        value.append(copy.deepcopy(value[key]))
    elif what < 0.2:
        value[chance.choice(("a", "", "\0", "type", "room_id", "errcode"))] = chance.choice(JUNK)
    else:
        value[key] = _spoil(chance, value[key])
    return value


class Strange:
    """A peer whose answers are good but for what chance spoils of them."""

    def __init__(self, peer: Peer, alice: User, chance: random.Random) -> None:
        self.peer = peer
        self.alice = alice
        self.chance = chance
        self.user_id = f"@eve:{peer.name}"
        self.last: Any = None

    def answers(self, path: str, value: Any, status: int = 200) -> None:
        """Has requests for a path answered with something like this."""

        async def answer(_request: web.BaseRequest) -> web.StreamResponse:
            self.last = spoiled(self.chance, value)
            return web.Response(body=as_json(self.last), status=status, content_type="application/json")

        self.peer.handlers[path] = answer

    def spoils(self, path: str) -> None:
        """Spoils what a good handler answers."""
        good = self.peer.handlers[path]

        async def answer(request: web.BaseRequest) -> web.StreamResponse:
            response = await good(request)
            assert isinstance(response, web.Response)
            self.last = spoiled(self.chance, json.loads(response.text or ""))
            return web.Response(body=as_json(self.last), content_type="application/json")

        self.peer.handlers[path] = answer


def as_json(value: Any) -> bytes:
    return json.dumps(value).encode("utf-8", "surrogatepass")


V1 = "/_matrix/federation/v1"


async def ask_profile(strange: Strange) -> Answer:
    strange.answers(f"{V1}/query/profile", {"displayname": "Eve", "avatar_url": "mxc://a/b", "m.tz": "Europe/Berlin"})
    return await strange.alice.request("GET", f"profile/{strange.user_id}")


async def ask_directory(strange: Strange) -> Answer:
    room_id = f"!a:{strange.peer.name}"
    strange.answers(f"{V1}/query/directory", {"room_id": room_id, "servers": [strange.peer.name, "b.example"]})
    return await strange.alice.request("GET", f"directory/room/{quote('#a:' + strange.peer.name, safe='')}")


async def ask_public_rooms(strange: Strange) -> Answer:
    room = {"room_id": f"!a:{strange.peer.name}", "name": "A", "num_joined_members": 3, "world_readable": True,
            "guest_can_join": False, "topic": "b", "join_rule": "public"}  # fmt: skip
    rooms = {"chunk": [room, room], "next_batch": "a", "prev_batch": "b", "total_room_count_estimate": 2}
    strange.answers(f"{V1}/publicRooms", rooms)
    if strange.chance.random() < 0.5:
        return await strange.alice.request("GET", f"publicRooms?server={strange.peer.name}")
    return await strange.alice.request("POST", f"publicRooms?server={strange.peer.name}", {"filter": {}})


async def ask_hierarchy(strange: Strange) -> Answer:
    space = await strange.alice.create_room(creation_content={"type": "m.space"})
    child = f"!child{strange.chance.random()}:{strange.peer.name}"
    await strange.alice.set_state(space, "m.space.child", {"via": [strange.peer.name]}, child)
    below = {"type": "m.space.child", "state_key": f"!b:{strange.peer.name}", "content": {"via": ["a"], "order": "a"},
             "sender": strange.user_id, "origin_server_ts": 1}  # fmt: skip
    room = {"room_id": child, "num_joined_members": 1, "world_readable": True, "guest_can_join": True,
            "join_rule": "public", "room_type": "m.space", "children_state": [below], "name": "A",
            "allowed_room_ids": ["!a:b"], "room_version": "11", "encryption": "a"}  # fmt: skip
    answer = {"room": room, "children": [{**room, "children_state": []}], "inaccessible_children": ["!c:d"]}
    strange.answers(f"{V1}/hierarchy/", answer)
    return await strange.alice.request("GET", f"/_matrix/client/v1/rooms/{quote(space, safe='')}/hierarchy")


async def ask_keys(strange: Strange) -> Answer:
    user_id = strange.user_id
    device = {"user_id": user_id, "device_id": "A", "algorithms": ["a"], "keys": {"ed25519:A": "a"},
              "signatures": {user_id: {"ed25519:A": "a"}}}  # fmt: skip
    master = {"user_id": user_id, "usage": ["master"], "keys": {"ed25519:a": "a"}}
    keys = {"device_keys": {user_id: {"A": device}}, "master_keys": {user_id: master},
            "self_signing_keys": {user_id: master}}  # fmt: skip
    strange.answers(f"{V1}/user/keys/query", keys)
    devices = {
        "user_id": user_id,
        "stream_id": 5,
        "devices": [{"device_id": "A", "keys": device}],
        "master_key": master,
    }
    strange.answers(f"{V1}/user/devices/", devices)
    body = {"device_keys": {user_id: [] if strange.chance.random() < 0.5 else ["A"]}, "timeout": 2000}
    return await strange.alice.request("POST", "keys/query", body)


async def claim_keys(strange: Strange) -> Answer:
    key = {"key": "a", "signatures": {strange.user_id: {"ed25519:A": "a"}}}
    keys = {"one_time_keys": {strange.user_id: {"A": {"signed_curve25519:a": key}}}}
    strange.answers(f"{V1}/user/keys/claim", keys)
    body = {"one_time_keys": {strange.user_id: {"A": "signed_curve25519"}}, "timeout": 2000}
    return await strange.alice.request("POST", "keys/claim", body)


async def join_room(strange: Strange) -> Answer:
    host = Host(strange.peer, strange.alice.homeserver)
    paths = [path for path in strange.peer.handlers if host.room_id in path]
    strange.spoils(strange.chance.choice(paths))
    answer = await host.let_in(strange.alice)
    for sent in host.followers:
        await sent
    return answer


async def be_invited(strange: Strange) -> Answer:
    host = Host(strange.peer, strange.alice.homeserver)
    stripped = {"type": "m.room.name", "state_key": "", "content": {"name": "a"}, "sender": strange.user_id}
    state = spoiled(strange.chance, [stripped, stripped])
    strange.last = state
    try:
        return await host.invite(strange.alice.user_id, state)
    except (ValueError, TypeError, UnicodeEncodeError, RecursionError):
        return Answer(200, {}, {})  # it cannot even be signed


async def invite_to_room(strange: Strange) -> Answer:
    room_id = await strange.alice.create_room(room_version="11")

    async def sign(request: web.BaseRequest) -> web.StreamResponse:
        event = (await request.json())["event"]
        signed = sign_event(event, ROOM_VERSIONS["11"], strange.peer.name, strange.peer.key)
        return web.json_response({"event": signed})

    strange.peer.handlers[f"/_matrix/federation/v2/invite/{room_id}/"] = sign
    strange.spoils(f"/_matrix/federation/v2/invite/{room_id}/")
    return await strange.alice.in_room("POST", room_id, "invite", {"user_id": strange.user_id})


async def fill_gap(strange: Strange) -> Answer:
    room_id = await strange.alice.create_room(preset="public_chat", room_version="11")
    intruder = await Intruder.enter(strange.peer, strange.alice.homeserver, room_id)
    before = intruder.event()
    topic = intruder.event("m.room.member", {"membership": "join", "displayname": "E"}, state_key=intruder.user_id)
    event = intruder.event(prev_events=[before.reference], auth_events=[
        pdu.reference for pdu in (intruder.state["m.room.create", ""], intruder.state["m.room.power_levels", ""], topic)
    ])  # fmt: skip
    state = [pdu.json for pdu in intruder.state.values()]
    ids = [pdu.event_id for pdu in intruder.state.values()]
    strange.answers(f"{V1}/get_missing_events/", {"events": [before.json]})
    strange.answers(f"{V1}/event_auth/{room_id}/", {"auth_chain": [*state, topic.json]})
    strange.answers(f"{V1}/state_ids/", {"pdu_ids": ids, "auth_chain_ids": ids})
    strange.answers(f"{V1}/state/", {"pdus": state, "auth_chain": state})
    strange.answers(f"{V1}/event/", {"pdus": [topic.json], "origin": strange.peer.name, "origin_server_ts": 1})
    answer = await intruder.send(event)
    await strange.alice.send(room_id, "still here")
    return answer


async def read_history(strange: Strange) -> Answer:
    host = Host(strange.peer, strange.alice.homeserver)
    (await host.let_in(strange.alice)).ok()
    for sent in host.followers:
        await sent
    pdus = [pdu.json for pdu in host.state]
    strange.answers(f"{V1}/backfill/", {"pdus": pdus, "origin": strange.peer.name, "origin_server_ts": 1})
    ids = [pdu.event_id for pdu in host.state]
    strange.answers(f"{V1}/state_ids/", {"pdu_ids": ids, "auth_chain_ids": ids})
    strange.answers(f"{V1}/timestamp_to_event/", {"event_id": ids[0], "origin_server_ts": 1})
    answer = await strange.alice.in_room("GET", host.room_id, "messages?dir=b")
    assert answer.status < 500 or answer.status in (502, 504), (answer.status, answer.json)
    path = f"/_matrix/client/v1/rooms/{quote(host.room_id, safe='')}/timestamp_to_event?ts=1&dir=b"
    return await strange.alice.request("GET", path)


Ask = Callable[[Strange], Awaitable[Answer]]
ASKS: list[Ask] = [
    ask_profile, ask_directory, ask_public_rooms, ask_hierarchy, ask_keys, claim_keys, join_room, be_invited,
    invite_to_room, fill_gap, read_history,
]  # fmt: skip


@pytest.mark.parametrize("ask", ASKS, ids=lambda ask: ask.__name__)
async def test_any_answer_is_borne(weft: Homeserver, peer: Peer, ask: Ask, capsys: pytest.CaptureFixture[str]) -> None:
    alice = await weft.register()
    for number in range(ROUNDS):
        seed = SEED * 10_000 + number
        strange = Strange(peer, alice, random.Random(seed))
        answer = await ask(strange)
        shown = f"seed {seed}: {answer.status} {answer.json} after {str(strange.last)[:2000]}"
        assert answer.status in (200, 400, 403, 404, 429, 502, 504), shown
        printed = "".join(capsys.readouterr())
        assert "Traceback" not in printed, f"{shown}\n{printed}"
    (await alice.request("GET", "account/whoami")).ok()


def edus(intruder: Intruder, alice: User) -> list[dict[str, Any]]:
    """One of every type."""
    user_id, room_id = intruder.user_id, intruder.room_id
    receipt = {"data": {"ts": 1, "thread_id": "main"}, "event_ids": [intruder.join.event_id]}
    key = {"user_id": user_id, "usage": ["master"], "keys": {"ed25519:a": "a"}}
    presence = {"user_id": user_id, "presence": "online", "last_active_ago": 5, "currently_active": True}
    messages = {alice.user_id: {"*": {"a": 1}}}
    update = {"user_id": user_id, "device_id": "A", "stream_id": 2, "prev_id": [1], "keys": {"a": 1}, "deleted": False}
    return [
        {"edu_type": "m.typing", "content": {"room_id": room_id, "user_id": user_id, "typing": True}},
        {"edu_type": "m.receipt", "content": {room_id: {"m.read": {user_id: receipt}}}},
        {"edu_type": "m.presence", "content": {"push": [presence]}},
        {
            "edu_type": "m.direct_to_device",
            "content": {"message_id": "1", "sender": user_id, "type": "a", "messages": messages},
        },
        {"edu_type": "m.device_list_update", "content": update},
        {
            "edu_type": "m.signing_key_update",
            "content": {"user_id": user_id, "master_key": key, "self_signing_key": key},
        },
    ]


def requests(intruder: Intruder, alice: User, chance: random.Random) -> tuple[str, str, Any]:
    """A request with a good body: method, path below /_matrix/federation, body."""
    room, join = quote(intruder.room_id, safe=""), intruder.join
    event_id = quote(join.event_id, safe="")
    member = intruder.event("m.room.member", {"membership": "leave"}, state_key=intruder.user_id).json
    stripped = {"type": "m.room.name", "state_key": "", "content": {"name": "a"}, "sender": intruder.user_id}
    invite = {"room_version": "11", "event": member, "invite_room_state": [stripped]}
    transaction = {
        "origin": intruder.peer.name,
        "origin_server_ts": 1,
        "pdus": [intruder.event().json, intruder.event("m.room.topic", {"topic": "a"}, state_key="").json],
        "edus": edus(intruder, alice),
    }
    onbind = {
        "medium": "email",
        "address": "a@b.c",
        "mxid": alice.user_id,
        "invites": [
            {
                "address": "a@b.c",
                "medium": "email",
                "mxid": alice.user_id,
                "room_id": intruder.room_id,
                "sender": alice.user_id,
                "signed": {"mxid": alice.user_id, "token": "a", "signatures": {"a": {"ed25519:0": "a"}}},
            }
        ],
    }
    found: list[tuple[str, str, Any]] = [
        ("PUT", f"v1/send/strange{chance.random()}", transaction),
        ("PUT", f"v1/send/strange{chance.random()}", {**transaction, "pdus": []}),
        ("PUT", f"v2/invite/{room}/{event_id}", invite),
        ("PUT", f"v1/invite/{room}/{event_id}", member),
        ("PUT", f"v2/send_join/{room}/{event_id}", join.json),
        ("PUT", f"v1/send_join/{room}/{event_id}", join.json),
        ("PUT", f"v2/send_leave/{room}/{event_id}", member),
        ("PUT", f"v1/send_knock/{room}/{event_id}", member),
        (
            "PUT",
            f"v1/exchange_third_party_invite/{room}",
            {
                **member,
                "content": {
                    "membership": "invite",
                    "third_party_invite": {"display_name": "a", "signed": onbind["invites"][0]["signed"]},
                },
            },
        ),
        ("PUT", "v1/3pid/onbind", onbind),
        (
            "POST",
            f"v1/get_missing_events/{room}",
            {"earliest_events": [], "latest_events": [join.event_id], "limit": 10, "min_depth": 0},
        ),
        ("POST", "v1/user/keys/query", {"device_keys": {alice.user_id: ["A"]}}),
        ("POST", "v1/user/keys/claim", {"one_time_keys": {alice.user_id: {"A": "signed_curve25519"}}}),
        (
            "POST",
            "v1/publicRooms",
            {"limit": 5, "filter": {"generic_search_term": "a", "room_types": [None, "a"]}, "since": "a"},
        ),
    ]
    return chance.choice(found)


async def test_any_request_is_borne(weft: Homeserver, peer: Peer, capsys: pytest.CaptureFixture[str]) -> None:
    alice = await weft.register()
    room_id = await alice.create_room(preset="public_chat", room_version="11")
    intruder = await Intruder.enter(peer, weft, room_id)
    for number in range(6 * ROUNDS):
        seed = SEED * 10_000 + number
        chance = random.Random(seed)
        method, path, good = requests(intruder, alice, chance)
        body = spoiled(chance, good)
        if isinstance(body, dict) and "type" in body and chance.random() < 0.5:
            body = signed_if_possible(body, peer)
        try:
            answer = await peer.ask(intruder.server_name, method, f"/_matrix/federation/{path}", body)
        except (ValueError, TypeError, RecursionError):  # it cannot be signed
            continue
        shown = f"seed {seed}: {method} {path} {answer.status} {answer.json} after {str(body)[:2000]}"
        assert answer.status in (200, 400, 401, 403, 404, 413, 429), shown
        printed = "".join(capsys.readouterr())
        assert "Traceback" not in printed, f"{shown}\n{printed}"
    await alice.send(room_id, "still here")
    (await alice.request("GET", "sync")).ok()


def signed_if_possible(event: dict[str, Any], peer: Peer) -> dict[str, Any]:
    """An event with the hash and the signature that belong to it as it is."""
    try:
        hashed = {**event, "hashes": {"sha256": content_hash(event)}}
        return sign_event(hashed, ROOM_VERSIONS["11"], peer.name, peer.key)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return event

"""A server of the benchmark's own: it signs, answers on a port of loopback, and does next to nothing.

As the resident server it describes rooms with as many users as are wanted (`PeerRoom`); as a guest it joins rooms of
the server that is measured, and makes events there (`Guest`).
"""

from __future__ import annotations

import contextlib
import itertools
import ssl
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final
from urllib.parse import quote, unquote

import orjson
from aiohttp import web

from benchmarks.authority import Authority
from benchmarks.http_client import Connection, Response, checked, request_bytes
from benchmarks.servers import Homeserver
from matrix.pdu import EventReference, Pdu, build_pdu, parse_pdu
from matrix.request_authentication import sign_request
from matrix.room_versions import ROOM_VERSIONS
from matrix.signatures import SigningKey, hash_and_sign_event, sign_json

FEDERATION: Final = "/_matrix/federation"
VERSION: Final = ROOM_VERSIONS["12"]
_KEY_VALID_MS: Final = 24 * 3600 * 1000


def now_ms() -> int:
    """The time in milliseconds since the epoch."""
    return int(time.time() * 1000)


class Peer:
    """A server with a key of its own, which answers what servers ask of a resident server. `rooms` are by room ID."""

    def __init__(self, name: str, key: SigningKey, tls: ssl.SSLContext) -> None:
        self.name = name
        self.key = key
        self._tls = tls
        self.rooms: dict[str, PeerRoom] = {}
        self.received_transactions = 0
        self._numbers = itertools.count(1)

    def connect(self, server: Homeserver) -> Connection:
        """A connection to another server, to be used in an `async with`."""
        return Connection(server.federation_port, self._tls)

    def request(self, server: Homeserver, method: str, path: str, content: Any = None) -> bytes:
        """A signed request to another server, ready to be sent.

        https://spec.matrix.org/v1.19/server-server-api/#request-authentication
        """
        signature = sign_request(
            method, path, origin=self.name, destination=server.server_name, content=content, key=self.key
        )
        return request_bytes(method, path, content=content, authorization=str(signature))

    def transaction(self, server: Homeserver, events: Sequence[Pdu]) -> bytes:
        """https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv1sendtxnid"""
        content = {"origin": self.name, "origin_server_ts": now_ms(), "pdus": [event.json for event in events]}
        return self.request(server, "PUT", f"{FEDERATION}/v1/send/{next(self._numbers)}", content)

    def event(self, room_id: str | None, type: str, user: str, content: Any, **changes: Any) -> Pdu:
        """An event of a user of this server, signed. `changes` has what `build_pdu` wants besides."""
        fields = {
            "state_key": None,
            "origin_server_ts": now_ms(),
            "server_name": self.name,
            "signing_key": self.key,
        }
        return build_pdu(
            room_version=VERSION, room_id=room_id, type=type, sender=user, content=content, **{**fields, **changes}
        )

    def keys(self) -> dict[str, Any]:
        """https://spec.matrix.org/v1.19/server-server-api/#publishing-keys"""
        keys = {
            "server_name": self.name,
            "valid_until_ts": now_ms() + _KEY_VALID_MS,
            "verify_keys": {self.key.key_id: {"key": self.key.public_key_base64}},
            "old_verify_keys": {},
        }
        return sign_json(keys, self.name, self.key)

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answers a request; whose it is and how it is signed is of no account here."""
        parts = [unquote(part) for part in request.raw_path.partition("?")[0].split("/")[2:]]
        match parts:
            case ["key", "v2", "server"]:
                return web.json_response(self.keys())
            case ["federation", "v1", "send", _]:
                await request.read()
                self.received_transactions += 1
                return web.json_response({"pdus": {}})
            case ["federation", _, operation, room_id, *rest] if (room := self.rooms.get(room_id)) is not None:
                body = room.answer(operation, rest, request.query, await request.read())
                if body is not None:
                    return web.Response(body=body, content_type="application/json")
            case ["federation", "v1", "event", event_id]:
                for room in self.rooms.values():
                    if (found := room.event_bytes(event_id)) is not None:
                        return web.Response(body=found, content_type="application/json")
        return web.json_response({"errcode": "M_NOT_FOUND", "error": "Not here"}, status=404)


@contextlib.asynccontextmanager
async def running_peer(authority: Authority, number: int) -> AsyncIterator[Peer]:
    """A peer that answers inside the `async with`, named as the servers are: `localhost` and a port."""
    holder: list[Peer] = []

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        return await holder[0].answer(request)

    runner = web.ServerRunner(web.Server(handle, access_log=None))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=authority.server_context("localhost"))
    await site.start()
    try:
        tls = ssl.create_default_context(cafile=authority.ca_file)
        key = SigningKey.from_seed("bench", bytes([number]) * 32)
        holder.append(Peer(f"localhost:{runner.addresses[0][1]}", key, tls))
        yield holder[0]
    finally:
        await runner.cleanup()


class PeerRoom:
    """A public room on a peer, all of whose members are users of the peer, each having joined it once."""

    def __init__(self, peer: Peer, members: int) -> None:
        self._peer = peer
        self._last: Pdu | None = None
        creator = f"@creator:{peer.name}"
        create = self._make(None, "m.room.create", creator, {"room_version": VERSION.identifier}, "")
        self.room_id = create.room_id
        join = {"membership": "join"}
        joined = self._make(self.room_id, "m.room.member", creator, join, creator, [])
        levels = self._make(self.room_id, "m.room.power_levels", creator, {}, "", [joined])
        basis = [levels, joined]
        rules = self._make(self.room_id, "m.room.join_rules", creator, {"join_rule": "public"}, "", basis)
        name = self._make(self.room_id, "m.room.name", creator, {"name": f"{members} members"}, "", basis)
        self._join_auth = [levels, rules]
        self.events = [create, joined, levels, rules, name]
        self._kept = len(self.events)
        """As many events, the first ones, are told also to those who want no members."""
        for number in range(members - 1):
            user = f"@ghost{number}:{peer.name}"
            content = {**join, "displayname": f"Ghost {number}"}
            self.events.append(self._make(self.room_id, "m.room.member", user, content, user, self._join_auth))
        self._index = {event.event_id: number for number, event in enumerate(self.events)}
        self._encoded = [orjson.dumps(event.json) for event in self.events]
        self._joins: dict[str, bytes] = {}
        peer.rooms[self.room_id] = self

    def _make(
        self, room_id: str | None, type: str, user: str, content: Any, state_key: str, auth: Sequence[Pdu] = ()
    ) -> Pdu:
        """The next event of the room."""
        last = self._last
        self._last = self._peer.event(
            room_id,
            type,
            user,
            content,
            state_key=state_key,
            prev_events=[] if last is None else [last.reference],
            auth_events=[event.reference for event in auth],
            depth=1 if last is None else last.depth + 1,
        )
        return self._last

    def answer(self, operation: str, rest: Sequence[str], query: Any, body: bytes) -> bytes | None:
        """The body that is answered to an operation on the room; None for one that is not known.

        https://spec.matrix.org/v1.19/server-server-api/#joining-rooms and the sections on room state and backfilling
        """
        match operation:
            case "make_join":
                return orjson.dumps(self._template(rest[0]))
            case "send_join":
                self._joins[rest[0]] = body
                return self._welcome(body, omit_members=query.get("omit_members") == "true")
            case "state_ids":
                ids = [event.event_id for event in self.events[: self._before(query)]]
                return orjson.dumps({"pdu_ids": ids, "auth_chain_ids": ids[: self._kept]})
            case "state":
                pdus, chain = self._encoded[: self._before(query)], self._encoded[: self._kept]
                return b'{"pdus":[%b],"auth_chain":[%b]}' % (b",".join(pdus), b",".join(chain))
            case "event_auth":
                return b'{"auth_chain":[%b]}' % b",".join(self._encoded[: self._kept])
            case "get_missing_events":
                return b'{"events":[]}'
            case "backfill":
                upto = min((self._index.get(event_id, len(self.events)) for event_id in query.getall("v")), default=0)
                pdus = self._encoded[max(0, upto - int(query["limit"])) : upto + 1][::-1]
                return b'{"origin":"%b","origin_server_ts":%d,"pdus":[%b]}' % (
                    self._peer.name.encode(),
                    now_ms(),
                    b",".join(pdus),
                )
        return None

    def _before(self, query: Any) -> int:
        """How many of the events are the state before the one that is asked for: all, where that is a join of late."""
        return self._index.get(query["event_id"], len(self.events))

    def event_bytes(self, event_id: str) -> bytes | None:
        """https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1eventeventid"""
        number = self._index.get(event_id)
        event = self._joins.get(event_id) if number is None else self._encoded[number]
        if event is None:
            return None
        return b'{"origin":"%b","origin_server_ts":%d,"pdus":[%b]}' % (self._peer.name.encode(), now_ms(), event)

    def _template(self, user: str) -> dict[str, Any]:
        last = self.events[-1]
        event = {
            "type": "m.room.member",
            "room_id": self.room_id,
            "sender": user,
            "state_key": user,
            "content": {"membership": "join"},
            "prev_events": [last.event_id],
            "auth_events": [event.event_id for event in self._join_auth],
            "depth": last.depth + 1,
            "origin": self._peer.name,
            "origin_server_ts": now_ms(),
        }
        return {"room_version": VERSION.identifier, "event": event}

    def _welcome(self, join: bytes, *, omit_members: bool) -> bytes:
        """What is answered to a join, which may leave out members and then all that the state has besides.

        https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv2send_joinroomideventid
        """
        basis = self._encoded[: self._kept]
        state, chain = (basis, []) if omit_members else (self._encoded, basis)
        head = {"origin": self._peer.name, "members_omitted": omit_members, "servers_in_room": [self._peer.name]}
        parts = (orjson.dumps(head)[:-1], join, b",".join(state), b",".join(chain))
        return b'%b,"event":%b,"state":[%b],"auth_chain":[%b]}' % parts


class Guest:
    """A user of a peer in a room of the server that is measured."""

    def __init__(self, peer: Peer, server: Homeserver, join: Pdu, levels: EventReference) -> None:
        self.peer = peer
        self.server = server
        self.join = join
        self._levels = levels

    @classmethod
    async def enter(cls, peer: Peer, server: Homeserver, room_id: str, name: str) -> Guest:
        """Join a public room that the server is in."""
        join, answer = await send_join(peer, server, room_id, name, omit_members=False)
        state = [parse_pdu(event, VERSION) for event in answer.json()["state"]]
        levels = next(event for event in state if event.type == "m.room.power_levels")
        return cls(peer, server, join, levels.reference)

    def message(self, prev: Sequence[Pdu], text: str) -> Pdu:
        """A message of 60 characters that stands on these events."""
        return self.peer.event(
            self.join.room_id,
            "m.room.message",
            self.join.sender,
            {"msgtype": "m.text", "body": f"{text} ".ljust(60, "~")},
            prev_events=[event.reference for event in prev],
            auth_events=[self._levels, self.join.reference],
            depth=max(event.depth for event in prev) + 1,
        )


async def send_join(
    peer: Peer, server: Homeserver, room_id: str, name: str, *, omit_members: bool
) -> tuple[Pdu, Response]:
    """Join a user of a peer to a room that the server is in; the join and the answer to it."""
    user = f"@{name}:{peer.name}"
    async with peer.connect(server) as connection:
        path = f"{FEDERATION}/v1/make_join/{quote(room_id, safe='')}/{quote(user, safe='')}?ver={VERSION.identifier}"
        template = await fetch(connection, peer.request(server, "GET", path))
        event = {key: value for key, value in template.json()["event"].items() if key != "origin"}
        event["origin_server_ts"] = now_ms()
        join = parse_pdu(hash_and_sign_event(event, VERSION, peer.name, peer.key), VERSION)
        path = f"{FEDERATION}/v2/send_join/{quote(room_id, safe='')}/{quote(join.event_id, safe='')}"
        path += f"?omit_members={'true' if omit_members else 'false'}"
        return join, await fetch(connection, peer.request(server, "PUT", path, join.json))


async def fetch(connection: Connection, request: bytes) -> Response:
    """Send a request of a server; anything but a 200 is an `HttpError`."""
    return checked(request, await connection.fetch(request))

"""Rooms of a server that does not keep to the rules when users of this one join them.

https://spec.matrix.org/v1.19/server-server-api/#joining-rooms
"""

from __future__ import annotations

import asyncio
import itertools
import time
from typing import Any
from urllib.parse import quote

import pytest
from aiohttp import web

from matrix.pdu import Pdu, build_pdu, parse_pdu
from matrix.room_versions import ROOM_VERSIONS
from tests.client import Answer, Homeserver, User
from tests.client_api.support import state_event
from tests.federation.conftest import name_of
from tests.federation.peer import Peer

VERSION = ROOM_VERSIONS["11"]
_numbers = itertools.count(1)


class Host:
    """A public room on a peer, which lets in whoever asks. A join stands on `newest`."""

    def __init__(self, peer: Peer, homeserver: Homeserver) -> None:
        self.peer = peer
        self.server_name = name_of(homeserver)
        self.user_id = f"@host:{peer.name}"
        self.room_id = f"!room{next(_numbers)}:{peer.name}"
        create = self.event("m.room.create", {"room_version": "11"}, [], [])
        member = self.event("m.room.member", {"membership": "join"}, [create], [create], state_key=self.user_id)
        rules = self.event("m.room.join_rules", {"join_rule": "public"}, [member], [create, member])
        self.state = [create, member, rules]
        self.newest = rules
        self.template: dict[str, Any] = {"room_version": "11"}
        self.invites_meanwhile = False
        self.followers: list[asyncio.Task[Answer]] = []
        peer.handlers[f"/_matrix/federation/v1/make_join/{self.room_id}/"] = self._make_join
        peer.handlers[f"/_matrix/federation/v2/send_join/{self.room_id}/"] = self._send_join

    def event(self, type: str, content: Any, before: list[Pdu], auth: list[Pdu], *, state_key: str | None = "") -> Pdu:
        """An event of the room's creator."""
        return build_pdu(
            room_version=VERSION,
            room_id=self.room_id,
            type=type,
            sender=self.user_id,
            state_key=state_key,
            content=content,
            prev_events=[pdu.reference for pdu in before],
            auth_events=[pdu.reference for pdu in auth],
            depth=max((pdu.depth for pdu in before), default=0) + 1,
            origin_server_ts=int(time.time() * 1000),
            server_name=self.peer.name,
            signing_key=self.peer.key,
        )

    async def _make_join(self, request: web.BaseRequest) -> web.StreamResponse:
        user_id = request.path.rpartition("/")[2]
        event = {
            "type": "m.room.member",
            "room_id": self.room_id,
            "sender": user_id,
            "state_key": user_id,
            "content": {"membership": "join"},
            "prev_events": [self.newest.event_id],
            "auth_events": [self.state[0].event_id, self.state[2].event_id],
            "depth": self.newest.depth + 1,
        }
        return web.json_response({"event": event, **self.template})

    async def _send_join(self, request: web.BaseRequest) -> web.StreamResponse:
        join = parse_pdu(await request.json(), VERSION)
        message = {"msgtype": "m.text", "body": "welcome"}
        self.welcome = self.event("m.room.message", message, [join], self.state[:2], state_key=None)
        content = {"origin": self.peer.name, "origin_server_ts": 0, "pdus": [self.welcome.json]}
        path = f"/_matrix/federation/v1/send/welcome{next(_numbers)}"
        sending = asyncio.create_task(self.peer.ask(self.server_name, "PUT", path, content))
        self.followers.append(sending)
        if self.invites_meanwhile:
            self.followers.append(asyncio.create_task(self.invite(join.sender)))
        await asyncio.wait([sending], timeout=0.3)  # a server that waited for the join would not have answered yet
        state = [pdu.json for pdu in self.state]
        return web.json_response({"origin": self.peer.name, "event": join.json, "state": state, "auth_chain": state})

    async def invite(self, user_id: str, room_state: list[Any] | None = None) -> Answer:
        """An invitation of a user of the server."""
        create, member, rules = self.state[:3]
        event = self.event("m.room.member", {"membership": "invite"}, [rules], [create, member], state_key=user_id)
        self.invitation = event
        content = {"room_version": "11", "event": event.json, "invite_room_state": room_state or []}
        path = f"/_matrix/federation/v2/invite/{quote(self.room_id, safe='')}/{quote(event.event_id, safe='')}"
        return await self.peer.ask(self.server_name, "PUT", path, content)

    async def let_in(self, user: User) -> Answer:
        """A join by a user of the server."""
        return await user.request("POST", f"join/{quote(self.room_id, safe='')}?via={self.peer.name}", {})


@pytest.fixture
async def alice(weft: Homeserver) -> User:
    """Who joins."""
    return await weft.register()


async def test_what_follows_a_join_at_once_is_not_lost(alice: User, peer: Peer) -> None:
    host = Host(peer, alice.homeserver)
    (await host.let_in(alice)).ok()
    assert [(await sent).ok() for sent in host.followers] == [{"pdus": {host.welcome.event_id: {}}}]
    shown = await alice.in_room("GET", host.room_id, f"event/{quote(host.welcome.event_id, safe='')}")
    assert shown.ok()["content"]["body"] == "welcome"


@pytest.mark.parametrize("version", [[], {}, 11, None])
async def test_a_template_of_no_room_version_is_refused(alice: User, peer: Peer, version: object) -> None:
    host = Host(peer, alice.homeserver)
    host.template = {"room_version": version}
    assert (await host.let_in(alice)).status == 502


async def test_a_room_that_was_left_is_joined_again_after_a_bad_answer(alice: User, peer: Peer) -> None:
    host = Host(peer, alice.homeserver)
    (await host.let_in(alice)).ok()
    (await alice.in_room("POST", host.room_id, "leave", {})).ok()
    banned = host.event(
        "m.room.member", {"membership": "ban"}, host.state[-1:], host.state[:2], state_key=alice.user_id
    )
    good, host.state = host.state, [*host.state, banned]
    assert (await host.let_in(alice)).status in (403, 502)
    host.state = good
    (await host.let_in(alice)).ok()
    assert (await state_event(alice, host.room_id, "m.room.member", alice.user_id)).ok()["membership"] == "join"
    await alice.send(host.room_id, "here again")


async def test_an_invitation_does_not_take_back_the_join_that_is_under_way(alice: User, peer: Peer) -> None:
    host = Host(peer, alice.homeserver)
    host.invites_meanwhile = True
    (await host.let_in(alice)).ok()
    for sent in host.followers:
        (await sent).ok()
    rooms = (await alice.sync())["rooms"]
    assert host.room_id in rooms["join"]
    assert "invite" not in rooms


async def test_an_invitation_may_tell_of_a_room_what_can_be_kept(alice: User, peer: Peer) -> None:
    host = Host(peer, alice.homeserver)
    huge = [
        {"type": "m.huge", "state_key": str(n), "sender": host.user_id, "content": {"x": "y" * 90_000}}
        for n in range(9)
    ]
    name = {"type": "m.room.name", "state_key": "", "sender": host.user_id, "content": {"name": "Here"}}
    number = {"type": "m.number", "state_key": "", "sender": host.user_id, "content": {"number": 10**30}}
    (await host.invite(alice.user_id, [number, *huge, name, 5])).ok()
    events = (await alice.sync())["rooms"]["invite"][host.room_id]["invite_state"]["events"]
    assert [event["type"] for event in events] == ["m.huge", "m.huge", "m.room.name", "m.room.member"]

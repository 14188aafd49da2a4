"""What erased accounts wrote, as servers are served it that come into a room later.

https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3accountdeactivate
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest

from benchmarks.authority import Authority
from matrix.pdu import parse_pdu
from matrix.room_versions import ROOM_VERSIONS
from tests.client import Homeserver, User
from tests.client_api.test_erasure import SECRET, deactivate
from tests.federation.conftest import name_of
from tests.federation.peer import Peer, running_peer
from tests.federation.test_hostile_events import Intruder


@pytest.fixture
async def alice(weft: Homeserver) -> User:
    """Who has the room."""
    return await weft.register()


async def served(peer: Peer, user: User, room_id: str, event_id: str) -> dict[str, dict[str, Any]]:
    """The contents of an event, and of the user's member event in a state, by every way in which a server gets them."""
    room, event = quote(room_id, safe=""), quote(event_id, safe="")
    name, v1, found = name_of(user.homeserver), "/_matrix/federation/v1", {}
    state = (await peer.ask(name, "GET", f"{v1}/state/{room}?event_id={event}")).ok()["pdus"]
    chain = (await peer.ask(name, "GET", f"{v1}/event_auth/{room}/{event}")).ok()["auth_chain"]
    for way, events in (("state", state), ("chain", chain)):
        found[way] = next(e["content"] for e in events if e.get("state_key") == user.user_id)
    for way in (f"event/{event}", f"backfill/{room}?v={event}&limit=1"):
        (pdu,) = (await peer.ask(name, "GET", f"{v1}/{way}")).ok()["pdus"]
        assert parse_pdu(pdu, ROOM_VERSIONS["12"]).event_id == event_id
        found[way] = pdu["content"]
    return found


async def test_servers_that_come_later_are_served_redacted_copies(
    alice: User, peer: Peer, authority: Authority
) -> None:
    room_id = await alice.create_room(preset="public_chat", room_version="12")
    bob = await alice.homeserver.register()
    await bob.join(room_id)
    await Intruder.enter(peer, alice.homeserver, room_id)
    event_id = await bob.send(room_id, SECRET)
    before = await served(peer, bob, room_id, event_id)
    assert list(before.values())[2:] == [SECRET] * 2
    await deactivate(bob, erase=True)
    assert await served(peer, bob, room_id, event_id) == before
    async with running_peer(authority, "127.0.0.1") as late:
        joined = await Intruder.enter(late, alice.homeserver, room_id)
        assert joined.state["m.room.member", bob.user_id].content == {"membership": "leave"}
        after = await served(late, bob, room_id, event_id)
        assert list(after.values()) == [{"membership": "join"}] * 2 + [{}] * 2

"""Rooms that let in the members of other rooms, as another server tries them.

https://spec.matrix.org/v1.19/server-server-api/#restricted-rooms
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest

from matrix.hashes import compute_event_id
from matrix.room_versions import ROOM_VERSIONS
from matrix.signatures import hash_and_sign_event
from tests.client import Answer, Homeserver, User
from tests.client_api.support import state_event
from tests.federation.conftest import MakeServer, name_of
from tests.federation.peer import Peer
from tests.federation.test_chat import expect_event, two_users
from tests.federation.test_sending import join

VERSION = ROOM_VERSIONS["12"]


@pytest.fixture
async def alice(weft: Homeserver) -> User:
    """Who has the rooms."""
    return await weft.register()


async def restricted_room(alice: User, *allowed: str, invite: int = 0) -> str:
    """A room of Alice's that members of other rooms may join."""
    allow = [{"type": "m.room_membership", "room_id": room_id} for room_id in allowed]
    rules = {"type": "m.room.join_rules", "state_key": "", "content": {"join_rule": "restricted", "allow": allow}}
    return await alice.create_room(initial_state=[rules], power_level_content_override={"invite": invite})


async def make_join(peer: Peer, alice: User, room_id: str) -> Answer:
    path = f"{quote(room_id, safe='')}/{quote(f'@eve:{peer.name}', safe='')}?ver=12"
    return await peer.ask(name_of(alice.homeserver), "GET", f"/_matrix/federation/v1/make_join/{path}")


async def send_join(peer: Peer, alice: User, event: dict[str, Any]) -> Answer:
    signed = hash_and_sign_event({**event, "origin_server_ts": 1}, VERSION, peer.name, peer.key)
    path = f"{quote(event['room_id'], safe='')}/{quote(compute_event_id(signed, VERSION), safe='')}"
    return await peer.ask(name_of(alice.homeserver), "PUT", f"/_matrix/federation/v2/send_join/{path}", signed)


async def test_who_is_in_none_of_the_rooms_is_not_let_in_at_the_second_step_either(alice: User, peer: Peer) -> None:
    lobby = await alice.create_room(preset="public_chat")
    room_id = await restricted_room(alice, lobby)
    (await make_join(peer, alice, room_id)).error(403, "M_FORBIDDEN")
    await join(peer, alice, lobby)
    template = (await make_join(peer, alice, room_id)).ok()["event"]
    assert template["content"]["join_authorised_via_users_server"] == alice.user_id
    (await alice.in_room("POST", lobby, "kick", {"user_id": f"@eve:{peer.name}"})).ok()
    (await send_join(peer, alice, template)).error(403, "M_FORBIDDEN")
    assert (await alice.in_room("GET", room_id, "joined_members")).ok()["joined"].keys() == {alice.user_id}


async def test_what_a_room_was_that_everybody_here_has_left_lets_nobody_in(alice: User, peer: Peer) -> None:
    lobby = await alice.create_room(preset="public_chat")
    room_id = await restricted_room(alice, lobby)
    await join(peer, alice, lobby)
    (await alice.in_room("POST", lobby, "leave", {})).ok()
    (await make_join(peer, alice, room_id)).error(400, "M_UNABLE_TO_AUTHORISE_JOIN")


async def test_who_cannot_let_them_in_says_that_others_may(alice: User, peer: Peer) -> None:
    lobby = await alice.create_room(preset="public_chat")
    room_id = await restricted_room(alice, lobby)
    await join(peer, alice, lobby)
    bob = await alice.homeserver.register()
    (await alice.in_room("POST", room_id, "invite", {"user_id": bob.user_id})).ok()
    (await bob.in_room("POST", room_id, "join", {})).ok()
    await alice.set_state(room_id, "m.room.power_levels", {"invite": 50})
    (await alice.in_room("POST", room_id, "leave", {})).ok()
    (await make_join(peer, alice, room_id)).error(400, "M_UNABLE_TO_GRANT_JOIN")


async def test_another_server_lets_in_whom_their_own_cannot(make_server: MakeServer) -> None:
    alice, bob = await two_users(make_server)
    carol = await bob.homeserver.register()
    lobby = await alice.create_room(preset="public_chat")
    room_id = await restricted_room(alice, lobby, invite=50)
    via = f"?via={name_of(alice.homeserver)}"
    for user in (bob, carol):
        (await user.request("POST", f"join/{quote(room_id, safe='')}{via}", {})).error(403, "M_FORBIDDEN")
        (await user.request("POST", f"join/{quote(lobby, safe='')}{via}", {})).ok()
        await expect_event(alice, lobby, await user.send(lobby, "here I am"))
        (await user.request("POST", f"join/{quote(room_id, safe='')}{via}", {})).ok()
        joined = (await state_event(user, room_id, "m.room.member", user.user_id)).ok()
        assert joined["join_authorised_via_users_server"] == alice.user_id

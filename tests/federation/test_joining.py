"""Users of one server in rooms of another, https://spec.matrix.org/v1.19/server-server-api/#joining-rooms."""

from __future__ import annotations

import asyncio
from urllib.parse import quote

import pytest

from matrix.room_versions import ROOM_VERSIONS
from tests.client_api.support import state_event
from tests.federation.conftest import MakeServer, name_of


@pytest.mark.parametrize("version", ROOM_VERSIONS)
async def test_a_user_joins_a_room_of_another_server(make_server: MakeServer, version: str) -> None:
    here, there = await make_server("localhost"), await make_server("127.0.0.1")
    alice, bob = await here.register("alice"), await there.register("bob")
    room_id = await alice.create_room(preset="public_chat", room_version=version, name="Far away")
    since = (await bob.sync())["next_batch"]
    joined = await bob.request("POST", f"join/{quote(room_id, safe='')}?via={name_of(here)}", {})
    assert joined.ok() == {"room_id": room_id}
    assert (await state_event(bob, room_id, "m.room.name")).ok() == {"name": "Far away"}
    assert (await state_event(alice, room_id, "m.room.member", bob.user_id)).ok()["membership"] == "join"
    room = (await bob.sync(since))["rooms"]["join"][room_id]
    state = {(event["type"], event["state_key"]) for event in room["state"]["events"]}
    assert ("m.room.create", "") in state
    assert ("m.room.member", alice.user_id) in state
    assert [event["state_key"] for event in room["timeline"]["events"]] == [bob.user_id]
    await bob.send(room_id, "hello")


async def test_two_users_of_one_server_join_at_once(make_server: MakeServer) -> None:
    here, there = await make_server("localhost"), await make_server("127.0.0.1")
    alice, bob, carol = await here.register("alice"), await there.register("bob"), await there.register("carol")
    room_id = await alice.create_room(preset="public_chat")
    path = f"join/{quote(room_id, safe='')}?via={name_of(here)}"
    for joined in await asyncio.gather(*(user.request("POST", path, {}) for user in (bob, carol))):
        joined.ok()
    for user in (bob, carol):
        assert (await state_event(user, room_id, "m.room.member", user.user_id)).ok()["membership"] == "join"
        await user.send(room_id, "hello")

"""Two servers that talk over TLS: questions, answers, and what becomes of those that are not rightly signed."""

from __future__ import annotations

from urllib.parse import quote

import pytest

from homeserver.services.remote import RemoteRefused
from tests.federation.conftest import MakeServer, name_of, network_of


async def test_a_server_answers_another(make_server: MakeServer) -> None:
    one, two = await make_server("localhost"), await make_server("127.0.0.1")
    alice = await one.register("alice")
    await alice.request("PUT", f"profile/{quote(alice.user_id)}/displayname", {"displayname": "Älice"})
    room_id = await alice.create_room(room_alias_name="meadow", preset="public_chat")
    bob = await two.register("bob")
    profile = (await bob.request("GET", f"profile/{quote(alice.user_id)}")).ok()
    assert profile == {"displayname": "Älice"}
    found = (await bob.request("GET", f"directory/room/{quote(f'#meadow:{name_of(one)}')}")).ok()
    assert found == {"room_id": room_id, "servers": [name_of(one)]}
    (await bob.request("GET", f"directory/room/{quote(f'#moor:{name_of(one)}')}")).error(404, "M_NOT_FOUND")
    (await bob.request("GET", f"profile/{quote('@nobody:' + name_of(one))}")).error(404, "M_NOT_FOUND")
    with pytest.raises(RemoteRefused) as refusal:
        await network_of(two).transport.request(name_of(one), "GET", "/_matrix/federation/v1/query/weather")
    assert (refusal.value.status, refusal.value.errcode) == (404, "M_NOT_FOUND")

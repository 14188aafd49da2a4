"""Questions that users of one server have about users, aliases and rooms of another."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest

from config.schema import RateLimit, RateLimits
from homeserver.services.remote import RemoteRefused
from tests.client import Homeserver, User
from tests.federation.conftest import MakeServer, name_of, network_of
from tests.federation.peer import Peer, json, raw

QUERY = "/_matrix/federation/v1/query"
ROOMS = "/_matrix/federation/v1/publicRooms"


@pytest.fixture
async def alice(weft: Homeserver) -> User:
    return await weft.register()


async def look_up(user: User, user_id: str, field: str = "") -> Any:
    return await user.request("GET", f"profile/{quote(user_id)}{field}")


async def test_a_server_answers_another(make_server: MakeServer) -> None:
    one, two = await make_server("localhost"), await make_server("127.0.0.1")
    alice, bob = await one.register("alice"), await two.register("bob")
    await alice.request("PUT", f"profile/{quote(alice.user_id)}/displayname", {"displayname": "Älice"})
    meadow = await alice.create_room(room_alias_name="meadow", preset="public_chat", visibility="public", name="Meadow")
    space = await alice.create_room(visibility="public", name="Space", creation_content={"type": "m.space"})

    assert (await look_up(bob, alice.user_id)).ok() == {"displayname": "Älice"}
    assert (await look_up(bob, alice.user_id, "/displayname")).ok() == {"displayname": "Älice"}
    (await look_up(bob, alice.user_id, "/avatar_url")).error(404, "M_NOT_FOUND")
    (await look_up(bob, "@nobody:" + name_of(one))).error(404, "M_NOT_FOUND")

    found = (await bob.request("GET", f"directory/room/{quote(f'#meadow:{name_of(one)}')}")).ok()
    assert found == {"room_id": meadow, "servers": [name_of(one)]}
    (await bob.request("GET", f"directory/room/{quote(f'#moor:{name_of(one)}')}")).error(404, "M_NOT_FOUND")

    listed = (await bob.request("GET", "publicRooms", server=name_of(one), limit=1)).ok()
    assert listed["total_room_count_estimate"] == 2
    more = (await bob.request("GET", "publicRooms", server=name_of(one), since=listed["next_batch"])).ok()
    assert {room["room_id"] for room in listed["chunk"] + more["chunk"]} == {meadow, space}
    (await bob.request("GET", "publicRooms", server=name_of(one), since="nonsense")).error(400, "M_INVALID_PARAM")
    for options, expected in (
        ({"filter": {"generic_search_term": "mead"}}, [meadow]),
        ({"filter": {"room_types": ["m.space"]}}, [space]),
        ({"filter": {"room_types": [None]}}, [meadow]),
        ({"third_party_instance_id": "irc"}, []),
    ):
        answer = (await bob.request("POST", "publicRooms", options, server=name_of(one))).ok()
        assert [room["room_id"] for room in answer["chunk"]] == expected
    assert (await bob.request("GET", "publicRooms")).ok()["chunk"] == []


async def test_questions_are_answered_as_the_specification_says(weft: Homeserver, peer: Peer, alice: User) -> None:
    name = name_of(weft)
    whole = {"displayname": alice.user_id[1:].partition(":")[0], "org.example.x": [1]}
    for field, value in whole.items():
        (await alice.request("PUT", f"profile/{quote(alice.user_id)}/{field}", {field: value})).ok()

    async def ask(what: str, **query: str) -> Any:
        fields = "&".join(f"{key}={quote(value, safe='')}" for key, value in query.items())
        return await peer.ask(name, "GET", f"{QUERY}/{what}" + (f"?{fields}" if fields else ""))

    assert (await ask("profile", user_id=alice.user_id)).ok() == whole
    assert (await ask("profile", user_id=alice.user_id, field="org.example.x")).ok() == {"org.example.x": [1]}
    (await ask("profile", user_id=alice.user_id, field="m.tz")).error(404, "M_NOT_FOUND")
    (await ask("profile", user_id=f"@nobody:{name}")).error(404, "M_NOT_FOUND")
    (await ask("profile", user_id="@alice:other.example")).error(400, "M_INVALID_PARAM")
    (await ask("profile", user_id=f"@a\0:{name}")).error(400, "M_INVALID_PARAM")
    (await ask("profile")).error(400, "M_MISSING_PARAM")
    (await ask("directory", room_alias=f"#nowhere:{name}")).error(404, "M_NOT_FOUND")
    (await ask("directory", room_alias="#a:other.example")).error(400, "M_INVALID_PARAM")
    (await ask("directory", room_alias="nonsense")).error(400, "M_INVALID_PARAM")
    (await ask("directory")).error(400, "M_MISSING_PARAM")
    (await ask("weather")).error(404, "M_NOT_FOUND")
    (await peer.ask(name, "POST", ROOMS, {"limit": -1})).error(400, "M_INVALID_PARAM")
    (await peer.ask(name, "POST", ROOMS, [])).error(400, "M_BAD_JSON")
    (await peer.ask(name, "GET", f"{ROOMS}?include_all_networks=true&third_party_instance_id=x")).error(
        400, "M_INVALID_PARAM"
    )


async def test_an_error_of_another_server_is_told_apart(make_server: MakeServer) -> None:
    one, two = await make_server("localhost"), await make_server("127.0.0.1")
    with pytest.raises(RemoteRefused) as refusal:
        await network_of(two).transport.request(name_of(one), "GET", f"{QUERY}/weather")
    assert (refusal.value.status, refusal.value.errcode) == (404, "M_NOT_FOUND")


@pytest.mark.parametrize(
    ("handler", "status"),
    [
        (json({"errcode": "M_FORBIDDEN", "error": "No"}, status=403), 404),
        (json({"errcode": "M_UNKNOWN", "error": "No"}, status=500), 502),
        (json(["a"]), 404),
        (raw(b"nonsense"), 502),
        (json({"a": "x" * 200_000}), 502),
    ],
    ids=range(5),
)
async def test_a_profile_that_cannot_be_had_is_no_failure_of_ours(
    peer: Peer, alice: User, handler: Any, status: int
) -> None:
    peer.handlers[f"{QUERY}/profile"] = handler
    assert (await look_up(alice, f"@a:{peer.name}")).status == status


async def test_a_profile_is_kept_for_a_while(peer: Peer, alice: User) -> None:
    peer.handlers[f"{QUERY}/profile"] = json({"displayname": "A", "avatar_url": None, "org.example.x": 1.5})
    for _ in range(2):
        assert (await look_up(alice, f"@a:{peer.name}")).ok() == {"displayname": "A", "org.example.x": 1.5}
    assert peer.count(f"{QUERY}/profile") == 1


async def test_where_an_alias_leads_is_checked(peer: Peer, alice: User) -> None:
    path, alias = f"{QUERY}/directory", f"directory/room/{quote(f'#a:{peer.name}')}"
    for answer in ([], {}, {"room_id": "nonsense", "servers": []}, {"room_id": "!a:b.example", "servers": "x"}):
        peer.handlers[path] = json(answer)
        (await alice.request("GET", alias)).error(502, "M_UNKNOWN")
    peer.handlers[path] = json({"room_id": "!a:b.example", "servers": ["b.example", 1, "a b", "b.example"]})
    assert (await alice.request("GET", alias)).ok() == {"room_id": "!a:b.example", "servers": ["b.example", peer.name]}


async def test_a_list_of_rooms_is_checked(peer: Peer, alice: User) -> None:
    good = {"room_id": "!a:b.example", "num_joined_members": 1, "world_readable": True, "guest_can_join": False}
    for answer in ([], {}, {"chunk": {}}, {"chunk": [1]}, {"chunk": [], "next_batch": 1}):
        peer.handlers[ROOMS] = json(answer)
        (await alice.request("GET", "publicRooms", server=peer.name)).error(502, "M_UNKNOWN")
    rooms = [
        {**good, "name": "A", "evil": "x"},
        {**good, "room_id": "nonsense"},
        {**good, "num_joined_members": "many"},
        {**good, "topic": {}},
        {},
    ]
    peer.handlers[ROOMS] = json({"chunk": rooms, "total_room_count_estimate": 9, "evil": 1})
    answer = (await alice.request("GET", "publicRooms", server=peer.name)).ok()
    assert answer == {"chunk": [{**good, "name": "A"}], "total_room_count_estimate": 9}
    peer.handlers[ROOMS] = json({"errcode": "M_FORBIDDEN", "error": "No"}, status=403)
    (await alice.request("POST", "publicRooms", {}, server=peer.name)).error(403, "M_FORBIDDEN")
    (await alice.request("GET", "publicRooms", server="a b")).error(400, "M_INVALID_PARAM")


async def test_strangers_may_not_send_this_server_around_without_end(make_server: MakeServer, peer: Peer) -> None:
    limits = RateLimits(federation=RateLimit(0.001, 5), join=RateLimit(0.001, 1))
    weft = await make_server(rate_limits=limits)
    for user, status in (("a", 404), ("a", 429), ("b", 404)):  # by user, as for one's own
        uri = f"/_matrix/federation/v1/make_knock/{quote('!none', safe='')}/{quote(f'@{user}:{peer.name}', safe='')}"
        assert (await peer.ask(name_of(weft), "GET", f"{uri}?ver=12")).status == status
    peer.handlers[f"{QUERY}/profile"] = peer.handlers[f"{QUERY}/directory"] = json({}, status=404)
    peer.handlers[ROOMS] = json({"chunk": []})
    client = "/_matrix/client/v3"
    (await weft.request("GET", f"{client}/profile/{quote(f'@a:{peer.name}')}")).error(404, "M_NOT_FOUND")
    (await weft.request("GET", f"{client}/directory/room/{quote(f'#a:{peer.name}')}")).error(404, "M_NOT_FOUND")
    for _ in range(3):
        (await weft.request("GET", f"{client}/publicRooms", server=peer.name)).ok()
    (await weft.request("GET", f"{client}/publicRooms", server=peer.name)).error(429, "M_LIMIT_EXCEEDED")
    (await weft.request("GET", f"{client}/profile/{quote(f'@b:{peer.name}')}")).error(429, "M_LIMIT_EXCEEDED")
    (await weft.request("GET", f"{client}/profile/{quote(f'@b:{name_of(weft)}')}")).error(404, "M_NOT_FOUND")

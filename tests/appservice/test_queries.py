"""What a service is asked: pings, users, aliases, third-party networks."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.appservice.conftest import Pair
from tests.appservice.support import Appservice, Asked, ServiceUser, ghost, listening
from tests.client_api.support import encode
from tests.conftest import StartServer

PING = "/_matrix/client/v1/appservice/{}/ping"


async def test_a_ping_comes_back(pair: Pair) -> None:
    answer = (await ServiceUser(*pair).request("POST", PING.format("bridge"), {"transaction_id": "meow"})).ok()
    assert list(answer) == ["duration_ms"]
    assert 0 <= answer["duration_ms"] < 15_000
    ping = next(asked for asked in pair.service.asked if asked.path == "/_matrix/app/v1/ping")
    assert (ping.method, ping.body, ping.token) == ("POST", {"transaction_id": "meow"}, pair.service.hs_token)
    (await ServiceUser(*pair).request("POST", PING.format("bridge"), {})).ok()


async def test_a_ping_is_for_the_service_itself(pair: Pair) -> None:
    (await ServiceUser(*pair).request("POST", PING.format("other"), {})).error(403, "M_FORBIDDEN")
    human = await pair.homeserver.register()
    (await human.request("POST", PING.format("bridge"), {})).error(403, "M_FORBIDDEN")
    sender = ServiceUser(*pair)
    for nonsense in ({"transaction_id": 5}, {"transaction_id": "x" * 256}):
        assert (await sender.request("POST", PING.format("bridge"), nonsense)).status == 400


async def test_a_ping_says_what_is_wrong(start_server: StartServer, tmp_path: Path) -> None:
    silent, refusing = Appservice("silent", url=None), Appservice("refusing")
    async with listening(refusing):
        silent.write(tmp_path)
        refusing.write(tmp_path)
        async with start_server() as homeserver:
            sender = ServiceUser(homeserver, silent)
            (await sender.request("POST", PING.format("silent"), {})).error(400, "M_URL_NOT_SET")
            refusing.answer = lambda asked: (403, {"errcode": "M_FORBIDDEN"})
            sender = ServiceUser(homeserver, refusing)
            body = (await sender.request("POST", PING.format("refusing"), {})).error(502, "M_BAD_STATUS")
            assert (body["status"], body["body"]) == (403, '{"errcode": "M_FORBIDDEN"}')
            await refusing.stop()
            body = (await sender.request("POST", PING.format("refusing"), {})).error(502, "M_CONNECTION_FAILED")
            assert refusing.hs_token not in str(body)


def queries(service: Appservice, kind: str) -> list[Asked]:
    """What was asked about users or rooms."""
    return [asked for asked in service.asked if asked.path.startswith(f"/_matrix/app/v1/{kind}/")]


async def test_a_service_makes_the_user_who_is_invited_or_looked_at(pair: Pair) -> None:
    human = await pair.homeserver.register()
    room_id = await human.create_room()

    def make_user(asked: Asked) -> Any:
        if not asked.path.startswith("/_matrix/app/v1/users/%40_bridge_made"):
            return (404, {}) if "/users/" in asked.path else None
        name = asked.path.rpartition("%40_bridge_")[2].partition("%3A")[0]
        return 200, register(name)

    async def register(name: str) -> dict[str, str]:
        await ghost(*pair, name)
        return {}

    pair.service.answer = make_user
    try:
        for user in ("made1", "absent"):
            answer = await human.in_room("POST", room_id, "invite", {"user_id": pair.service.user(user)})
            assert answer.status == (200 if user == "made1" else 404)
        answers = await asyncio.gather(
            *(human.request("GET", f"profile/{encode(pair.service.user('made2'))}") for _ in range(5))
        )
        assert {answer.status for answer in answers} == {200}
        for _ in range(3):
            (await human.request("GET", f"profile/{encode(pair.service.user('absent'))}")).error(404, "M_NOT_FOUND")
        (await human.request("GET", f"profile/{encode('@nobody:weft.test')}")).error(404, "M_NOT_FOUND")
    finally:
        pair.service.answer = lambda _: None
    asked = [asked.path.rpartition("_bridge_")[2] for asked in queries(pair.service, "users")]
    assert asked == ["made1%3Aweft.test", "absent%3Aweft.test", "made2%3Aweft.test"]


async def test_a_service_makes_the_room_of_an_alias(pair: Pair) -> None:
    human, user = await pair.homeserver.register(), await ghost(*pair, "founder")

    async def make_room() -> dict[str, str]:
        # The service itself is not asked while it looks whether it has to make the room.
        (await user.request("GET", f"directory/room/{encode('#_bridge_new:weft.test')}")).error(404, "M_NOT_FOUND")
        options = {"preset": "public_chat", "room_alias_name": "_bridge_new"}
        (await user.request("POST", "createRoom", options)).ok()
        return {}

    pair.service.answer = lambda asked: (
        ((200, make_room()) if "_bridge_new" in asked.path else (404, {})) if "/rooms/" in asked.path else None
    )
    try:
        joined = (await human.request("POST", f"join/{encode('#_bridge_new:weft.test')}", {})).ok()
        assert joined["room_id"].startswith("!")
        (await human.request("POST", f"join/{encode('#_bridge_no:weft.test')}", {})).error(404, "M_NOT_FOUND")
    finally:
        pair.service.answer = lambda _: None
    assert len(queries(pair.service, "rooms")) == 2


async def test_a_service_that_does_not_answer_is_a_timeout(start_server: StartServer, tmp_path: Path) -> None:
    service = Appservice("down")
    await service.start()
    await service.stop()
    service.write(tmp_path)
    async with start_server() as homeserver:
        human = await homeserver.register()
        (await human.request("POST", f"join/{encode('#_down_x:weft.test')}", {})).error(408, "M_UNKNOWN")


IRC = {
    "user_fields": ["network", "nickname"],
    "location_fields": ["network", "channel"],
    "icon": "mxc://example.org/aBcDeFgH",
    "field_types": {"network": {"regexp": ".*", "placeholder": "irc.example.org"}},
    "instances": [{"network_id": "freenode", "desc": "Freenode", "fields": {"network": "freenode.net"}}],
}
CHANNEL = {"alias": "#_irc_a:weft.test", "protocol": "irc", "fields": {"channel": "#a"}}
NICK = {"userid": "@_irc_a:weft.test", "protocol": "irc", "fields": {"nickname": "a"}}


@pytest.mark.parametrize("is_old", [False, True], ids=["today's paths", "older paths"])
async def test_networks_are_looked_up(start_server: StartServer, tmp_path: Path, is_old: bool) -> None:
    service, broken = Appservice("irc", protocols=["irc"]), Appservice("broken", protocols=["irc", "none"])
    prefix = "/_matrix/app/unstable/thirdparty" if is_old else "/_matrix/app/v1/thirdparty"
    answers = {f"{prefix}/protocol/irc": IRC}
    answers |= {f"{prefix}/location/irc": [CHANNEL], f"{prefix}/location": [CHANNEL]}  # type: ignore[dict-item]
    answers |= {f"{prefix}/user/irc": [NICK], f"{prefix}/user": [NICK]}  # type: ignore[dict-item]
    service.answer = lambda asked: (200, answers[asked.path]) if asked.path in answers else (404, {})
    nonsense = {
        "protocol/irc": {"instances": "no list"},
        "location/irc": b'[{"alias":"x","protocol":"irc","fields":{"x":' + b"[" * 50_000 + b"]" * 50_000 + b"}}]",
        "user/irc": b"[" + b" " * 2**21 + b"]",
        "location": b"\xff",
    }
    broken.answer = lambda asked: (200, nonsense.get(asked.path.rpartition("/thirdparty/")[2], "nonsense"))
    async with listening(service), listening(broken):
        service.write(tmp_path)
        broken.write(tmp_path)
        async with start_server() as homeserver:
            human = await homeserver.register()

            async def look_up(path: str, **query: str) -> Any:
                return await human.request("GET", f"thirdparty/{path}", **query)

            instances = [{**IRC["instances"][0], "instance_id": "freenode"}]  # type: ignore[dict-item]
            assert (await look_up("protocols")).ok() == {"irc": {**IRC, "instances": instances}}
            assert (await look_up("protocol/irc")).ok() == {**IRC, "instances": instances}
            assert (await look_up("location/irc", channel="#a", access_token="x")).ok() == [CHANNEL]
            assert (await look_up("user/irc", nickname="a")).ok() == [NICK]
            assert (await look_up("location", alias="#_irc_a:weft.test")).ok() == [CHANNEL]
            assert (await look_up("user", userid="@_irc_a:weft.test")).ok() == [NICK]
            for unknown in ("protocol/none", "protocol/x%2Fy", "location/none", "user/x"):
                (await look_up(unknown)).error(404, "M_NOT_FOUND")
            for missing in ("location", "user"):
                (await look_up(missing)).error(400, "M_MISSING_PARAM")
    searched = next(asked for asked in service.asked if asked.path == f"{prefix}/location/irc")
    expected = {"channel": "#a", "access_token": service.hs_token} if is_old else {"channel": "#a"}
    assert searched.query == expected


async def test_a_network_has_a_list_of_rooms_of_its_own(pair: Pair) -> None:
    human, sender = await pair.homeserver.register(), ServiceUser(*pair)
    listed = await human.create_room(visibility="public", name="Listed by the server")
    bridged = await human.create_room(preset="public_chat", name="Bridged")

    async def rooms(**query: Any) -> set[str]:
        answer = (await human.request("POST", "publicRooms", query)).ok()
        found = {room["room_id"] for room in answer["chunk"]}
        assert answer["total_room_count_estimate"] == len(found)
        return found

    path = f"directory/list/appservice/freenode/{encode(bridged)}"
    (await sender.request("PUT", path, {"visibility": "public"})).ok()
    assert await rooms(third_party_instance_id="freenode") == {bridged}
    assert await rooms(third_party_instance_id="other") == set()
    assert await rooms() == {listed}
    assert await rooms(include_all_networks=True) == {listed, bridged}
    (await sender.request("PUT", path, {"visibility": "private"})).ok()
    assert await rooms(third_party_instance_id="freenode") == set()
    (await human.request("PUT", path, {"visibility": "public"})).error(403, "M_FORBIDDEN")
    (await sender.request("PUT", path, {"visibility": "secret"})).error(400, "M_BAD_JSON")
    long = f"directory/list/appservice/{'x' * 256}/{encode(bridged)}"
    (await sender.request("PUT", long, {"visibility": "public"})).error(400, "M_INVALID_PARAM")
    none = "directory/list/appservice/freenode/!none:weft.test"
    (await sender.request("PUT", none, {"visibility": "public"})).error(404, "M_NOT_FOUND")
    nul = {"third_party_instance_id": "\0"}
    (await human.request("POST", "publicRooms", nul)).error(400, "M_INVALID_PARAM")

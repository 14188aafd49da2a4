"""Who a service may act as, and what is its own: https://spec.matrix.org/v1.19/application-service-api/"""

from __future__ import annotations

import pytest

from tests.appservice.conftest import Pair
from tests.appservice.support import ServiceUser, ghost
from tests.client_api.support import encode

APPLICATION_SERVICE = "m.login.application_service"


async def test_the_sender_is_there_without_being_registered(pair: Pair) -> None:
    sender = ServiceUser(*pair)
    assert (await sender.request("GET", "account/whoami")).ok() == {
        "user_id": "@bridge:weft.test",
        "is_guest": False,
    }
    assert (await sender.register()).error(400, "M_USER_IN_USE")
    room_id = (await sender.request("POST", "createRoom", {})).ok()["room_id"]
    assert (await sender.request("GET", "joined_rooms")).ok()["joined_rooms"] == [room_id]


async def test_a_user_has_to_be_registered_before_a_service_acts_as_them(pair: Pair) -> None:
    user = ServiceUser(*pair, pair.service.user("late"))
    (await user.request("GET", "account/whoami")).error(403, "M_FORBIDDEN")
    assert (await user.register(inhibit_login=True)).ok() == {"user_id": user.user_id, "home_server": "weft.test"}
    assert (await user.request("GET", "account/whoami")).ok()["user_id"] == user.user_id


async def test_a_service_acts_as_nobody_outside_of_its_namespaces(pair: Pair) -> None:
    human = await pair.homeserver.register()
    for user_id in (human.user_id, "@_bridge_x:elsewhere.test", "nonsense", "@_bridge_\0:weft.test"):
        answer = await ServiceUser(*pair, user_id).request("GET", "account/whoami")
        assert answer.status in (400, 403), answer.json


async def test_an_unknown_token_is_no_service(pair: Pair) -> None:
    query = {"user_id": pair.service.sender}
    path = "/_matrix/client/v3/account/whoami"
    answer = await pair.homeserver.request("GET", path, token="not this", **query)
    answer.error(401, "M_UNKNOWN_TOKEN")
    for kind in ("register", "login"):
        body = {"type": APPLICATION_SERVICE, "username": "_bridge_y"}
        path = f"/_matrix/client/v3/{kind}"
        (await pair.homeserver.request("POST", path, body)).error(401, "M_MISSING_TOKEN")
        (await pair.homeserver.request("POST", path, body, token="not this")).error(401, "M_UNKNOWN_TOKEN")
        human = await pair.homeserver.register()
        (await human.request("POST", kind, body)).error(401, "M_UNKNOWN_TOKEN")


@pytest.mark.parametrize(
    ("username", "errcode"),
    [
        ("other", "M_EXCLUSIVE"),
        ("_bridge_Upper", "M_INVALID_USERNAME"),
        ("", "M_INVALID_USERNAME"),
        ("_bridge_" + "x" * 300, "M_INVALID_USERNAME"),
        (None, "M_MISSING_PARAM"),
    ],
)
async def test_a_service_registers_its_own_users_alone(pair: Pair, username: str | None, errcode: str) -> None:
    body = {"type": APPLICATION_SERVICE, "username": username}
    path = "/_matrix/client/v3/register"
    (await pair.homeserver.request("POST", path, body, token=pair.service.as_token)).error(400, errcode)


async def test_people_keep_out_of_an_exclusive_namespace(pair: Pair) -> None:
    for name in ("_bridge_somebody", "bridge"):
        body = {"username": name, "password": "secret enough", "auth": {"type": "m.login.dummy"}}
        path = "/_matrix/client/v3/register"
        (await pair.homeserver.request("POST", path, body)).error(400, "M_EXCLUSIVE")
        (await pair.homeserver.request("GET", f"{path}/available", username=name)).error(400, "M_EXCLUSIVE")


async def test_a_service_logs_in_as_its_users(pair: Pair) -> None:
    user = ServiceUser(*pair, pair.service.user("login"))
    registered = (await user.register(device_id="FIRST")).ok()
    assert registered["device_id"] == "FIRST"

    async def login(name: str) -> object:
        identifier = {"type": "m.id.user", "user": name}
        body = {"type": APPLICATION_SERVICE, "identifier": identifier, "device_id": "SECOND"}
        path = "/_matrix/client/v3/login"
        return await pair.homeserver.request("POST", path, body, token=pair.service.as_token)

    token = (await login(user.user_id)).ok()["access_token"]
    whoami = await pair.homeserver.request("GET", "/_matrix/client/v3/account/whoami", token=token)
    assert whoami.ok() == {"user_id": user.user_id, "device_id": "SECOND", "is_guest": False}
    (await login("_bridge_nobody")).error(403, "M_FORBIDDEN")
    (await login("somebody")).error(400, "M_EXCLUSIVE")
    flows = (await pair.homeserver.request("GET", "/_matrix/client/v3/login")).ok()["flows"]
    assert {"type": APPLICATION_SERVICE} in flows


async def test_a_service_acts_with_a_device_of_its_user(pair: Pair) -> None:
    user = await ghost(*pair, "devices")
    (await user.request("GET", "account/whoami", device_id="NONE")).error(400, "M_UNKNOWN_DEVICE")
    made = await user.request("PUT", "devices/PHONE", {"display_name": "Telephone"})
    assert (made.status, made.json) == (201, {})
    for name in ("device_id", "org.matrix.msc3202.device_id"):
        whoami = (await user.request("GET", "account/whoami", **{name: "PHONE"})).ok()
        assert whoami["device_id"] == "PHONE"
    assert (await user.request("PUT", "devices/PHONE", {"display_name": "Handset"})).status == 200
    devices = (await user.request("GET", "devices")).ok()["devices"]
    assert [(device["device_id"], device["display_name"]) for device in devices] == [("PHONE", "Handset")]
    # Without interactive authentication, and the service no longer acts with it.
    (await user.request("DELETE", "devices/PHONE", {})).ok()
    (await user.request("GET", "account/whoami", device_id="PHONE")).error(400, "M_UNKNOWN_DEVICE")
    assert (await user.request("PUT", "devices/TABLET", {})).status == 201
    (await user.request("POST", "delete_devices", {"devices": ["TABLET"]})).ok()
    assert (await user.request("GET", "devices")).ok()["devices"] == []


async def test_people_make_no_devices(pair: Pair) -> None:
    human = await pair.homeserver.register()
    (await human.request("PUT", "devices/NEW", {"display_name": "x"})).error(404, "M_NOT_FOUND")
    assert (await human.request("DELETE", f"devices/{human.device_id}", {})).status == 401
    assert (await human.request("GET", "devices")).ok()["devices"]


async def test_a_closed_account_is_acted_as_no_longer(pair: Pair) -> None:
    user = await ghost(*pair, "closed")
    (await user.request("GET", "account/whoami")).ok()
    assert pair.homeserver.running is not None
    await pair.homeserver.running.server.deactivation.deactivate(user.user_id)
    (await user.request("GET", "account/whoami")).error(403, "M_USER_DEACTIVATED")


async def test_aliases_in_a_namespace_are_the_services(pair: Pair) -> None:
    human = await pair.homeserver.register()
    room_id = await human.create_room(preset="public_chat")
    reserved, free = encode("#_bridge_room:weft.test"), encode("#free:weft.test")
    target = {"room_id": room_id}
    (await human.request("PUT", f"directory/room/{reserved}", target)).error(400, "M_EXCLUSIVE")
    (await human.request("POST", "createRoom", {"room_alias_name": "_bridge_room"})).error(400, "M_EXCLUSIVE")
    user = await ghost(*pair, "aliases")
    (await user.request("POST", f"join/{encode(room_id)}", {})).ok()
    (await user.request("PUT", f"directory/room/{free}", target)).error(400, "M_EXCLUSIVE")
    (await user.request("PUT", f"directory/room/{reserved}", target)).ok()
    (await human.request("DELETE", f"directory/room/{reserved}")).error(400, "M_EXCLUSIVE")
    (await ServiceUser(*pair).request("DELETE", f"directory/room/{reserved}")).ok()
    assert (await human.request("GET", f"rooms/{encode(room_id)}/aliases")).ok()["aliases"] == []


async def test_a_service_says_when_an_event_was(pair: Pair) -> None:
    user, human = await ghost(*pair, "times"), await pair.homeserver.register()
    room_id = encode(await human.create_room(preset="public_chat"))
    (await user.request("POST", f"join/{room_id}", {})).ok()
    event_id = (await user.send(room_id, "long ago", "1", ts=1_000_000_000_000)).ok()["event_id"]
    event = (await human.request("GET", f"rooms/{room_id}/event/{encode(event_id)}")).ok()
    assert event["origin_server_ts"] == 1_000_000_000_000
    path = f"rooms/{room_id}/state/m.room.member/{encode(user.user_id)}"
    state = {"membership": "join", "displayname": "Then"}
    event_id = (await user.request("PUT", path, state, ts=2)).ok()["event_id"]
    event = (await human.request("GET", f"rooms/{room_id}/event/{encode(event_id)}")).ok()
    assert event["origin_server_ts"] == 2
    for nonsense in ("-1", "1.5", "x", str(2**53), "", "9" * 400):
        (await user.send(room_id, "never", "2", ts=nonsense)).error(400, "M_INVALID_PARAM")
    # For people it means nothing.
    answer = await human.in_room("PUT", room_id.replace("%21", "!"), "send/m.room.message/3", {"body": "now"}, ts=5)
    event = (await human.request("GET", f"rooms/{room_id}/event/{encode(answer.ok()['event_id'])}")).ok()
    assert event["origin_server_ts"] > 1_000_000_000_000


async def test_a_transaction_id_counts_for_each_user_and_device(pair: Pair) -> None:
    one, other = await ghost(*pair, "txn1"), await ghost(*pair, "txn2")
    human = await pair.homeserver.register()
    room_id = encode(await human.create_room(preset="public_chat"))
    for user in (one, other):
        (await user.request("POST", f"join/{room_id}", {})).ok()
    assert (await one.request("PUT", "devices/D", {})).status == 201
    first = (await one.send(room_id, "a", "same")).ok()["event_id"]
    assert (await one.send(room_id, "a", "same")).ok()["event_id"] == first
    others = {
        (await other.send(room_id, "b", "same")).ok()["event_id"],
        (await one.send(room_id, "c", "same", device_id="D")).ok()["event_id"],
    }
    assert len(others | {first}) == 3

"""https://spec.matrix.org/v1.19/client-server-api/#legacy-login and what an account's owner does with it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.client import Answer, Homeserver, User
from tests.conftest import StartServer


async def log_in(homeserver: Homeserver, user: str, password: str, **more: Any) -> Answer:
    identifier = {"type": "m.id.user", "user": user}
    body = {"type": "m.login.password", "identifier": identifier, "password": password, **more}
    return await homeserver.request("POST", "/_matrix/client/v3/login", body)


def password_auth(user: User, password: str | None = None) -> dict[str, Any]:
    localpart = user.user_id[1:].partition(":")[0]
    return {
        "type": "m.login.password",
        "identifier": {"type": "m.id.user", "user": user.user_id},
        "password": password or f"password of {localpart}",
    }


async def test_the_password_flow_is_offered(shared_homeserver: Homeserver) -> None:
    flows = (await shared_homeserver.request("GET", "/_matrix/client/v3/login")).ok()

    assert {"type": "m.login.password"} in flows["flows"]


async def test_a_user_logs_in_on_another_device(shared_homeserver: Homeserver) -> None:
    alice = await shared_homeserver.register("alice")

    answer = (await log_in(shared_homeserver, "alice", "password of alice", device_id="LAPTOP")).ok()

    assert (answer["user_id"], answer["device_id"]) == (alice.user_id, "LAPTOP")
    assert "well_known" not in answer
    laptop = User(shared_homeserver, alice.user_id, answer["access_token"], "LAPTOP")
    devices = (await laptop.request("GET", "devices")).ok()["devices"]
    assert {device["device_id"] for device in devices} == {alice.device_id, "LAPTOP"}


async def test_the_public_address_comes_with_a_login(start_server: StartServer) -> None:
    async with start_server(public_base_url="https://matrix.example.org/") as homeserver:
        await homeserver.register("alice")

        answer = (await log_in(homeserver, "alice", "password of alice")).ok()

        assert answer["well_known"] == {"m.homeserver": {"base_url": "https://matrix.example.org"}}


@pytest.mark.parametrize(
    ("body", "status", "errcode"),
    [
        ({"type": "m.login.password", "user": "nobody", "password": "x"}, 403, "M_FORBIDDEN"),
        ({"type": "m.login.password", "identifier": {"type": "m.id.user", "user": "nobody"}}, 400, "M_MISSING_PARAM"),
        ({"type": "m.login.password", "medium": "email", "address": "a@b.c", "password": "x"}, 403, "M_FORBIDDEN"),
        ({"type": "m.login.password", "user": "nobody", "password": 1}, 400, "M_BAD_JSON"),
        ({"type": "m.login.password", "password": "x"}, 400, "M_MISSING_PARAM"),
        ({"type": "org.example.login"}, 400, "M_UNKNOWN"),
        ({}, 400, "M_MISSING_PARAM"),
        ([], 400, "M_BAD_JSON"),
    ],
)
async def test_an_unusable_login_is_refused(
    shared_homeserver: Homeserver, body: Any, status: int, errcode: str
) -> None:
    (await shared_homeserver.request("POST", "/_matrix/client/v3/login", body)).error(status, errcode)


async def test_a_body_that_is_no_json_is_refused(shared_homeserver: Homeserver) -> None:
    (await shared_homeserver.request("POST", "/_matrix/client/v3/login", data=b"{")).error(400, "M_NOT_JSON")


async def test_logging_out_ends_one_session_or_all(shared_homeserver: Homeserver) -> None:
    bob = await shared_homeserver.register("bob")
    others = [
        User(shared_homeserver, bob.user_id, answer["access_token"], answer["device_id"])
        for answer in [(await log_in(shared_homeserver, "bob", "password of bob")).ok() for _ in range(2)]
    ]

    (await bob.request("POST", "logout")).ok()
    assert (await bob.request("GET", "account/whoami")).error(401, "M_UNKNOWN_TOKEN")["soft_logout"] is False
    (await others[0].request("POST", "logout/all", {})).ok()
    for other in others:
        (await other.request("GET", "account/whoami")).error(401, "M_UNKNOWN_TOKEN")


async def test_without_a_token_nobody_is_known(shared_homeserver: Homeserver) -> None:
    path = "/_matrix/client/v3/account/whoami"
    (await shared_homeserver.request("GET", path)).error(401, "M_MISSING_TOKEN")
    (await shared_homeserver.request("GET", path, token="weft_unknown")).error(401, "M_UNKNOWN_TOKEN")


async def test_a_password_is_changed_by_who_knows_it(shared_homeserver: Homeserver) -> None:
    carol = await shared_homeserver.register("carol")
    other = (await log_in(shared_homeserver, "carol", "password of carol")).ok()["access_token"]
    wanted = {"new_password": "looking glass"}

    challenge = await carol.request("POST", "account/password", wanted)
    assert challenge.status == 401
    assert challenge.json["flows"] == [{"stages": ["m.login.password"]}]
    session = {"session": challenge.json["session"]}
    wrong = {**wanted, "auth": {**password_auth(carol, "a guess"), **session}}
    (await carol.request("POST", "account/password", wrong)).error(401, "M_FORBIDDEN")
    right = {**wanted, "auth": {**password_auth(carol), **session}}
    assert (await carol.request("POST", "account/password", right)).ok() == {}

    (await carol.request("GET", "account/whoami")).ok()
    whoami = "/_matrix/client/v3/account/whoami"
    (await shared_homeserver.request("GET", whoami, token=other)).error(401, "M_UNKNOWN_TOKEN")
    (await log_in(shared_homeserver, "carol", "password of carol")).error(403, "M_FORBIDDEN")
    (await log_in(shared_homeserver, "carol", "looking glass")).ok()


async def test_other_sessions_survive_a_new_password_if_asked(shared_homeserver: Homeserver) -> None:
    dave = await shared_homeserver.register("dave")
    other = (await log_in(shared_homeserver, "dave", "password of dave")).ok()["access_token"]

    body = {"new_password": "looking glass", "logout_devices": False, "auth": password_auth(dave)}
    (await dave.request("POST", "account/password", body)).ok()

    (await shared_homeserver.request("GET", "/_matrix/client/v3/account/whoami", token=other)).ok()


async def test_a_new_password_must_be_usable(shared_homeserver: Homeserver) -> None:
    erin = await shared_homeserver.register("erin")

    (await erin.request("POST", "account/password", {})).error(400, "M_MISSING_PARAM")
    (await erin.request("POST", "account/password", {"new_password": ""})).error(400, "M_WEAK_PASSWORD")


async def test_a_deactivated_user_is_out_of_everything(shared_homeserver: Homeserver) -> None:
    frank, grace = [await shared_homeserver.register(name) for name in ("frank", "grace")]
    room_id = await grace.create_room(preset="public_chat")
    await frank.join(room_id)

    profile = f"/_matrix/client/v3/profile/{frank.user_id}"
    (await shared_homeserver.request("GET", profile)).ok()
    assert (await frank.request("POST", "account/deactivate", {})).status == 401
    body = {"auth": password_auth(frank), "erase": True}
    answer = (await frank.request("POST", "account/deactivate", body)).ok()

    assert answer == {"id_server_unbind_result": "success"}
    (await shared_homeserver.request("GET", profile)).error(404, "M_NOT_FOUND")
    (await frank.request("GET", "account/whoami")).error(401, "M_UNKNOWN_TOKEN")
    (await log_in(shared_homeserver, "frank", "password of frank")).error(403, "M_USER_DEACTIVATED")
    joined = (await grace.in_room("GET", room_id, "joined_members")).ok()["joined"]
    assert joined.keys() == {grace.user_id}
    taken = {"username": "frank", "password": "wonderland", "auth": {"type": "m.login.dummy"}}
    (await shared_homeserver.request("POST", "/_matrix/client/v3/register", taken)).error(400, "M_USER_IN_USE")

"""https://spec.matrix.org/v1.19/client-server-api/#server-administration, and what its decisions do."""

from __future__ import annotations

import hashlib
import hmac
from typing import Any

import pytest

from tests.client import Answer, Homeserver, User
from tests.conftest import SHARED_SECRET

REGISTER = "/_synapse/admin/v1/register"
LOGIN = "/_matrix/client/v3/login"


async def register_administrator(homeserver: Homeserver, name: str) -> User:
    nonce = (await homeserver.request("GET", REGISTER)).ok()["nonce"]
    signed = "\0".join([nonce, name, "wonderland", "admin"])
    mac = hmac.new(SHARED_SECRET.encode(), signed.encode(), hashlib.sha1).hexdigest()
    body = {"nonce": nonce, "username": name, "password": "wonderland", "admin": True, "mac": mac}
    made = (await homeserver.request("POST", REGISTER, body)).ok()
    return User(homeserver, made["user_id"], made["access_token"], made["device_id"])


@pytest.fixture(scope="module")
async def root(shared_homeserver: Homeserver) -> User:
    return await register_administrator(shared_homeserver, "root")


async def restrict(administrator: User, what: str, user_id: str, is_so: bool = True) -> Answer:
    name = {"suspend": "suspended", "lock": "locked"}[what]
    return await administrator.request("PUT", f"/_matrix/client/v1/admin/{what}/{user_id}", {name: is_so})


async def log_in(user: User) -> Answer:
    localpart = user.user_id[1:].partition(":")[0]
    body = {"type": "m.login.password", "user": localpart, "password": f"password of {localpart}"}
    return await user.homeserver.request("POST", LOGIN, body)


@pytest.mark.parametrize(("what", "name"), [("suspend", "suspended"), ("lock", "locked")])
async def test_an_administrator_restricts_a_user_and_looks(root: User, what: str, name: str) -> None:
    user = await root.homeserver.register()
    path = f"/_matrix/client/v1/admin/{what}/{user.user_id}"

    assert (await root.request("GET", path)).ok() == {name: False}
    for is_so in (True, True, False):
        assert (await restrict(root, what, user.user_id, is_so)).ok() == {name: is_so}
        assert (await root.request("GET", path)).ok() == {name: is_so}


@pytest.mark.parametrize(("what", "name"), [("suspend", "suspended"), ("lock", "locked")])
async def test_who_may_not_restrict_whom(root: User, what: str, name: str) -> None:
    homeserver = root.homeserver
    user = await homeserver.register()
    other_root = await register_administrator(homeserver, f"root-{what}")
    gone = await homeserver.register()
    auth = {"type": "m.login.password", "user": gone.user_id, "password": f"password of {gone.user_id[1:-10]}"}
    (await gone.request("POST", "account/deactivate", {"auth": auth})).ok()

    async def check(requester: User, user_id: str, status: int, errcode: str) -> None:
        path = f"/_matrix/client/v1/admin/{what}/{user_id}"
        (await requester.request("GET", path)).error(status, errcode)
        (await requester.request("PUT", path, {name: True})).error(status, errcode)

    await check(user, "@nobody:weft.test", 403, "M_FORBIDDEN")  # and not whether there is such a user
    await check(user, "@somebody:elsewhere.test", 403, "M_FORBIDDEN")
    await check(root, other_root.user_id, 403, "M_FORBIDDEN")
    await check(root, "@somebody:elsewhere.test", 400, "M_INVALID_PARAM")
    await check(root, "nobody", 400, "M_INVALID_PARAM")
    await check(root, "@nobody:weft.test", 404, "M_NOT_FOUND")
    await check(root, gone.user_id, 404, "M_NOT_FOUND")
    (await restrict(root, what, root.user_id)).error(403, "M_FORBIDDEN")
    path = f"/_matrix/client/v1/admin/{what}/{user.user_id}"
    (await root.request("PUT", path, {})).error(400, "M_MISSING_PARAM")
    (await root.request("PUT", path, {name: "yes"})).error(400, "M_BAD_JSON")


async def test_a_locked_user_can_log_out_and_no_more(root: User) -> None:
    alice = await root.homeserver.register()
    body = {"type": "m.login.password", "user": alice.user_id, "password": f"password of {alice.user_id[1:-10]}"}
    refreshable = (await root.homeserver.request("POST", LOGIN, {**body, "refresh_token": True})).ok()
    (await restrict(root, "lock", alice.user_id)).ok()

    for method, path in (("GET", "sync"), ("GET", "account/whoami"), ("POST", "createRoom")):
        refused = await alice.request(method, path, {} if method == "POST" else None)
        assert refused.error(401, "M_USER_LOCKED")["soft_logout"] is True
    (await log_in(alice)).error(401, "M_USER_LOCKED")
    token = {"refresh_token": refreshable["refresh_token"]}
    (await root.homeserver.request("POST", "/_matrix/client/v3/refresh", token)).error(401, "M_USER_LOCKED")

    (await restrict(root, "lock", alice.user_id, False)).ok()
    (await alice.request("GET", "account/whoami")).ok()
    (await restrict(root, "lock", alice.user_id)).ok()
    (await alice.request("POST", "logout", {})).ok()
    (await alice.request("GET", "account/whoami")).error(401, "M_UNKNOWN_TOKEN")


async def test_a_suspended_user_is_seen_no_more_and_sees_on(root: User) -> None:
    homeserver = root.homeserver
    alice, bob = await homeserver.register(), await homeserver.register()
    room_id = await alice.create_room(preset="public_chat")
    await bob.join(room_id)
    own = await alice.send(room_id, "mine")
    other_room = await bob.create_room(preset="public_chat")
    (await restrict(root, "suspend", alice.user_id)).ok()

    async def check_suspended(method: str, path: str, body: Any = None) -> None:
        (await alice.request(method, path, body)).error(403, "M_USER_SUSPENDED")

    await check_suspended("PUT", f"rooms/{room_id}/send/m.room.message/1", {"msgtype": "m.text", "body": "x"})
    await check_suspended("PUT", f"rooms/{room_id}/state/m.room.topic/", {"topic": "x"})
    await check_suspended("POST", f"join/{other_room}", {})
    await check_suspended("POST", f"rooms/{other_room}/join", {})
    await check_suspended("POST", f"knock/{other_room}", {})
    await check_suspended("POST", f"rooms/{room_id}/invite", {"user_id": root.user_id})
    await check_suspended("PUT", f"profile/{alice.user_id}/displayname", {"displayname": "x"})
    await check_suspended("POST", "createRoom", {})
    said = await bob.send(room_id, "theirs")
    await check_suspended("PUT", f"rooms/{room_id}/redact/{said}/1", {})

    synced = await alice.sync()
    assert said in [event["event_id"] for event in synced["rooms"]["join"][room_id]["timeline"]["events"]]
    (await alice.in_room("PUT", room_id, f"redact/{own}/2", {})).ok()
    (await alice.in_room("POST", room_id, "leave", {})).ok()
    (await log_in(alice)).ok()
    (await restrict(root, "suspend", alice.user_id, False)).ok()
    await alice.join(other_room)
    assert await alice.send(other_room, "back again")


async def test_who_may_moderate_is_told(root: User) -> None:
    user = await root.homeserver.register()

    capabilities = (await root.request("GET", "capabilities")).ok()["capabilities"]
    assert capabilities["m.account_moderation"] == {"suspend": True, "lock": True}
    assert "m.account_moderation" not in (await user.request("GET", "capabilities")).ok()["capabilities"]


async def test_users_and_administrators_learn_where_a_user_was_seen(root: User) -> None:
    alice, bob = await root.homeserver.register(), await root.homeserver.register()

    for requester in (alice, root):
        found = (await requester.request("GET", f"admin/whois/{alice.user_id}")).ok()
        assert found["user_id"] == alice.user_id
        (session,) = found["devices"][alice.device_id]["sessions"]
        assert session["connections"][0]["ip"] == "127.0.0.1"
        assert session["connections"][0]["last_seen"] > 0
    (await bob.request("GET", f"admin/whois/{alice.user_id}")).error(403, "M_FORBIDDEN")
    (await bob.request("GET", "admin/whois/@nobody:weft.test")).error(403, "M_FORBIDDEN")
    (await root.request("GET", "admin/whois/@nobody:weft.test")).error(404, "M_NOT_FOUND")

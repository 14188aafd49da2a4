"""https://spec.matrix.org/v1.19/client-server-api/#legacy-account-registration"""

from __future__ import annotations

import hashlib
import hmac
from typing import Any

import pytest

from config.schema import RateLimit, RateLimits, Registration
from config.secret import Secret
from tests.client import Answer, Homeserver
from tests.conftest import SHARED_SECRET, StartServer

DUMMY = {"type": "m.login.dummy"}
SHARED_SECRET_PATH = "/_synapse/admin/v1/register"


async def register(homeserver: Homeserver, body: Any, **query: Any) -> Answer:
    return await homeserver.request("POST", "/_matrix/client/v3/register", body, **query)


async def whoami(homeserver: Homeserver, token: str) -> Answer:
    return await homeserver.request("GET", "/_matrix/client/v3/account/whoami", token=token)


async def validity(homeserver: Homeserver, token: str) -> Answer:
    return await homeserver.request(
        "GET", f"/_matrix/client/v1/register/m.login.registration_token/validity?token={token}"
    )


async def test_registration_takes_interactive_authentication(shared_homeserver: Homeserver) -> None:
    wanted = {"username": "Alice", "password": "wonderland", "device_id": "PHONE"}

    challenge = await register(shared_homeserver, wanted)
    assert challenge.status == 401
    assert challenge.json.keys() == {"session", "flows", "params"}
    assert challenge.json["flows"] == [{"stages": ["m.login.dummy"]}]

    auth = {**DUMMY, "session": challenge.json["session"]}
    made = (await register(shared_homeserver, {**wanted, "auth": auth})).ok()
    assert (made["user_id"], made["device_id"]) == ("@alice:weft.test", "PHONE")
    owner = (await whoami(shared_homeserver, made["access_token"])).ok()
    assert owner == {"user_id": "@alice:weft.test", "device_id": "PHONE", "is_guest": False}


async def test_a_username_is_generated_and_login_inhibited_if_asked(shared_homeserver: Homeserver) -> None:
    made = (await register(shared_homeserver, {"password": "wonderland", "inhibit_login": True, "auth": DUMMY})).ok()

    assert made["user_id"].endswith(":weft.test")
    assert not made.keys() & {"access_token", "device_id"}


async def test_a_name_is_judged_before_authentication(shared_homeserver: Homeserver) -> None:
    await shared_homeserver.register("carol")

    for username, errcode in (("carol", "M_USER_IN_USE"), ("CAROL", "M_USER_IN_USE"), ("", "M_INVALID_USERNAME")):
        (await register(shared_homeserver, {"username": username})).error(400, errcode)
        available = "/_matrix/client/v3/register/available"
        (await shared_homeserver.request("GET", available, username=username)).error(400, errcode)
    assert (await shared_homeserver.request("GET", available, username="nobody.yet")).ok() == {"available": True}
    (await shared_homeserver.request("GET", available)).error(400, "M_MISSING_PARAM")


@pytest.mark.parametrize(
    ("body", "errcode"),
    [
        ({"auth": DUMMY}, "M_MISSING_PARAM"),
        ({"auth": DUMMY, "password": ""}, "M_WEAK_PASSWORD"),
        ({"auth": DUMMY, "password": 1}, "M_BAD_JSON"),
        ({"auth": "m.login.dummy"}, "M_BAD_JSON"),
        ({"auth": DUMMY, "password": "wonderland", "device_id": "a\0b"}, "M_INVALID_PARAM"),
        ([], "M_BAD_JSON"),
    ],
)
async def test_an_unusable_request_is_refused(shared_homeserver: Homeserver, body: Any, errcode: str) -> None:
    (await register(shared_homeserver, body)).error(400, errcode)


async def test_there_are_no_guests(shared_homeserver: Homeserver) -> None:
    (await register(shared_homeserver, {}, kind="guest")).error(403, "M_GUEST_ACCESS_FORBIDDEN")
    (await register(shared_homeserver, {}, kind="ghost")).error(400, "M_INVALID_PARAM")


async def test_a_closed_server_registers_nobody(start_server: StartServer) -> None:
    async with start_server(registration=Registration(mode="off")) as homeserver:
        (await register(homeserver, {"username": "alice"})).error(403, "M_FORBIDDEN")
        (await register(homeserver, {"password": "wonderland", "auth": DUMMY})).error(403, "M_FORBIDDEN")
        (await validity(homeserver, "t0ken")).error(403, "M_FORBIDDEN")
        (await homeserver.request("GET", SHARED_SECRET_PATH)).error(403, "M_FORBIDDEN")


async def test_a_server_with_tokens_registers_their_holders(start_server: StartServer) -> None:
    async with start_server(registration=Registration(mode="token", tokens=(Secret("t0ken"),))) as homeserver:
        wanted = {"username": "alice", "password": "wonderland"}
        assert (await validity(homeserver, "t0ken")).ok() == {"valid": True}
        assert (await validity(homeserver, "guess")).ok() == {"valid": False}
        challenge = await register(homeserver, wanted)
        assert challenge.json["flows"] == [{"stages": ["m.login.registration_token"]}]

        auth = {"type": "m.login.registration_token", "token": "guess", "session": challenge.json["session"]}
        failed = await register(homeserver, {**wanted, "auth": auth})
        failed.error(401, "M_FORBIDDEN")
        assert failed.json["flows"] == challenge.json["flows"]
        assert failed.json["session"] == challenge.json["session"]

        made = await register(homeserver, {**wanted, "auth": {**auth, "token": "t0ken"}})
        assert made.ok()["user_id"] == "@alice:weft.test"


async def test_registrations_of_an_address_are_limited(start_server: StartServer) -> None:
    limits = RateLimits(registration=RateLimit(per_second=0.001, burst=2))
    async with start_server(rate_limits=limits) as homeserver:
        for _ in range(2):
            (await register(homeserver, {"password": "wonderland", "auth": DUMMY})).ok()

        refused = await register(homeserver, {"password": "wonderland", "auth": DUMMY})

        refused.error(429, "M_LIMIT_EXCEEDED")
        assert int(refused.headers["Retry-After"]) > 0


async def test_an_administrator_is_registered_with_the_shared_secret(shared_homeserver: Homeserver) -> None:
    nonce = (await shared_homeserver.request("GET", SHARED_SECRET_PATH)).ok()["nonce"]
    signed = "\0".join([nonce, "root", "wonderland", "admin"])
    body = {
        "nonce": nonce,
        "username": "root",
        "password": "wonderland",
        "admin": True,
        "mac": hmac.new(SHARED_SECRET.encode(), signed.encode(), hashlib.sha1).hexdigest(),
    }

    (await shared_homeserver.request("POST", SHARED_SECRET_PATH, {**body, "mac": "0" * 40})).error(403, "M_FORBIDDEN")
    made = (await shared_homeserver.request("POST", SHARED_SECRET_PATH, body)).ok()

    assert made.keys() == {"user_id", "access_token", "device_id", "home_server"}
    assert (await whoami(shared_homeserver, made["access_token"])).ok()["user_id"] == "@root:weft.test"
    (await shared_homeserver.request("POST", SHARED_SECRET_PATH, body)).error(400, "M_UNKNOWN")
    (await shared_homeserver.request("POST", SHARED_SECRET_PATH, {"nonce": nonce})).error(400, "M_MISSING_PARAM")

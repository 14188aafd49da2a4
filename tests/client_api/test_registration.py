"""https://spec.matrix.org/v1.19/client-server-api/#legacy-account-registration"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from dataclasses import replace
from typing import Any

import pytest

from config.schema import Policy, RateLimit, RateLimits, Registration
from config.secret import Secret
from storage.tokens import TokenRepository
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


TERMS = Policy(policy_id="terms", version="1.2", name="Terms", url="https://example.org/terms")
TERMS_FR = replace(TERMS, language="fr", name="Conditions", url="https://example.org/conditions")


async def make_token(homeserver: Homeserver, token: str, **more: Any) -> None:
    assert homeserver.running is not None
    tokens = TokenRepository(homeserver.running.server.database.pool)
    options = {"uses_allowed": None, "now_ms": 0, "expires_ts": None, **more}
    assert await tokens.insert_registration_token(token, **options)


async def test_policies_are_accepted_before_an_account_is_made(start_server: StartServer) -> None:
    async with start_server(registration=Registration(mode="open", policies=(TERMS, TERMS_FR))) as homeserver:
        wanted = {"username": "alice", "password": "wonderland"}

        challenge = (await register(homeserver, wanted)).json

        assert challenge["flows"] == [{"stages": ["m.login.terms"]}]
        translations = {
            "en": {"name": "Terms", "url": "https://example.org/terms"},
            "fr": {"name": "Conditions", "url": "https://example.org/conditions"},
        }
        assert challenge["params"] == {"m.login.terms": {"policies": {"terms": {"version": "1.2", **translations}}}}
        (await register(homeserver, {**wanted, "auth": DUMMY})).error(401, "M_UNRECOGNIZED")
        auth = {"type": "m.login.terms", "session": challenge["session"]}
        assert (await register(homeserver, {**wanted, "auth": auth})).ok()["user_id"] == "@alice:weft.test"
        assert homeserver.running is not None
        pool = homeserver.running.server.database.pool
        assert await pool.fetchval("SELECT accepted_policies FROM users") == ["terms 1.2"]


async def test_a_use_of_a_token_is_held_until_its_registration_is_done(start_server: StartServer) -> None:
    async with start_server(registration=Registration(mode="token", policies=(TERMS,))) as homeserver:
        await make_token(homeserver, "once", uses_allowed=1)
        wanted = {"username": "alice", "password": "wonderland"}
        auth = {"type": "m.login.registration_token", "token": "once"}
        assert (await validity(homeserver, "once")).ok() == {"valid": True}

        begun = await register(homeserver, {**wanted, "auth": auth})
        assert begun.status == 401
        assert begun.json["completed"] == ["m.login.registration_token"]
        assert begun.json["flows"] == [{"stages": ["m.login.registration_token", "m.login.terms"]}]
        assert (await validity(homeserver, "once")).ok() == {"valid": False}
        other = {"username": "bob", "password": "wonderland", "auth": auth}
        (await register(homeserver, other)).error(401, "M_FORBIDDEN")

        session = {"type": "m.login.terms", "session": begun.json["session"]}
        assert (await register(homeserver, {**wanted, "auth": session})).ok()["user_id"] == "@alice:weft.test"
        assert (await validity(homeserver, "once")).ok() == {"valid": False}
        (await register(homeserver, other)).error(401, "M_FORBIDDEN")


async def test_a_token_is_never_used_more_often_than_allowed(start_server: StartServer) -> None:
    async with start_server(registration=Registration(mode="token")) as homeserver:
        await make_token(homeserver, "twice", uses_allowed=2)
        auth = {"type": "m.login.registration_token", "token": "twice"}

        answers = await asyncio.gather(
            *(register(homeserver, {"username": f"u{n}", "password": "wonderland", "auth": auth}) for n in range(6))
        )

        assert [answer.status for answer in answers].count(200) == 2
        assert {answer.json["errcode"] for answer in answers if answer.status != 200} == {"M_FORBIDDEN"}


async def test_tokens_expire(start_server: StartServer) -> None:
    async with start_server(registration=Registration(mode="token")) as homeserver:
        await make_token(homeserver, "late", expires_ts=1)
        await make_token(homeserver, "early", expires_ts=2**50)

        assert (await validity(homeserver, "late")).ok() == {"valid": False}
        assert (await validity(homeserver, "early")).ok() == {"valid": True}
        assert (await validity(homeserver, "a%00b")).ok() == {"valid": False}

"""Beside chat: OpenID, TURN, whom to turn to, third-party identifiers and networks, other ways to log in."""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from typing import Any

import pytest

from config.schema import Contact, RateLimit, RateLimits, Support, Turn
from config.secret import Secret
from tests.client import Homeserver, User
from tests.client_api.support import encode
from tests.conftest import StartServer

USERINFO = "/_matrix/federation/v1/openid/userinfo"
EMAIL = {"client_secret": "s", "email": "alice@example.org", "send_attempt": 1}
MSISDN = {"client_secret": "s", "country": "GB", "phone_number": "07700900001", "send_attempt": 1}


@pytest.fixture
async def alice(shared_homeserver: Homeserver) -> User:
    return await shared_homeserver.register()


async def test_another_service_learns_who_a_user_is(alice: User) -> None:
    homeserver = alice.homeserver
    given = (await alice.request("POST", f"user/{alice.user_id}/openid/request_token", {})).ok()
    assert given["token_type"] == "Bearer"
    assert given["matrix_server_name"] == "weft.test"
    assert given["expires_in"] == 3600

    token = given["access_token"]
    assert (await homeserver.request("GET", USERINFO, access_token=token)).ok() == {"sub": alice.user_id}
    (await homeserver.request("GET", "/_matrix/client/v3/sync", token=token)).error(401, "M_UNKNOWN_TOKEN")
    (await homeserver.request("GET", USERINFO, access_token=alice.token)).error(401, "M_UNKNOWN_TOKEN")
    (await homeserver.request("GET", USERINFO)).error(400, "M_MISSING_PARAM")


async def test_an_openid_token_is_for_oneself(alice: User) -> None:
    path = "user/@somebody:weft.test/openid/request_token"
    (await alice.request("POST", path, {})).error(403, "M_FORBIDDEN")
    (await alice.request("POST", f"user/{alice.user_id}/openid/request_token", [])).error(400, "M_BAD_JSON")


async def test_credentials_for_turn_expire(start_server: StartServer) -> None:
    uris = ("turn:turn.example.org?transport=udp", "turns:turn.example.org:443")
    limits = RateLimits(credentials=RateLimit(0.001, 1))
    turn = Turn(uris=uris, shared_secret=Secret("known to both"), lifetime_ms=3_600_000)
    async with start_server(turn=turn, rate_limits=limits) as homeserver:
        alice = await homeserver.register("alice")

        answer = (await alice.request("GET", "voip/turnServer")).ok()

        assert (answer["uris"], answer["ttl"]) == (list(uris), 3600)
        expires, _, user_id = answer["username"].partition(":")
        assert user_id == alice.user_id
        assert 3500 < int(expires) - time.time() < 3700
        mac = hmac.new(b"known to both", answer["username"].encode(), hashlib.sha1).digest()
        assert base64.b64decode(answer["password"]) == mac
        (await alice.request("GET", "voip/turnServer")).error(429, "M_LIMIT_EXCEEDED")
        path = f"user/{alice.user_id}/openid/request_token"
        (await alice.request("POST", path, {})).error(429, "M_LIMIT_EXCEEDED")
        (await alice.request("POST", "account/3pid/add", {"client_secret": "s", "sid": "1"})).error(
            429, "M_LIMIT_EXCEEDED"
        )
        bind = {"client_secret": "s", "sid": "1", "id_server": "is.example.org", "id_access_token": "t"}
        (await alice.request("POST", "account/3pid/bind", bind)).error(429, "M_LIMIT_EXCEEDED")


async def test_credentials_for_turn_may_be_fixed(start_server: StartServer) -> None:
    turn = Turn(uris=("turn:turn.example.org",), username="weft", password=Secret("fixed"))
    async with start_server(turn=turn) as homeserver:
        answer = (await (await homeserver.register("alice")).request("GET", "voip/turnServer")).ok()

        assert (answer["username"], answer["password"]) == ("weft", "fixed")


async def test_a_server_without_turn_says_so(alice: User) -> None:
    (await alice.request("GET", "voip/turnServer")).error(404, "M_NOT_FOUND")


async def test_whom_to_turn_to_is_published(start_server: StartServer) -> None:
    contacts = (
        Contact(matrix_id="@admin:example.org"),
        Contact(role="m.role.security", email_address="security@example.org"),
    )
    support = Support(contacts=contacts, page="https://example.org/help")
    async with start_server(support=support) as homeserver:
        assert (await homeserver.request("GET", "/.well-known/matrix/support")).ok() == {
            "contacts": [
                {"role": "m.role.admin", "matrix_id": "@admin:example.org"},
                {"role": "m.role.security", "email_address": "security@example.org"},
            ],
            "support_page": "https://example.org/help",
        }


async def test_a_server_that_names_nobody_says_so(shared_homeserver: Homeserver) -> None:
    (await shared_homeserver.request("GET", "/.well-known/matrix/support")).error(404, "M_NOT_FOUND")


async def test_nobody_has_a_third_party_identifier(alice: User) -> None:
    assert (await alice.request("GET", "account/3pid")).ok() == {"threepids": []}
    address = {"medium": "email", "address": "alice@example.org"}
    for operation in ("delete", "unbind"):
        answer = (await alice.request("POST", f"account/3pid/{operation}", address)).ok()
        assert answer == {"id_server_unbind_result": "no-support"}


async def test_no_third_party_identifier_can_be_added(alice: User) -> None:
    wanted: dict[str, Any] = {"client_secret": "s", "sid": "1"}
    assert (await alice.request("POST", "account/3pid/add", wanted)).status == 401
    password = f"password of {alice.user_id[1:].partition(':')[0]}"
    auth = {"type": "m.login.password", "user": alice.user_id, "password": password}
    answer = await alice.request("POST", "account/3pid/add", {**wanted, "auth": auth})
    answer.error(403, "M_THREEPID_AUTH_FAILED")
    (await alice.request("POST", "account/3pid", {"three_pid_creds": {}})).error(403, "M_THREEPID_AUTH_FAILED")
    bind = {**wanted, "id_server": "is.example.org", "id_access_token": "t"}
    (await alice.request("POST", "account/3pid/bind", bind)).error(400, "M_SERVER_NOT_TRUSTED")


@pytest.mark.parametrize(
    ("what", "errcode"),
    [
        ("account/3pid", "M_THREEPID_MEDIUM_NOT_SUPPORTED"),
        ("register", "M_THREEPID_MEDIUM_NOT_SUPPORTED"),
        ("account/password", "M_THREEPID_NOT_FOUND"),
    ],
)
async def test_no_address_is_verified(shared_homeserver: Homeserver, what: str, errcode: str) -> None:
    for medium, body in (("email", EMAIL), ("msisdn", MSISDN)):
        path = f"/_matrix/client/v3/{what}/{medium}/requestToken"
        (await shared_homeserver.request("POST", path, body)).error(400, errcode)
        (await shared_homeserver.request("POST", path, {})).error(400, "M_MISSING_PARAM")
        elsewhere = {**body, "id_server": "id.example.org", "id_access_token": "x"}
        (await shared_homeserver.request("POST", path, elsewhere)).error(400, "M_SERVER_NOT_TRUSTED")
        for wrong in ({"client_secret": "white space"}, {"client_secret": "s" * 256}, {"client_secret": ""}):
            (await shared_homeserver.request("POST", path, {**body, **wrong})).error(400, "M_INVALID_PARAM")
    for email in ("", "alice", "alice@", "@example.org", "a b@example.org", "a@b@example.org", "a\0@example.org"):
        path = f"/_matrix/client/v3/{what}/email/requestToken"
        (await shared_homeserver.request("POST", path, {**EMAIL, "email": email})).error(400, "M_INVALID_PARAM")
    path = f"/_matrix/client/v3/{what}/msisdn/requestToken"
    (await shared_homeserver.request("POST", path, {**MSISDN, "country": "England"})).error(400, "M_INVALID_PARAM")


async def test_there_are_no_other_networks(alice: User) -> None:
    assert (await alice.request("GET", "thirdparty/protocols")).ok() == {}
    reverse = (f"location?alias={encode('#a:weft.test')}", f"user?userid={encode('@a:weft.test')}")
    for path in ("protocol/irc", "location/irc", "user/irc", *reverse):
        (await alice.request("GET", f"thirdparty/{path}")).error(404, "M_NOT_FOUND")


async def test_there_are_no_other_ways_to_log_in(shared_homeserver: Homeserver) -> None:
    sso = "/_matrix/client/v3/login/sso/redirect"
    here = {"redirectUrl": "https://client.example.org/"}
    (await shared_homeserver.request("GET", sso, **here)).error(404, "M_UNRECOGNIZED")
    (await shared_homeserver.request("GET", f"{sso}/idp", **here)).error(404, "M_NOT_FOUND")
    (await shared_homeserver.request("GET", sso)).error(400, "M_MISSING_PARAM")
    (await shared_homeserver.request("GET", "/_matrix/client/v1/auth_metadata")).error(404, "M_UNRECOGNIZED")

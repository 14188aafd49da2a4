"""Logging in with tokens: https://spec.matrix.org/v1.19/client-server-api/#token-based, and JSON Web Tokens."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from config.errors import ConfigError
from config.schema import JwtLogin, RateLimit, RateLimits
from config.secret import Secret
from tests.client import Answer, Homeserver, User
from tests.conftest import StartServer

LOGIN = "/_matrix/client/v3/login"
GET_TOKEN = "/_matrix/client/v1/login/get_token"
JWT = "org.matrix.login.jwt"
SECRET = "a secret that is as long as its hash"


def password_auth(user: User) -> dict[str, Any]:
    localpart = user.user_id[1:].partition(":")[0]
    return {"type": "m.login.password", "user": user.user_id, "password": f"password of {localpart}"}


async def generate(user: User) -> Answer:
    return await user.request("POST", GET_TOKEN, {"auth": password_auth(user)})


async def log_in(homeserver: Homeserver, login_type: str, token: Any) -> Answer:
    return await homeserver.request("POST", LOGIN, {"type": login_type, "token": token})


async def test_a_user_logs_another_client_in_once(shared_homeserver: Homeserver) -> None:
    alice = await shared_homeserver.register("alice")
    flows = (await shared_homeserver.request("GET", LOGIN)).ok()["flows"]
    assert {"type": "m.login.token", "get_login_token": True} in flows
    assert (await alice.request("GET", "capabilities")).ok()["capabilities"]["m.get_login_token"] == {"enabled": True}

    challenge = await alice.request("POST", GET_TOKEN, {})
    assert challenge.status == 401
    assert challenge.json["flows"] == [{"stages": ["m.login.password"]}]
    given = (await generate(alice)).ok()
    assert given["expires_in_ms"] == 120_000

    made = (await log_in(shared_homeserver, "m.login.token", given["login_token"])).ok()
    assert made["user_id"] == alice.user_id
    assert made["device_id"] != alice.device_id
    (await log_in(shared_homeserver, "m.login.token", given["login_token"])).error(403, "M_FORBIDDEN")


@pytest.mark.parametrize(
    ("body", "status", "errcode"),
    [
        ({}, 400, "M_MISSING_PARAM"),
        ({"token": 1}, 400, "M_BAD_JSON"),
        ({"token": "guess"}, 403, "M_FORBIDDEN"),
        ({"token": "a\0b"}, 403, "M_FORBIDDEN"),
    ],
)
async def test_an_unusable_login_token_is_refused(
    shared_homeserver: Homeserver, body: Any, status: int, errcode: str
) -> None:
    (await shared_homeserver.request("POST", LOGIN, {"type": "m.login.token", **body})).error(status, errcode)


async def test_an_unusable_request_for_a_login_token_is_refused(shared_homeserver: Homeserver) -> None:
    bob = await shared_homeserver.register("bob")

    (await bob.request("POST", GET_TOKEN, {"auth": "m.login.password"})).error(400, "M_BAD_JSON")
    wrong = {"auth": {**password_auth(bob), "password": "a guess"}}
    (await bob.request("POST", GET_TOKEN, wrong)).error(401, "M_FORBIDDEN")
    (await shared_homeserver.request("POST", GET_TOKEN, {})).error(401, "M_MISSING_TOKEN")


async def test_a_deactivated_user_has_no_login_token(shared_homeserver: Homeserver) -> None:
    carol = await shared_homeserver.register("carol")
    token = (await generate(carol)).ok()["login_token"]

    (await carol.request("POST", "account/deactivate", {"auth": password_auth(carol)})).ok()

    (await log_in(shared_homeserver, "m.login.token", token)).error(403, "M_FORBIDDEN")


async def test_login_tokens_are_limited(start_server: StartServer) -> None:
    async with start_server(rate_limits=RateLimits(login_token=RateLimit(0.001, 1))) as homeserver:
        alice = await homeserver.register("alice")

        (await generate(alice)).ok()
        (await generate(alice)).error(429, "M_LIMIT_EXCEEDED")


async def test_looking_at_the_flows_is_limited(start_server: StartServer) -> None:
    async with start_server(rate_limits=RateLimits(login=RateLimit(0.001, 1))) as homeserver:
        assert {"type": "m.login.password"} in (await homeserver.request("GET", LOGIN)).ok()["flows"]
        (await homeserver.request("GET", LOGIN)).error(429, "M_LIMIT_EXCEEDED")


async def test_without_configuration_there_is_no_jwt_login(shared_homeserver: Homeserver) -> None:
    (await log_in(shared_homeserver, JWT, jwt.encode({"sub": "alice"}, SECRET))).error(400, "M_UNKNOWN")


async def test_a_signed_token_logs_in_an_account_that_is_there(start_server: StartServer) -> None:
    config = JwtLogin(enabled=True, secret=Secret(SECRET), issuer="portal", audiences=("weft", "other"))
    async with start_server(jwt_login=config) as homeserver:
        alice = await homeserver.register("alice")
        assert {"type": JWT} in (await homeserver.request("GET", LOGIN)).ok()["flows"]
        good = {"sub": "Alice", "iss": "portal", "aud": "weft", "exp": int(time.time()) + 60}

        made = (await log_in(homeserver, JWT, jwt.encode(good, SECRET))).ok()
        assert made["user_id"] == alice.user_id

        for changed in (
            {"sub": "nobody"},
            {"sub": "a\0b"},
            {"sub": ""},
            {"iss": "elsewhere"},
            {"aud": "elsewhere"},
            {"exp": int(time.time()) - 60},
            {"nbf": int(time.time()) + 60},
        ):
            (await log_in(homeserver, JWT, jwt.encode({**good, **changed}, SECRET))).error(403, "M_FORBIDDEN")
        for missing in ("sub", "iss", "aud"):
            without = {name: value for name, value in good.items() if name != missing}
            (await log_in(homeserver, JWT, jwt.encode(without, SECRET))).error(403, "M_FORBIDDEN")
        other_algorithm = jwt.encode(good, SECRET * 2, algorithm="HS512")
        unsigned = jwt.encode(good, None, algorithm="none")
        for token in (jwt.encode(good, SECRET + "x"), other_algorithm, unsigned, "nonsense", "a.b.c", "x" * 20_000):
            (await log_in(homeserver, JWT, token)).error(403, "M_FORBIDDEN")
        (await log_in(homeserver, JWT, None)).error(400, "M_MISSING_PARAM")


async def test_a_token_makes_an_account_if_configured(start_server: StartServer, tmp_path: Path) -> None:
    key = ed25519.Ed25519PrivateKey.generate()
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "public.pem").write_bytes(public)
    config = JwtLogin(
        enabled=True,
        algorithm="EdDSA",
        public_key_file=tmp_path / "public.pem",
        subject_claim="matrix",
        create_users=True,
    )
    async with start_server(jwt_login=config) as homeserver:
        token = jwt.encode({"matrix": "Dora"}, key, algorithm="EdDSA")

        for _ in range(2):
            assert (await log_in(homeserver, JWT, token)).ok()["user_id"] == "@dora:weft.test"
        unusable = jwt.encode({"matrix": "not a name"}, key, algorithm="EdDSA")
        (await log_in(homeserver, JWT, unusable)).error(403, "M_FORBIDDEN")
        (await homeserver.request("POST", LOGIN, {"type": "m.login.password", "user": "dora", "password": ""})).error(
            403, "M_FORBIDDEN"
        )


async def test_a_key_that_is_none_stops_the_start(start_server: StartServer, tmp_path: Path) -> None:
    (tmp_path / "public.pem").write_text("no key")
    config = JwtLogin(enabled=True, algorithm="RS256", public_key_file=tmp_path / "public.pem")

    with pytest.raises(ConfigError, match=r"jwt_login\.public_key_file: no key for RS256"):
        async with start_server(jwt_login=config):
            pass

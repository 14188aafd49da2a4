"""https://spec.matrix.org/v1.19/client-server-api/#refreshing-access-tokens"""

from __future__ import annotations

from typing import Any

import pytest

from config.schema import RateLimit, RateLimits, SessionLifetimes
from tests.client import Answer, Homeserver, User
from tests.conftest import StartServer

REFRESH = "/_matrix/client/v3/refresh"
WHOAMI = "/_matrix/client/v3/account/whoami"


async def log_in(homeserver: Homeserver, name: str, **more: Any) -> dict[str, Any]:
    body = {"type": "m.login.password", "user": name, "password": f"password of {name}", "refresh_token": True, **more}
    answer: dict[str, Any] = (await homeserver.request("POST", "/_matrix/client/v3/login", body)).ok()
    return answer


async def refresh(homeserver: Homeserver, token: Any) -> Answer:
    return await homeserver.request("POST", REFRESH, {"refresh_token": token})


async def test_tokens_are_refreshed(shared_homeserver: Homeserver) -> None:
    await shared_homeserver.register("alice")
    first = await log_in(shared_homeserver, "alice")
    assert first["expires_in_ms"] == 300_000

    second = (await refresh(shared_homeserver, first["refresh_token"])).ok()

    assert second.keys() == {"access_token", "refresh_token", "expires_in_ms"}
    (await shared_homeserver.request("GET", WHOAMI, token=first["access_token"])).ok()
    owner = (await shared_homeserver.request("GET", WHOAMI, token=second["access_token"])).ok()
    assert owner["device_id"] == first["device_id"]
    (await shared_homeserver.request("GET", WHOAMI, token=first["access_token"])).error(401, "M_UNKNOWN_TOKEN")
    (await refresh(shared_homeserver, first["refresh_token"])).error(401, "M_UNKNOWN_TOKEN")


async def test_registration_gives_a_refresh_token_if_asked(shared_homeserver: Homeserver) -> None:
    body = {"password": "wonderland", "auth": {"type": "m.login.dummy"}, "refresh_token": True}
    made = (await shared_homeserver.request("POST", "/_matrix/client/v3/register", body)).ok()

    (await refresh(shared_homeserver, made["refresh_token"])).ok()


async def test_who_does_not_ask_gets_none(shared_homeserver: Homeserver) -> None:
    await shared_homeserver.register("bob")

    answer = await log_in(shared_homeserver, "bob", refresh_token=False)

    assert not answer.keys() & {"refresh_token", "expires_in_ms"}


async def test_logging_out_and_in_again_ends_refresh_tokens(shared_homeserver: Homeserver) -> None:
    await shared_homeserver.register("carol")
    first = await log_in(shared_homeserver, "carol", device_id="PHONE")
    again = await log_in(shared_homeserver, "carol", device_id="PHONE")
    (await refresh(shared_homeserver, first["refresh_token"])).error(401, "M_UNKNOWN_TOKEN")

    phone = User(shared_homeserver, again["user_id"], again["access_token"], "PHONE")
    (await phone.request("POST", "logout", {})).ok()
    (await refresh(shared_homeserver, again["refresh_token"])).error(401, "M_UNKNOWN_TOKEN")


@pytest.mark.parametrize(
    ("body", "status", "errcode"),
    [
        ({}, 400, "M_MISSING_PARAM"),
        ({"refresh_token": 1}, 400, "M_BAD_JSON"),
        ({"refresh_token": "a\0b"}, 401, "M_UNKNOWN_TOKEN"),
        ([], 400, "M_BAD_JSON"),
    ],
)
async def test_an_unusable_request_is_refused(
    shared_homeserver: Homeserver, body: Any, status: int, errcode: str
) -> None:
    (await shared_homeserver.request("POST", REFRESH, body)).error(status, errcode)


async def test_an_access_token_that_expired_can_be_refreshed(start_server: StartServer) -> None:
    async with start_server(sessions=SessionLifetimes(refreshable_access_token_ms=1)) as homeserver:
        await homeserver.register("alice")
        first = await log_in(homeserver, "alice")

        expired = await homeserver.request("GET", WHOAMI, token=first["access_token"])

        assert expired.error(401, "M_UNKNOWN_TOKEN")["soft_logout"] is True
        (await refresh(homeserver, first["refresh_token"])).ok()


async def test_refreshing_is_limited(start_server: StartServer) -> None:
    limits = RateLimits(credentials=RateLimit(per_second=0.001, burst=1))
    async with start_server(rate_limits=limits) as homeserver:
        await homeserver.register("alice")
        token = (await log_in(homeserver, "alice"))["refresh_token"]

        (await refresh(homeserver, token)).ok()
        (await refresh(homeserver, token)).error(429, "M_LIMIT_EXCEEDED")

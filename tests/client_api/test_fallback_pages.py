"""https://spec.matrix.org/v1.19/client-server-api/#fallback"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

import pytest

from config.schema import Policy, RateLimit, RateLimits, Registration
from config.secret import Secret
from tests.client import Answer, Homeserver
from tests.client_api.support import encode
from tests.conftest import StartServer

REGISTER = "/_matrix/client/v3/register"
TERMS = Policy("terms", "1", "Rules & <manners>", "https://weft.test/rules?a=1&b=2")


def page_of(stage: str) -> str:
    return f"/_matrix/client/v3/auth/{stage}/fallback/web"


async def submit(homeserver: Homeserver, stage: str, **fields: str) -> Answer:
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    return await homeserver.request("POST", page_of(stage), data=urlencode(fields).encode(), headers=headers)


def is_done(answer: Answer) -> bool:
    return answer.status == 200 and "window.onAuthDone" in answer.json


async def test_a_registration_is_completed_on_pages(start_server: StartServer) -> None:
    registration = Registration(mode="token", tokens=(Secret("t0ken"),), policies=(TERMS,))
    async with start_server(registration=registration) as homeserver:
        wanted: dict[str, Any] = {"username": "alice", "password": "wonderland"}
        session = (await homeserver.request("POST", REGISTER, wanted)).json["session"]
        token_page = await homeserver.request("GET", page_of("m.login.registration_token"), session=session)
        assert session in token_page.ok()
        early = await submit(homeserver, "m.login.terms", session=session)
        assert (early.status, is_done(early)) == (401, False)
        wrong = await submit(homeserver, "m.login.registration_token", session=session, token="guess")
        assert wrong.status == 403
        assert "Invalid registration token" in wrong.json
        assert is_done(await submit(homeserver, "m.login.registration_token", session=session, token="t0ken"))
        terms = (await homeserver.request("GET", page_of("m.login.terms"), session=session)).ok()
        assert '<a href="https://weft.test/rules?a=1&amp;b=2"' in terms
        assert "Rules &amp; &lt;manners&gt;" in terms
        wanted["auth"] = {"session": session}
        halfway = await homeserver.request("POST", REGISTER, wanted)
        assert halfway.json["completed"] == ["m.login.registration_token"]
        assert is_done(await submit(homeserver, "m.login.terms", session=session))
        assert is_done(await submit(homeserver, "m.login.terms", session=session)), "once more changes nothing"
        assert (await homeserver.request("POST", REGISTER, wanted)).ok()["user_id"] == "@alice:weft.test"


async def test_a_password_page_is_for_the_user_whose_session_it_is(shared_homeserver: Homeserver) -> None:
    alice, bob = await shared_homeserver.register(), await shared_homeserver.register()
    device = f"devices/{encode(alice.device_id)}"
    session = (await alice.request("DELETE", device)).json["session"]

    async def confirm(user_id: str, password: str) -> Answer:
        return await submit(shared_homeserver, "m.login.password", session=session, user=user_id, password=password)

    name, others_name = alice.user_id[1:].partition(":")[0], bob.user_id[1:].partition(":")[0]
    for refused in (await confirm(bob.user_id, f"password of {others_name}"), await confirm(name, "wrong")):
        assert (refused.status, is_done(refused)) == (403, False)
    assert (await alice.request("DELETE", device, {"auth": {"session": session}})).status == 401
    assert is_done(await confirm(name, f"password of {name}"))
    other = await alice.request("POST", "delete_devices", {"devices": [], "auth": {"session": session}})
    assert other.status == 401, "the session is for one device"
    (await alice.request("DELETE", device, {"auth": {"session": session}})).ok()


async def test_the_dummy_stage_has_a_page_too(shared_homeserver: Homeserver) -> None:
    session = (await shared_homeserver.request("POST", REGISTER, {"password": "wonderland"})).json["session"]
    assert is_done(await submit(shared_homeserver, "m.login.dummy", session=session))
    body = {"password": "wonderland", "auth": {"session": session}}
    (await shared_homeserver.request("POST", REGISTER, body)).ok()


@pytest.mark.parametrize("session", ["", "nonsense", "a\0b", '"><script>alert(1)</script>', "{failure}"])
async def test_sessions_that_are_not_there(shared_homeserver: Homeserver, session: str) -> None:
    answer = await submit(shared_homeserver, "m.login.dummy", session=session)
    assert answer.status == 403
    assert "Unknown or expired session" in answer.json
    assert "<script>" not in answer.json
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "script-src" not in policy


async def test_pages_that_are_not_there(shared_homeserver: Homeserver) -> None:
    for stage in ("m.login.nonsense", "m.login.sso"):
        (await shared_homeserver.request("GET", page_of(stage), session="x")).error(404, "M_NOT_FOUND")
        (await submit(shared_homeserver, stage, session="x")).error(404, "M_NOT_FOUND")
    (await shared_homeserver.request("GET", page_of("m.login.dummy"))).error(400, "M_MISSING_PARAM")
    not_text = await shared_homeserver.request("POST", page_of("m.login.dummy"), data=b"session=\xff")
    not_text.error(400, "M_INVALID_PARAM")


async def test_attempts_on_pages_are_limited(start_server: StartServer) -> None:
    async with start_server(rate_limits=RateLimits(login=RateLimit(0.001, 2))) as homeserver:
        for _ in range(2):
            assert (await submit(homeserver, "m.login.registration_token", session="x", token="guess")).status == 403
        refused = await submit(homeserver, "m.login.registration_token", session="x", token="guess")
        refused.error(429, "M_LIMIT_EXCEEDED")

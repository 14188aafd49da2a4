"""https://spec.matrix.org/v1.19/client-server-api/#user-interactive-authentication-api"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from homeserver.services.accounts.interactive_auth import PASSWORD_FLOWS, SESSION_LIFETIME_MS
from homeserver.services.errors import LimitExceeded, MatrixError
from tests.accounts.conftest import Services

DUMMY = [["m.login.dummy"]]
TOKEN_THEN_DUMMY = [["m.login.registration_token", "m.login.dummy"]]
TOKEN = {"type": "m.login.registration_token", "token": "t0ken"}


async def challenge(
    services: Services, auth: Mapping[str, object] | None, flows: Sequence[Sequence[str]], operation: str = "register"
) -> dict[str, Any]:
    with pytest.raises(MatrixError) as refused:
        await services.interactive_auth.check(operation, auth, flows)
    assert refused.value.status == 401
    return refused.value.body()


async def test_a_request_without_auth_is_told_the_flows(services: Services) -> None:
    answer = await challenge(services, None, DUMMY)

    assert answer["flows"] == [{"stages": ["m.login.dummy"]}]
    assert answer["params"] == {}
    assert answer["session"]
    assert not answer.keys() & {"errcode", "error", "completed"}


async def test_a_session_completes_its_flow_once(services: Services) -> None:
    session = (await challenge(services, None, DUMMY))["session"]

    await services.interactive_auth.check("register", {"type": "m.login.dummy", "session": session}, DUMMY)

    answer = await challenge(services, {"session": session}, DUMMY)
    assert answer["session"] != session


async def test_the_first_stage_may_come_without_a_session(services: Services) -> None:
    await services.interactive_auth.check("register", {"type": "m.login.dummy"}, DUMMY)

    answer = await challenge(services, {}, DUMMY)
    assert "completed" not in answer


async def test_stages_are_completed_one_after_another(services: Services) -> None:
    services = Services(services.database, mode="token")
    first = await challenge(services, TOKEN, TOKEN_THEN_DUMMY)
    assert first["completed"] == ["m.login.registration_token"]
    assert "errcode" not in first

    again = await challenge(services, {**TOKEN, "session": first["session"]}, TOKEN_THEN_DUMMY)
    assert (again["session"], again["completed"]) == (first["session"], first["completed"])

    last = {"type": "m.login.dummy", "session": first["session"]}
    await services.interactive_auth.check("register", last, TOKEN_THEN_DUMMY)


async def test_a_stage_out_of_order_is_refused(services: Services) -> None:
    answer = await challenge(services, {"type": "m.login.dummy"}, TOKEN_THEN_DUMMY)

    assert answer["errcode"] == "M_UNRECOGNIZED"
    assert "completed" not in answer


async def test_a_failed_stage_may_be_tried_again_in_the_same_session(services: Services) -> None:
    services = Services(services.database, mode="token")
    flows = services.registration.flows
    session = (await challenge(services, None, flows))["session"]

    failed = await challenge(services, {**TOKEN, "token": "guess", "session": session}, flows)

    assert (failed["errcode"], failed["session"]) == ("M_FORBIDDEN", session)
    await services.interactive_auth.check("register", {**TOKEN, "session": session}, flows)


async def test_what_a_session_completed_counts_for_its_own_operation_alone(services: Services) -> None:
    services = Services(services.database, mode="token")
    session = (await challenge(services, TOKEN, TOKEN_THEN_DUMMY))["session"]

    answer = await challenge(services, {"session": session}, TOKEN_THEN_DUMMY, operation="deactivateAccount")

    assert answer["session"] != session
    assert "completed" not in answer
    assert answer["errcode"] == "M_FORBIDDEN"


@pytest.mark.parametrize("session", ["no such session", "a\0b", ""])
async def test_an_unknown_session_gets_a_new_one(services: Services, session: str) -> None:
    for auth in ({"session": session}, {"type": "m.login.dummy", "session": session}):
        answer = await challenge(services, auth, DUMMY)

        assert answer["session"] != session
        assert answer["errcode"] == "M_FORBIDDEN"
        assert "completed" not in answer


async def test_a_session_is_good_for_its_own_operation_alone(services: Services) -> None:
    session = (await challenge(services, None, DUMMY, operation="deleteDevice A"))["session"]
    auth = {"type": "m.login.dummy", "session": session}

    answer = await challenge(services, auth, DUMMY, operation="deleteDevice B")

    assert (answer["errcode"], "completed" in answer) == ("M_FORBIDDEN", False)
    await services.interactive_auth.check("deleteDevice A", auth, DUMMY)


async def test_a_session_expires(services: Services) -> None:
    services = Services(services.database, mode="token")
    session = (await challenge(services, TOKEN, TOKEN_THEN_DUMMY))["session"]
    services.clock.now += SESSION_LIFETIME_MS + 1

    answer = await challenge(services, {"session": session}, TOKEN_THEN_DUMMY)

    assert answer["session"] != session
    assert "completed" not in answer


async def test_a_password_must_be_the_requesters_own(services: Services) -> None:
    for name in ("alice", "bob"):
        await services.registration.create_user(name, f"password of {name}")
    by_bob = {"type": "m.login.password", "user": "bob", "password": "password of bob"}

    with pytest.raises(MatrixError) as refused:
        await services.interactive_auth.check("deleteDevice A", by_bob, PASSWORD_FLOWS, user_id="@alice:hs.test")

    assert (refused.value.status, refused.value.body()["errcode"]) == (401, "M_FORBIDDEN")
    by_alice = {
        "type": "m.login.password",
        "identifier": {"type": "m.id.user", "user": "@alice:hs.test"},
        "password": "password of alice",
    }
    await services.interactive_auth.check("deleteDevice A", by_alice, PASSWORD_FLOWS, user_id="@alice:hs.test")


async def test_guesses_of_a_password_are_limited(services: Services) -> None:
    await services.registration.create_user("alice", "wonderland")
    guess = {"type": "m.login.password", "user": "alice", "password": "guess"}
    for _ in range(3):
        assert (await challenge(services, guess, [["m.login.password"]]))["errcode"] == "M_FORBIDDEN"

    with pytest.raises(LimitExceeded):
        await services.interactive_auth.check("register", guess, PASSWORD_FLOWS)


@pytest.mark.parametrize(
    ("auth", "flows", "errcode"),
    [
        ({"type": 1}, DUMMY, "M_BAD_JSON"),
        ({"type": "m.login.dummy", "session": 1}, DUMMY, "M_BAD_JSON"),
        ({"type": "m.login.registration_token"}, TOKEN_THEN_DUMMY, "M_MISSING_PARAM"),
        ({"type": "m.login.registration_token", "token": 1}, TOKEN_THEN_DUMMY, "M_BAD_JSON"),
        ({"type": "m.login.password", "user": "alice"}, PASSWORD_FLOWS, "M_MISSING_PARAM"),
    ],
)
async def test_auth_that_makes_no_sense_is_a_bad_request(
    services: Services, auth: dict[str, object], flows: Sequence[Sequence[str]], errcode: str
) -> None:
    with pytest.raises(MatrixError) as refused:
        await services.interactive_auth.check("register", auth, flows)

    assert (refused.value.status, refused.value.errcode) == (400, errcode)

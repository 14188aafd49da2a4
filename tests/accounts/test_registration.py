"""https://spec.matrix.org/v1.19/client-server-api/#legacy-account-registration"""

from __future__ import annotations

import re

import pytest

from homeserver.services.errors import Forbidden, MatrixError
from tests.accounts.conftest import Services


async def refusal(services: Services, username: str, password: str = "wonderland") -> tuple[int, str]:
    with pytest.raises(MatrixError) as refused:
        await services.registration.register(username, password)
    return refused.value.status, refused.value.errcode


async def test_a_registered_user_has_a_session_on_the_device_asked_for(services: Services) -> None:
    answer = await services.registration.register("alice", "wonderland", device_id="PHONE", display_name="Phone")

    assert answer["user_id"] == "@alice:hs.test"
    assert answer["device_id"] == "PHONE"
    requester = await services.sessions.access_session(answer["access_token"])
    assert (requester.user_id, requester.device_id, requester.is_admin) == ("@alice:hs.test", "PHONE", False)
    assert [device.display_name for device in await services.sessions.devices("@alice:hs.test")] == ["Phone"]


async def test_inhibit_login_makes_the_account_alone(services: Services) -> None:
    answer = await services.registration.register("alice", "wonderland", inhibit_login=True)

    assert answer["user_id"] == "@alice:hs.test"
    assert not answer.keys() & {"access_token", "device_id"}
    assert await services.sessions.devices("@alice:hs.test") == []


async def test_without_a_username_one_is_generated(services: Services) -> None:
    answers = [await services.registration.register(None, "wonderland") for _ in range(2)]

    assert all(re.fullmatch(r"@[a-z0-9]+:hs\.test", answer["user_id"]) for answer in answers)
    assert answers[0]["user_id"] != answers[1]["user_id"]


async def test_a_username_is_lower_cased_and_taken_once(services: Services) -> None:
    answer = await services.registration.register("Alice", "wonderland")

    assert answer["user_id"] == "@alice:hs.test"
    assert await refusal(services, "alice") == (400, "M_USER_IN_USE")
    assert await refusal(services, "ALICE") == (400, "M_USER_IN_USE")


@pytest.mark.parametrize("username", ["a b", "a:b", "@alice", "ällice", "a\0b", "a" * 250])
async def test_a_username_outside_of_the_grammar_is_refused(services: Services, username: str) -> None:
    assert await refusal(services, username) == (400, "M_INVALID_USERNAME")


@pytest.mark.parametrize("username", ["a.b", "a_b", "a=b", "a-b", "a/b", "a+b", "0123"])
async def test_the_whole_grammar_of_localparts_may_be_registered(services: Services, username: str) -> None:
    assert (await services.registration.register(username, "wonderland"))["user_id"] == f"@{username}:hs.test"


async def test_a_name_of_an_application_service_is_refused(services: Services) -> None:
    assert await refusal(services, "bridge_alice") == (400, "M_EXCLUSIVE")


async def test_a_password_must_be_usable(services: Services) -> None:
    assert await refusal(services, "alice", "") == (400, "M_WEAK_PASSWORD")
    assert await refusal(services, "alice", "x" * 513) == (400, "M_INVALID_PARAM")
    assert await services.accounts.count_users() == 0


async def test_an_unusable_device_leaves_no_account_behind(services: Services) -> None:
    with pytest.raises(MatrixError) as refused:
        await services.registration.register("alice", "wonderland", device_id="a\0b")

    assert refused.value.errcode == "M_INVALID_PARAM"
    assert await services.accounts.count_users() == 0


async def test_the_mode_decides_the_flows(services: Services) -> None:
    assert services.registration.flows == [["m.login.dummy"]]
    assert Services(services.database, mode="token").registration.flows == [["m.login.registration_token"]]
    with pytest.raises(MatrixError) as refused:
        _ = Services(services.database, mode="off").registration.flows
    assert (refused.value.status, refused.value.errcode) == (403, "M_FORBIDDEN")


async def test_only_configured_tokens_are_valid(services: Services) -> None:
    registration = Services(services.database, mode="token").registration

    assert await registration.check_token("t0ken") is None
    with pytest.raises(Forbidden):
        await registration.check_token("token")
    with pytest.raises(MatrixError) as refused:
        await Services(services.database, mode="off").registration.check_token("t0ken")
    assert refused.value.status == 403


async def test_the_first_administrator_is_made_where_there_is_no_account(services: Services) -> None:
    made = await services.registration.ensure_first_administrator()

    assert made is not None
    user_id, password = made
    answer = await services.login.login(
        "m.login.password",
        {"user": user_id, "password": password},
        device_id=None,
        display_name=None,
        address="test",
    )
    assert (await services.sessions.access_session(answer["access_token"])).is_admin
    assert await services.registration.ensure_first_administrator() is None


async def test_a_server_with_accounts_gets_no_first_administrator(services: Services) -> None:
    await services.registration.register("alice", "wonderland")

    assert await services.registration.ensure_first_administrator() is None
    assert await services.accounts.count_users() == 1

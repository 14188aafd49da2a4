"""https://spec.matrix.org/v1.19/client-server-api/#legacy-login"""

from __future__ import annotations

from typing import Any

import bcrypt
import pytest
from argon2 import PasswordHasher

from homeserver.services.accounts.passwords import Passwords
from homeserver.services.errors import LimitExceeded, MatrixError, UnknownToken
from tests.accounts.conftest import Services


@pytest.fixture
async def alice(services: Services) -> Services:
    await services.registration.create_user("alice", "wonderland")
    return services


def credentials(user: str = "alice", password: str = "wonderland") -> dict[str, object]:
    return {"identifier": {"type": "m.id.user", "user": user}, "password": password}


async def log_in(services: Services, given: dict[str, object], device_id: str | None = None) -> dict[str, Any]:
    return await services.login.login(
        "m.login.password", given, device_id=device_id, display_name="Phone", address="192.0.2.1"
    )


async def refusal(services: Services, given: dict[str, object]) -> tuple[int, str]:
    with pytest.raises(MatrixError) as refused:
        await log_in(services, given)
    return refused.value.status, refused.value.errcode


@pytest.mark.parametrize("user", ["alice", "@alice:hs.test", "Alice", "@Alice:hs.test"])
async def test_a_user_is_named_by_localpart_or_user_id(alice: Services, user: str) -> None:
    answer = await log_in(alice, credentials(user))

    assert answer["user_id"] == "@alice:hs.test"
    assert (await alice.sessions.access_session(answer["access_token"])).device_id == answer["device_id"]


async def test_the_deprecated_user_field_names_a_user(alice: Services) -> None:
    answer = await log_in(alice, {"user": "alice", "password": "wonderland"})

    assert answer["user_id"] == "@alice:hs.test"


@pytest.mark.parametrize(
    ("identifier", "expected"),
    [
        ({"type": "m.id.thirdparty", "medium": "email", "address": "a@example.org"}, (403, "M_FORBIDDEN")),
        ({"medium": "email", "address": "a@example.org"}, (403, "M_FORBIDDEN")),
        ({"type": "m.id.phone", "country": "GB", "phone": "07700 900000"}, (403, "M_FORBIDDEN")),
        ({"type": "org.example.id"}, (400, "M_UNKNOWN")),
        ({"type": "m.id.user"}, (400, "M_MISSING_PARAM")),
        ({"type": "m.id.user", "user": 1}, (400, "M_BAD_JSON")),
        ({"type": "m.id.user", "user": "a\0b"}, (403, "M_FORBIDDEN")),
        ({"type": "m.id.user", "user": "@alice:elsewhere.test"}, (403, "M_FORBIDDEN")),
        ("alice", (400, "M_BAD_JSON")),
    ],
)
async def test_identifiers_of_nobody_are_refused(
    alice: Services, identifier: object, expected: tuple[int, str]
) -> None:
    assert await refusal(alice, {"identifier": identifier, "password": "wonderland"}) == expected


async def test_what_is_missing_is_said(alice: Services) -> None:
    assert await refusal(alice, {"password": "wonderland"}) == (400, "M_MISSING_PARAM")
    assert await refusal(alice, {"user": "alice"}) == (400, "M_MISSING_PARAM")
    assert await refusal(alice, {"user": "alice", "password": 1}) == (400, "M_BAD_JSON")


async def test_a_wrong_password_and_an_unknown_user_look_the_same(alice: Services) -> None:
    with pytest.raises(MatrixError) as wrong:
        await log_in(alice, credentials(password="looking glass"))
    with pytest.raises(MatrixError) as unknown:
        await log_in(alice, credentials("bob"))

    assert wrong.value.status == 403
    assert wrong.value.body() == unknown.value.body()


async def test_logging_in_on_a_known_device_ends_its_former_token(alice: Services) -> None:
    first = await log_in(alice, credentials(), "PHONE")
    await alice.sessions.access_session(first["access_token"])
    second = await log_in(alice, credentials(), "PHONE")

    assert second["device_id"] == "PHONE"
    assert alice.sessions.known(first["access_token"]) is None
    with pytest.raises(UnknownToken):
        await alice.sessions.access_session(first["access_token"])
    assert [device.device_id for device in await alice.sessions.devices("@alice:hs.test")] == ["PHONE"]


async def test_failures_on_an_account_are_limited_and_successes_are_not(alice: Services) -> None:
    for _ in range(5):
        await log_in(alice, credentials())
    for _ in range(3):
        assert await refusal(alice, credentials(password="wrong")) == (403, "M_FORBIDDEN")

    with pytest.raises(LimitExceeded):  # the right password, too: whoever guesses must not learn that it is
        await log_in(alice, credentials())
    alice.clock.now += 10_000
    assert (await log_in(alice, credentials()))["user_id"] == "@alice:hs.test"


async def test_logins_of_an_address_are_limited(alice: Services) -> None:
    for _ in range(50):
        await log_in(alice, credentials(), "PHONE")

    with pytest.raises(LimitExceeded):
        await log_in(alice, credentials(), "PHONE")


async def test_a_deactivated_account_is_closed_for_ever(alice: Services) -> None:
    token = (await log_in(alice, credentials()))["access_token"]
    await alice.sessions.access_session(token)

    await alice.deactivation.deactivate("@alice:hs.test")

    assert alice.left_rooms == ["@alice:hs.test"]
    assert alice.sessions.known(token) is None
    with pytest.raises(UnknownToken):
        await alice.sessions.access_session(token)
    assert await refusal(alice, credentials()) == (403, "M_USER_DEACTIVATED")
    with pytest.raises(MatrixError) as refused:
        await alice.registration.register("alice", "wonderland")
    assert refused.value.errcode == "M_USER_IN_USE"


async def test_erasing_removes_the_profile(alice: Services) -> None:
    await alice.accounts.set_profile("@alice:hs.test", {"displayname": "Alice"})

    await alice.deactivation.deactivate("@alice:hs.test", erase=True)

    assert await alice.accounts.load_profile("@alice:hs.test") is None


async def test_a_changed_password_ends_other_sessions_if_asked(alice: Services) -> None:
    own, other = [(await log_in(alice, credentials()))["access_token"] for _ in range(2)]
    requester = await alice.sessions.access_session(own)
    await alice.sessions.access_session(other)

    await alice.passwords.change(requester, "looking glass", logout_devices=False)
    assert (await alice.sessions.access_session(other)).user_id == "@alice:hs.test"
    await alice.passwords.change(requester, "looking glass", logout_devices=True)

    assert (await alice.sessions.access_session(own)).device == requester.device
    with pytest.raises(UnknownToken):
        await alice.sessions.access_session(other)
    assert await refusal(alice, credentials()) == (403, "M_FORBIDDEN")
    assert (await log_in(alice, credentials(password="looking glass")))["user_id"] == "@alice:hs.test"


async def test_a_hash_of_former_parameters_is_replaced_at_the_next_login(alice: Services) -> None:
    stronger = Passwords(
        alice.accounts, alice.sessions, hasher=PasswordHasher(time_cost=2, memory_cost=8, parallelism=1)
    )
    before = await alice.accounts.load_user("@alice:hs.test")

    assert await stronger.verify(before, "wonderland")

    after = await alice.accounts.load_user("@alice:hs.test")
    assert before is not None
    assert after is not None
    assert "t=2" in str(after.password_hash)
    assert after.password_hash != before.password_hash
    assert await stronger.verify(after, "wonderland")


async def test_a_hash_is_argon2id_at_the_recommended_cost(alice: Services) -> None:
    password_hash = await Passwords(alice.accounts, alice.sessions).hash("wonderland")

    assert password_hash.startswith("$argon2id$v=19$m=19456,t=2,p=1$")


@pytest.mark.parametrize("prefix", [b"2a", b"2b"])
async def test_a_hash_by_bcrypt_is_accepted_and_replaced(alice: Services, prefix: bytes) -> None:
    # As servers write it from which users are brought over; of a longer password bcrypt sees 72 bytes.
    password = "wonderland" * 8
    old_hash = bcrypt.hashpw(password[:72].encode(), bcrypt.gensalt(4, prefix=prefix)).decode()
    await alice.accounts.set_password("@alice:hs.test", old_hash)
    user = await alice.accounts.load_user("@alice:hs.test")

    assert not await alice.passwords.verify(user, "looking glass")
    assert await alice.passwords.verify(user, password)

    after = await alice.accounts.load_user("@alice:hs.test")
    assert after is not None
    assert str(after.password_hash).startswith("$argon2id$")
    assert await alice.passwords.verify(after, password)


async def test_what_is_no_hash_by_bcrypt_lets_nobody_in(alice: Services) -> None:
    await alice.accounts.set_password("@alice:hs.test", "$2b$nonsense")

    assert not await alice.passwords.verify(await alice.accounts.load_user("@alice:hs.test"), "wonderland")

"""https://spec.matrix.org/v1.19/client-server-api/#relationship-between-access-tokens-and-devices"""

from __future__ import annotations

import asyncio

import pytest

from config.schema import SessionLifetimes
from homeserver.services.accounts.sessions import Sessions
from homeserver.services.errors import InvalidParam, UnknownToken
from storage.accounts import MAX_REPLACEMENTS
from storage.database import Database
from tests.accounts.conftest import Services


@pytest.fixture
async def alice(services: Services) -> Services:
    await services.registration.create_user("alice", "wonderland")
    return services


async def open_session(services: Services, device_id: str | None = None) -> str:
    token = (await services.sessions.open("@alice:hs.test", device_id=device_id, display_name=None)).access_token
    await services.sessions.access_session(token)
    return token


async def test_closing_a_device_ends_its_token_alone(alice: Services) -> None:
    phone, laptop = await open_session(alice, "PHONE"), await open_session(alice, "LAPTOP")

    await alice.sessions.close("@alice:hs.test", ["PHONE", "NO SUCH DEVICE", "a\0b"])

    assert alice.sessions.known(phone) is None
    with pytest.raises(UnknownToken):
        await alice.sessions.access_session(phone)
    assert (await alice.sessions.access_session(laptop)).device_id == "LAPTOP"


async def test_a_user_cannot_close_the_devices_of_another(alice: Services) -> None:
    phone = await open_session(alice, "PHONE")

    await alice.sessions.close("@bob:hs.test", ["PHONE"])

    assert (await alice.sessions.access_session(phone)).device_id == "PHONE"


async def test_the_display_name_is_for_new_devices(alice: Services) -> None:
    await alice.sessions.open("@alice:hs.test", device_id="PHONE", display_name="Phone")
    await alice.sessions.open("@alice:hs.test", device_id="PHONE", display_name="Another")

    assert [device.display_name for device in await alice.sessions.devices("@alice:hs.test")] == ["Phone"]


@pytest.mark.parametrize(
    ("device_id", "display_name"), [("a\0b", None), ("x" * 256, None), ("A", "a\0b"), ("A", "ä" * 128)]
)
async def test_unusable_devices_are_refused(alice: Services, device_id: str, display_name: str | None) -> None:
    with pytest.raises(InvalidParam):
        await alice.sessions.open("@alice:hs.test", device_id=device_id, display_name=display_name)


def nothing_erased(user_id: str, position: int) -> None:
    """For followers of accounts that nobody erases."""
    raise AssertionError(f"{user_id} is erased at {position}")


async def test_a_session_that_another_process_ends_is_forgotten(alice: Services) -> None:
    here, elsewhere = alice, Services(alice.database)
    heard: asyncio.Queue[str | None] = asyncio.Queue()

    def hear(user_id: str | None) -> None:
        here.sessions.session_ended(user_id)
        heard.put_nowait(user_id)

    before = await open_session(here)
    following = asyncio.create_task(here.accounts.follow_ended_sessions(hear, nothing_erased))
    try:
        assert await heard.get() is None
        assert here.sessions.known(before) is None  # what ended before that is not known
        token = await open_session(here)
        await elsewhere.deactivation.deactivate("@alice:hs.test")
        assert await heard.get() == "@alice:hs.test"
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)

    assert here.sessions.known(token) is None
    with pytest.raises(UnknownToken):
        await here.sessions.access_session(token)


async def test_ended_sessions_are_followed_again_after_the_connection_broke(
    alice: Services, database: Database
) -> None:
    heard: asyncio.Queue[str | None] = asyncio.Queue()
    following = asyncio.create_task(alice.accounts.follow_ended_sessions(heard.put_nowait, nothing_erased))
    assert await heard.get() is None

    await database.pool.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND query LIKE 'LISTEN%'"
    )

    async with asyncio.timeout(10):
        await asyncio.wait([following])
    following = asyncio.create_task(alice.accounts.follow_ended_sessions(heard.put_nowait, nothing_erased))
    try:
        assert await heard.get() is None
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


async def test_an_access_token_expires_in_the_cache_too(alice: Services) -> None:
    given = await alice.sessions.open("@alice:hs.test", device_id="PHONE", display_name=None, refreshable=True)
    assert given.expires_in_ms == 300_000
    await alice.sessions.access_session(given.access_token)

    alice.clock.now += 299_999
    assert alice.sessions.known(given.access_token) is not None
    alice.clock.now += 1
    assert alice.sessions.known(given.access_token) is None
    with pytest.raises(UnknownToken) as refused:
        await alice.sessions.access_session(given.access_token)
    assert refused.value.body()["soft_logout"] is True


async def test_the_old_tokens_are_good_until_one_of_the_new_is_used(alice: Services) -> None:
    first = await alice.sessions.open("@alice:hs.test", device_id="PHONE", display_name=None, refreshable=True)
    assert first.refresh_token is not None
    await alice.sessions.access_session(first.access_token)

    lost = await alice.sessions.refresh(first.refresh_token)  # the answer does not reach the client
    second = await alice.sessions.refresh(first.refresh_token)
    assert alice.sessions.known(first.access_token) is not None

    assert (await alice.sessions.access_session(second.access_token)).device_id == "PHONE"
    assert alice.sessions.known(first.access_token) is None
    for ended in (first, lost):
        with pytest.raises(UnknownToken):
            await alice.sessions.access_session(ended.access_token)
        assert ended.refresh_token is not None
        with pytest.raises(UnknownToken):
            await alice.sessions.refresh(ended.refresh_token)

    assert second.refresh_token is not None
    third = await alice.sessions.refresh(second.refresh_token)
    assert third.refresh_token is not None
    fourth = await alice.sessions.refresh(third.refresh_token)  # a refresh is a use as well
    with pytest.raises(UnknownToken):
        await alice.sessions.refresh(second.refresh_token)
    assert (await alice.sessions.access_session(fourth.access_token)).device_id == "PHONE"


async def test_refreshing_again_and_again_leaves_few_tokens(alice: Services, database: Database) -> None:
    first = await alice.sessions.open("@alice:hs.test", device_id="PHONE", display_name=None, refreshable=True)
    assert first.refresh_token is not None
    for _ in range(10):
        alice.clock.now += 1
        last = await alice.sessions.refresh(first.refresh_token)

    assert await database.pool.fetchval("SELECT count(*) FROM refresh_tokens") == 1 + MAX_REPLACEMENTS
    await alice.sessions.access_session(last.access_token)
    assert await database.pool.fetchval("SELECT count(*) FROM refresh_tokens") == 1
    assert await database.pool.fetchval("SELECT count(*) FROM access_tokens") == 1


async def test_lifetimes_are_those_of_the_configuration(alice: Services) -> None:
    lifetimes = SessionLifetimes(access_token_ms=1000, refreshable_access_token_ms=None, refresh_token_ms=5000)
    sessions = Sessions(alice.accounts, alice.clock, max_cached_tokens=16, lifetimes=lifetimes)

    plain = await sessions.open("@alice:hs.test", device_id="PLAIN", display_name=None)
    refreshable = await sessions.open("@alice:hs.test", device_id="PHONE", display_name=None, refreshable=True)

    assert (plain.expires_in_ms, plain.refresh_token) == (1000, None)
    assert "expires_in_ms" not in refreshable.body()
    assert refreshable.refresh_token is not None
    alice.clock.now += 5000
    with pytest.raises(UnknownToken) as refused:
        await sessions.refresh(refreshable.refresh_token)
    assert refused.value.body()["soft_logout"] is True


async def test_refreshes_and_first_uses_side_by_side_leave_one_session(alice: Services, database: Database) -> None:
    first = await alice.sessions.open("@alice:hs.test", device_id="PHONE", display_name=None, refreshable=True)
    assert first.refresh_token is not None
    second = await alice.sessions.refresh(first.refresh_token)
    assert second.refresh_token is not None

    await asyncio.gather(
        alice.sessions.access_session(second.access_token),
        alice.sessions.access_session(second.access_token),
        *(alice.sessions.refresh(first.refresh_token) for _ in range(3)),
        *(alice.sessions.refresh(second.refresh_token) for _ in range(3)),
        return_exceptions=True,  # what comes after the first use of the second is refused
    )

    # The session goes on with what the second refresh token gave, and of what the first gave nothing is left.
    last = await alice.sessions.refresh(second.refresh_token)
    assert (await alice.sessions.access_session(last.access_token)).device_id == "PHONE"
    assert await database.pool.fetchval("SELECT count(*) FROM refresh_tokens") == 1

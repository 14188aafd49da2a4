"""https://spec.matrix.org/v1.19/client-server-api/#relationship-between-access-tokens-and-devices"""

from __future__ import annotations

import asyncio

import pytest

from homeserver.services.errors import InvalidParam, UnknownToken
from storage.database import Database
from tests.accounts.conftest import Services


@pytest.fixture
async def alice(services: Services) -> Services:
    await services.registration.create_user("alice", "wonderland")
    return services


async def open_session(services: Services, device_id: str | None = None) -> str:
    token, _ = await services.sessions.open("@alice:hs.test", device_id=device_id, display_name=None)
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


async def test_a_session_that_another_process_ends_is_forgotten(alice: Services) -> None:
    here, elsewhere = alice, Services(alice.accounts)
    heard: asyncio.Queue[str | None] = asyncio.Queue()

    def hear(user_id: str | None) -> None:
        here.sessions.session_ended(user_id)
        heard.put_nowait(user_id)

    before = await open_session(here)
    following = asyncio.create_task(here.accounts.follow_ended_sessions(hear))
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
    following = asyncio.create_task(alice.accounts.follow_ended_sessions(heard.put_nowait))
    assert await heard.get() is None

    await database.pool.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND query LIKE 'LISTEN%'"
    )

    async with asyncio.timeout(10):
        await asyncio.wait([following])
    following = asyncio.create_task(alice.accounts.follow_ended_sessions(heard.put_nowait))
    try:
        assert await heard.get() is None
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)

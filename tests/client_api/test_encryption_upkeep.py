"""What nobody needs any more is removed now and then: messages, transaction IDs, hashes of keys."""

from __future__ import annotations

import asyncpg
import pytest

from homeserver.services.encryption import to_device
from tests.client import Homeserver
from tests.client_api.encryption import claim, follow, new_device

DAY_MS = 24 * 3600 * 1000


async def pool_of(homeserver: Homeserver) -> asyncpg.Pool:
    assert homeserver.running is not None
    return homeserver.running.server.database.pool


async def test_the_oldest_messages_go_where_there_are_too_many(
    homeserver: Homeserver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(to_device, "MAX_WAITING", 5)
    alice, bob = await homeserver.register(), await homeserver.register()
    device = await follow(bob)
    for number in range(8):
        for user in (alice, bob):
            count = 5 if user is alice else 8
            if number < count:
                body = {"messages": {user.user_id: {"*": {"n": number}}}}
                (await alice.request("PUT", f"sendToDevice/org.example/{user.user_id}{number}", body)).ok()

    assert homeserver.running is not None
    await homeserver.running.server.to_device.clean()

    await device.sync()
    assert [message["content"]["n"] for message in device.messages] == [3, 4, 5, 6, 7]
    assert len((await follow(alice)).messages) == 5


async def test_messages_to_devices_that_are_gone_go(homeserver: Homeserver) -> None:
    alice = await homeserver.register()
    pool = await pool_of(homeserver)
    await pool.execute("INSERT INTO to_device_messages (device, position, json) VALUES (9999, 1, '{}')")
    (await alice.request("PUT", "sendToDevice/a/1", {"messages": {alice.user_id: {"*": {}}}})).ok()

    assert homeserver.running is not None
    await homeserver.running.server.to_device.clean()

    assert await pool.fetchval("SELECT count(*) FROM to_device_messages") == 1


async def test_what_is_old_is_forgotten(homeserver: Homeserver) -> None:
    alice = await new_device(homeserver, one_time_keys=2)
    await claim(alice.user, alice.user)
    (await alice.user.request("PUT", "sendToDevice/a/1", {"messages": {}})).ok()
    pool = await pool_of(homeserver)
    tables = {"to_device_transactions": "sent_ts", "spent_keys": "spent_ts"}
    assert homeserver.running is not None
    parts = homeserver.running.server
    for expected in (1, 0):
        await parts.to_device.clean()
        await parts.device_keys.clean()
        for table, column in tables.items():
            assert await pool.fetchval(f"SELECT count(*) FROM {table}") == expected
            await pool.execute(f"UPDATE {table} SET {column} = {column} - {8 * DAY_MS}")

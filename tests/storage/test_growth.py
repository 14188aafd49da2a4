"""What the database grows by: with what happens, not with the size of the rooms in which it happens."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from homeserver.services.accounts.sessions import Requester
from homeserver.services.rooms.sending import Sending
from storage.accounts import AccountRepository
from tests.client import Homeserver
from tests.conftest import make_config, started

MEMBERS = 200
MESSAGES = 10_000
AT_ONCE = 256
MAX_BYTES_PER_MESSAGE = 1300
TABLES = ("events", "snapshots", "state_keys", "memberships", "receipts", "personal_counts", "relations")
TEXT = "A sentence of the length that people write in a chat: neither very short nor long at all."


@pytest.fixture
async def connection(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


async def sizes(connection: asyncpg.Connection) -> dict[str, int]:
    """Bytes of each table with its indexes, vacuumed."""
    await connection.execute("VACUUM (ANALYZE) " + ", ".join(TABLES))
    return {table: await connection.fetchval(f"SELECT pg_total_relation_size('{table}')") for table in TABLES}


async def snapshot_entries(connection: asyncpg.Connection) -> tuple[int, int]:
    """(rows, entries) of all snapshots."""
    row = await connection.fetchrow("SELECT count(*), coalesce(sum(cardinality(keys)), 0) FROM snapshots")
    return int(row[0]), int(row[1])


async def send_many(homeserver: Homeserver, room_id: str, members: list[str]) -> None:
    """Messages of all members, as many at once as make full batches."""
    assert homeserver.running is not None
    sending: Sending = homeserver.running.server.sending
    for start in range(0, MESSAGES, AT_ONCE):
        numbers = range(start, min(start + AT_ONCE, MESSAGES))
        await asyncio.gather(
            *(
                sending.send_message(
                    Requester(members[n % MEMBERS], n % MEMBERS + 1, "DEVICE", False),
                    room_id,
                    "m.room.message",
                    {"msgtype": "m.text", "body": f"{n} {TEXT}"},
                    f"m1700000000000.{n}",
                )
                for n in numbers
            )
        )


async def test_a_room_costs_what_happens_in_it(
    database_url: str, tmp_path: Path, connection: asyncpg.Connection, capsys: pytest.CaptureFixture[str]
) -> None:
    async with started(make_config(tmp_path), database_url) as homeserver:
        assert homeserver.running is not None
        server = homeserver.running.server
        creator = await homeserver.register("member0")
        room_id = await creator.create_room(preset="public_chat")
        members = [creator.user_id, *(f"@member{n}:weft.test" for n in range(1, MEMBERS))]
        started_with = await snapshot_entries(connection)
        accounts = AccountRepository(server.database.pool)
        for user_id in members[1:]:
            await accounts.insert_user(user_id, password_hash=None, created_ts=0)
            await server.membership.join(user_id, room_id, None)
        rows, entries = await snapshot_entries(connection)
        changes = rows  # a snapshot for each state event, and none that spills over one chunk
        assert rows == started_with[0] + MEMBERS - 1
        assert entries <= changes / 2 * math.log2(changes) + changes

        before = await sizes(connection)
        await send_many(homeserver, room_id, members)
        after = await sizes(connection)
        assert await snapshot_entries(connection) == (rows, entries), "messages write no snapshots"
        for table in TABLES[1:]:
            assert after[table] == before[table], f"messages write nothing to {table}"
        per_message = (after["events"] - before["events"]) / MESSAGES
        with capsys.disabled():
            print(f"\n{per_message:.0f} bytes of database for a message")
        assert per_message <= MAX_BYTES_PER_MESSAGE

        # One more change of state costs at most a logarithm of what there was, not another copy of it.
        for number in range(64):
            await creator.set_state(room_id, "weft.test", {"number": number})
        assert (await snapshot_entries(connection))[1] - entries <= 64 * (math.log2(rows + 64) + 1) + rows

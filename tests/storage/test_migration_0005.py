"""The way from the schema before directories, with rooms and users in it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import asyncpg
import orjson
import pytest

from storage.database import migrate, migrations
from storage.embedded import EmbeddedPostgres

INSERT_EVENT = """
INSERT INTO events (
    position, snapshot, room, notify_count, highlight_count, kind, notifies, event_id, sender, type, json,
    origin_server_ts)
VALUES ($1, 0, $2, 0, 0, 0, false, $3, '@a:x', $4, $5, 0)
"""


@pytest.fixture
async def connection(postgres: EmbeddedPostgres) -> AsyncIterator[asyncpg.Connection]:
    admin = await asyncpg.connect(postgres.url())
    await admin.execute("CREATE DATABASE before_0005 TEMPLATE template0")
    connection = await asyncpg.connect(postgres.url("before_0005"))
    yield connection
    await connection.close()
    await admin.execute("DROP DATABASE before_0005")
    await admin.close()


async def test_rooms_and_users_that_were_there_are_listed(
    connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    everything = migrations()
    monkeypatch.setattr("storage.database.migrations", lambda: [m for m in everything if m[0] < 5])
    await migrate(connection)
    await connection.execute(
        """
        INSERT INTO rooms (room, room_id, version, creator, is_public)
        VALUES (1, '!one:x', '11', '@a:x', true), (2, '!two:x', '11', '@a:x', false);
        INSERT INTO memberships (user_id, room, position, membership)
        VALUES ('@a:x', 1, 1, 'join'), ('@b:x', 1, 2, 'join'), ('@c:x', 1, 3, 'leave');
        INSERT INTO users (user_id, created_ts, profile)
        VALUES ('@a:x', 0, '{"displayname":"ANNA"}'), ('@b:x', 0, '{}'), ('@c:x', 0, '{"displayname":"\\\\u0000"}');
        """
    )
    for position, (room, type, state_key, content) in enumerate(
        (
            (1, "m.room.create", "", {"type": "m.space"}),
            (1, "m.room.name", "", {"name": "First"}),
            (1, "m.room.name", "", {"name": "Cheese"}),
            (1, "m.room.name", "other", {"name": "not the room's"}),
            (1, "m.room.topic", "", {"topic": "with a \0"}),
            (1, "m.room.canonical_alias", "", {"alias": "#Cheese:x"}),
            (1, "m.room.join_rules", "", {"join_rule": "public"}),
            (1, "m.room.history_visibility", "", {"history_visibility": "world_readable"}),
            (1, "m.room.guest_access", "", {"guest_access": "can_join"}),
        ),
        start=1,
    ):
        json = orjson.dumps({"type": type, "state_key": state_key, "content": content})
        await connection.execute(INSERT_EVENT, position, room, f"${position}", type, json)
    monkeypatch.setattr("storage.database.migrations", lambda: everything)
    assert "0005_directories.sql" in await migrate(connection)
    rows = await connection.fetch("SELECT * FROM room_summaries ORDER BY room")
    assert list(map(tuple, rows)) == [
        (1, 2, "Cheese", None, "#Cheese:x", None, "m.space", "public", True, True, "cheese\n#cheese:x"),
        (2, 0, None, None, None, None, None, "invite", False, False, ""),
    ]
    users = await connection.fetch("SELECT user_id, directory_text FROM users ORDER BY user_id")
    assert list(map(tuple, users)) == [("@a:x", "@a:x\nanna"), ("@b:x", "@b:x"), ("@c:x", "@c:x")]

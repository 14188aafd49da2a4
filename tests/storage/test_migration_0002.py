"""The way from the schema before push rules and threads, with data in it."""

from __future__ import annotations

import asyncpg
import pytest

from storage.database import migrate, migrations
from storage.embedded import EmbeddedPostgres


async def test_highlights_for_everyone_move_to_a_table_of_their_own(
    postgres: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    admin = await asyncpg.connect(postgres.url())
    await admin.execute("CREATE DATABASE before_0002 TEMPLATE template0")
    connection = await asyncpg.connect(postgres.url("before_0002"))
    everything = migrations()
    monkeypatch.setattr("storage.database.migrations", lambda: everything[:1])
    await migrate(connection)
    await connection.execute(
        """
        INSERT INTO personal_counts (room, user_id, position, notify, highlight)
        VALUES (1, '@sender:x', 7, 0, -1), (1, '@named:x', 8, 0, 1), (2, '@named:x', 9, 1, 1)
        """
    )
    monkeypatch.setattr("storage.database.migrations", lambda: everything[:2])
    await migrate(connection)
    highlights = await connection.fetch("SELECT room, position FROM room_highlights")
    personal = await connection.fetch("SELECT position, notify, highlight FROM personal_counts ORDER BY position")
    assert list(map(tuple, highlights)) == [(1, 7)]
    assert list(map(tuple, personal)) == [(8, 0, 1), (9, 1, 1)]
    await connection.close()
    await admin.execute("DROP DATABASE before_0002")
    await admin.close()

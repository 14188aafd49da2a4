"""The schema: made once, by one process at a time, and never by an older release."""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import AsyncIterator

import asyncpg
import pytest

from storage.database import Database, StorageError, migrate, migrations
from storage.embedded import EmbeddedPostgres


@pytest.fixture
async def empty_database_url(postgres: EmbeddedPostgres) -> AsyncIterator[str]:
    """A database without anything in it."""
    name = f"empty_{uuid.uuid4().hex}"
    admin = await asyncpg.connect(postgres.url())
    try:
        await admin.execute(f"CREATE DATABASE {name} TEMPLATE template0")
        yield postgres.url(name)
        await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    finally:
        await admin.close()


@pytest.fixture
async def connection(empty_database_url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(empty_database_url)
    yield connection
    await connection.close()


def test_migrations_are_numbered_without_a_gap() -> None:
    assert [number for number, _, _ in migrations()] == list(range(1, len(migrations()) + 1))


async def test_a_fresh_database_gets_every_migration_once(connection: asyncpg.Connection) -> None:
    names = [name for _, name, _ in migrations()]
    assert await migrate(connection) == names
    assert await migrate(connection) == []
    stored = await connection.fetch("SELECT name FROM migrations ORDER BY number")
    assert [row["name"] for row in stored] == names
    tables = {row["tablename"] for row in await connection.fetch("SELECT tablename FROM pg_tables")}
    for _, _, sql in migrations():
        assert set(re.findall(r"^CREATE TABLE (\w+)", sql, re.MULTILINE)) <= tables


async def test_processes_that_start_together_migrate_once(empty_database_url: str) -> None:
    connections = [await asyncpg.connect(empty_database_url) for _ in range(6)]
    applied = await asyncio.gather(*(migrate(connection) for connection in connections))
    assert sorted(map(len, applied)) == [0] * 5 + [len(migrations())]
    for connection in connections:
        await connection.close()


async def test_a_database_of_a_newer_release_is_refused(
    connection: asyncpg.Connection, empty_database_url: str
) -> None:
    await migrate(connection)
    await connection.execute("INSERT INTO migrations (number, name) VALUES (9999, '9999_later.sql')")
    database = Database(empty_database_url, max_connections=2)
    with pytest.raises(StorageError, match="migration 9999"):
        await database.open()
    await database.close()
    # The refusal lets go of the lock: it is the release that is wrong, not the database.
    await connection.execute("DELETE FROM migrations WHERE number = 9999")
    assert await asyncio.wait_for(migrate(connection), 5) == []


async def test_a_migration_that_fails_leaves_nothing_behind(
    connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = [*migrations(), (9999, "9999_broken.sql", "CREATE TABLE half (x int); SELECT 1 / 0;")]
    monkeypatch.setattr("storage.database.migrations", lambda: broken)
    with pytest.raises(asyncpg.DivisionByZeroError):
        await migrate(connection)
    assert await connection.fetchval("SELECT to_regclass('half')") is None
    assert await connection.fetchval("SELECT max(number) FROM migrations") == migrations()[-1][0]

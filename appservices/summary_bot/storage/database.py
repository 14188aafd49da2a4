"""Connections to PostgreSQL, and the migrations that make the bot's schema."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import resources
from typing import TypeAlias

import asyncpg

Connection: TypeAlias = asyncpg.Connection

MIGRATION_LOCK = 0x57424F54  # "WBOT"
COMMAND_TIMEOUT_S = 60

CREATE_MIGRATIONS = """
CREATE TABLE IF NOT EXISTS migrations (
    number integer PRIMARY KEY, name text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now()
)
"""

CONNECTION_ERRORS = (OSError, TimeoutError, asyncpg.InterfaceError, asyncpg.PostgresConnectionError)
"""What says that the database could not be reached, and nothing about what was asked of it."""


class StorageError(Exception):
    """The database cannot be used as it is: its message is for the administrator."""


def migrations() -> list[tuple[int, str, str]]:
    """All migrations of this release in order: (number, file name, SQL)."""
    found = []
    for entry in resources.files("appservices.summary_bot.storage").joinpath("migrations").iterdir():
        if match := re.fullmatch(r"(\d{4})_\w+\.sql", entry.name):
            found.append((int(match[1]), entry.name, entry.read_text()))
    return sorted(found)


async def migrate(connection: Connection, schema: str) -> list[str]:
    """Makes the schema, applies what is missing, and returns the names of it. Raises StorageError on a newer one."""
    await connection.execute("SELECT pg_advisory_lock($1)", MIGRATION_LOCK)
    try:
        await connection.execute(f'CREATE SCHEMA IF NOT EXISTS "{schema}"')
        await connection.execute(CREATE_MIGRATIONS)
        done = {row["number"] for row in await connection.fetch("SELECT number FROM migrations")}
        known = migrations()
        if unknown := done - {number for number, _, _ in known}:
            raise StorageError(f"the database has migration {max(unknown)}, which this release does not know")
        applied = []
        for number, name, sql in known:
            if number not in done:
                async with connection.transaction():
                    await connection.execute(sql)
                    await connection.execute("INSERT INTO migrations (number, name) VALUES ($1, $2)", number, name)
                applied.append(name)
        return applied
    finally:
        await connection.execute("SELECT pg_advisory_unlock($1)", MIGRATION_LOCK)


class Database:
    """A small pool whose connections see the bot's schema and no other."""

    connection_errors = CONNECTION_ERRORS

    def __init__(self, url: str, *, schema: str, max_connections: int) -> None:
        """`schema` has to be a plain name: the configuration checks it."""
        self._url = url
        self._schema = schema
        self._max_connections = max_connections
        self._pool: asyncpg.Pool | None = None

    @property
    def pool(self) -> asyncpg.Pool:
        assert self._pool is not None, "Database.open() comes first"
        return self._pool

    async def open(self) -> None:
        """Connects and migrates. Raises StorageError with a line for the administrator."""
        try:
            self._pool = await asyncpg.create_pool(
                self._url,
                min_size=1,
                max_size=self._max_connections,
                command_timeout=COMMAND_TIMEOUT_S,
                server_settings={"search_path": self._schema, "application_name": "weft-summary-bot"},
            )
            async with self.pool.acquire() as connection:
                await migrate(connection, self._schema)
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, ValueError) as error:
            raise StorageError(f"cannot use the PostgreSQL database: {error}") from error

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """A transaction on a pooled connection."""
        async with self.pool.acquire() as connection, connection.transaction():
            yield connection

    async def close(self) -> None:
        """Ends every connection, waiting for what they are doing."""
        if self._pool is not None:
            await self._pool.close()

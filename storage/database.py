"""Connections to PostgreSQL, and the migrations that make its schema."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib import resources

import asyncpg

Connection = asyncpg.Connection
"""A connection, for those who hold one and pass it back to repositories: only these speak SQL on it."""

log = logging.getLogger(__name__)

MIGRATION_LOCK = 0x57454654  # "WEFT": one process migrates, the others wait
WRITER_LOCK = 0x57454655
WRITER_LOCK_TIMEOUT_MS = 15_000

CREATE_MIGRATIONS = """
CREATE TABLE IF NOT EXISTS migrations (
    number integer PRIMARY KEY, name text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now()
)
"""


CONNECTION_ERRORS = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.PostgresConnectionError,
    asyncpg.exceptions.OperatorInterventionError,
    asyncpg.TooManyConnectionsError,
    asyncpg.ObjectNotInPrerequisiteStateError,  # the database lets nobody in for now
)
"""What says that a connection was lost or cannot be had, and nothing about what was asked of it."""


class StorageError(Exception):
    """The database cannot be used as it is: its message is for the administrator."""


def migrations() -> list[tuple[int, str, str]]:
    """All migrations of this release in order: (number, file name, SQL)."""
    found = []
    for entry in resources.files("storage").joinpath("migrations").iterdir():
        if match := re.fullmatch(r"(\d{4})_\w+\.sql", entry.name):
            found.append((int(match[1]), entry.name, entry.read_text()))
    return sorted(found)


async def migrate(connection: asyncpg.Connection) -> list[str]:
    """Applies what is missing, each migration in a transaction of its own; returns the names applied.

    Raises StorageError when the database was made by a newer release.
    """
    await connection.execute("SELECT pg_advisory_lock($1)", MIGRATION_LOCK)
    try:
        await connection.execute(CREATE_MIGRATIONS)
        done = {row["number"] for row in await connection.fetch("SELECT number FROM migrations")}
        known = migrations()
        if unknown := done - {number for number, _, _ in known}:
            raise StorageError(f"the database has migration {max(unknown)}, which this release does not know")
        applied = []
        for number, name, sql in known:
            if number in done:
                continue
            async with connection.transaction():
                await connection.execute(sql)
                await connection.execute("INSERT INTO migrations (number, name) VALUES ($1, $2)", number, name)
            applied.append(name)
        return applied
    finally:
        await connection.execute("SELECT pg_advisory_unlock($1)", MIGRATION_LOCK)


async def _keep_session(connection: asyncpg.Connection) -> None:
    """Takes a connection back into the pool as it is: nothing here sets what outlives a transaction.

    So the round trip that would let go of locks, cursors, listeners and settings is saved.
    """
    assert not connection.is_in_transaction()


class Database:
    """A bounded pool for reads and small transactions, and the one connection that writes the stream.

    The writer's connection holds an advisory lock for as long as it lives, and the stream is written on no other:
    two processes can never both be the writer, whatever either of them believes.
    """

    def __init__(
        self,
        url: str,
        *,
        max_connections: int,
        revive: Callable[[], None] | None = None,
        connection_class: type[asyncpg.Connection] = asyncpg.Connection,
    ) -> None:
        """`revive` brings back a PostgreSQL that has died, where it is this server's own."""
        self._connection_class = connection_class
        self._url = url
        self._revive = revive
        self._max_connections = max_connections
        self._reviving = asyncio.Lock()
        self._pool: asyncpg.Pool | None = None
        self._writer: asyncpg.Connection | None = None

    connection_errors = CONNECTION_ERRORS

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
                connect=self._connect,
                reset=_keep_session,
                connection_class=self._connection_class,
            )
            async with self.pool.acquire() as connection:
                await migrate(connection)
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, ValueError) as error:
            raise StorageError(f"cannot use the PostgreSQL database: {error}") from error

    async def writer(self) -> asyncpg.Connection:
        """The connection that writes the stream, made anew (with its lock) when the last one broke.

        Raises StorageError when another process holds the lock.
        """
        if self._writer is None or self._writer.is_closed():
            connection = await self._connect()
            try:
                await connection.execute(f"SET lock_timeout = {WRITER_LOCK_TIMEOUT_MS}")
                await connection.execute("SELECT pg_advisory_lock($1)", WRITER_LOCK)
                await connection.execute("SET lock_timeout = 0")
            except BaseException as error:
                connection.terminate()
                if isinstance(error, asyncpg.LockNotAvailableError):
                    raise StorageError("another Weft process is running on this database") from None
                raise
            self._writer = connection
        return self._writer

    async def _connect(self, *_arguments: object, **_more: object) -> asyncpg.Connection:
        """A connection for the pool or the writer; what a pool says about connections is the same as said here."""
        try:
            return await self._connect_once()
        except OSError:
            if self._revive is None:
                raise
        async with self._reviving:
            try:
                return await self._connect_once()  # another who noticed has started it meanwhile
            except OSError:
                log.warning("the embedded PostgreSQL is not there: starting it")
                await asyncio.to_thread(self._revive)
                return await self._connect_once()

    async def _connect_once(self) -> asyncpg.Connection:
        return await asyncpg.connect(
            self._url, statement_cache_size=256, command_timeout=60, connection_class=self._connection_class
        )

    def abandon(self) -> None:
        """Ends every connection as a crash would."""
        self.drop_writer()
        if self._pool is not None:
            self._pool.terminate()

    def drop_writer(self) -> None:
        """Lets go of the writer's connection, on which something went wrong: `writer` makes another."""
        if self._writer is not None:
            self._writer.terminate()
            self._writer = None

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[asyncpg.Connection]:
        """A transaction on a pooled connection, for what the stream does not carry (accounts, devices, filters)."""
        async with self.pool.acquire() as connection, connection.transaction():
            yield connection

    async def close(self) -> None:
        """Ends every connection, and with the writer's its lock; waits for what the pool's are doing."""
        if self._writer is not None:
            await self._writer.close()
        if self._pool is not None:
            await self._pool.close()

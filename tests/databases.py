"""Databases for tests, cloned from a migrated template ahead of need: no test waits while its own is made."""

from __future__ import annotations

import asyncio
import queue
import threading
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import asyncpg

from storage.embedded import EmbeddedPostgres

AHEAD = 3
PATIENCE_S = 60.0


class Clones:
    """Makes databases and drops them, by a thread and a connection of its own."""

    def __init__(self, postgres: EmbeddedPostgres, template: str) -> None:
        self._postgres = postgres
        self._template = template
        self._ready: queue.SimpleQueue[str | BaseException] = queue.SimpleQueue()
        self._used: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        """Databases to drop, each of which another one takes the place of; None ends it all."""

    @asynccontextmanager
    async def one(self) -> AsyncIterator[str]:
        """The URL of a database that is like the template, and is dropped in the end."""
        name = await asyncio.to_thread(self._ready.get, timeout=PATIENCE_S)
        if isinstance(name, BaseException):
            raise name
        self._used.put("")
        try:
            yield self._postgres.url(name)
        finally:
            self._used.put(name)

    @contextmanager
    def working(self) -> Iterator[None]:
        """Keeps some databases ready inside the `with`."""
        thread = threading.Thread(target=lambda: asyncio.run(self._work()), name="databases for tests")
        thread.start()
        try:
            yield
        finally:
            self._used.put(None)
            thread.join()

    async def _work(self) -> None:
        try:
            admin = await asyncpg.connect(self._postgres.url())
            for _ in range(AHEAD):
                await self._make(admin)
            while (name := self._used.get()) is not None:
                if name:
                    await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
                else:
                    await self._make(admin)
            await admin.close()
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            self._ready.put(error)  # for the test that waits for a database

    async def _make(self, admin: asyncpg.Connection) -> None:
        name = f"test_{uuid.uuid4().hex}"
        await admin.execute(f"CREATE DATABASE {name} TEMPLATE {self._template} STRATEGY FILE_COPY")
        self._ready.put(name)

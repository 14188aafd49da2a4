"""Real parts for every test: an embedded PostgreSQL, a database cloned from a migrated template, a real socket."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import asyncpg
import hypothesis
import pytest
import uvloop

from config.schema import Config, Federation, Listener, Logging, RateLimits, Registration
from config.secret import Secret
from homeserver.clock import Clock, now_ms
from homeserver.main import RunningServer, running
from storage.database import migrate
from storage.embedded import EmbeddedPostgres
from tests.client import Homeserver
from tests.databases import Clones

TEMPLATE = "template_weft"
POSTGRES_BYTES = 4 * 2**30
ANSWERED = ("accounts", "appservice", "client_api", "email", "federation", "media", "push")
"""Folders of the tests that ask the client API."""
LAST = "test_every_error_that_the_specification_names_is_produced"
SHARED_SECRET = "shared between the tests"

# A failing example is printed with the seed that replays it; CI looks at the same number each time.
hypothesis.settings.register_profile("weft", deadline=None, print_blob=True, max_examples=100)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "weft"))


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Tests run on the loop that the server runs on."""
    return {"uvloop": uvloop.new_event_loop}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Runs the test of what all tests were answered after them, and not at all where some of them are left out."""
    last = [item for item in items if item.name == LAST]
    if not last:
        return
    items[:] = [item for item in items if item.name != LAST]
    modules = {item.path for item in items}
    whole = {path for folder in ANSWERED for path in (Path(__file__).parent / folder).glob("test_*.py")}
    if modules >= whole and not config.option.keyword:
        items += last
    else:
        config.hook.pytest_deselected(items=last)


def memory_dir() -> Path | None:
    """A folder of files in memory, if the machine has one in which a run's databases fit."""
    directory = Path("/dev/shm")
    return directory if directory.is_dir() and shutil.disk_usage(directory).free >= POSTGRES_BYTES else None


@pytest.fixture(scope="session")
def postgres() -> Iterator[EmbeddedPostgres]:
    """One PostgreSQL server for the whole run, stopped with it.

    Not below pytest's own folder, which another run of pytest would close to PostgreSQL's user. In memory where there
    is room for it: a database of a test's own takes a hundredth of a second there, a quarter of one on a disk.
    """
    with (
        tempfile.TemporaryDirectory(prefix="weft-tests-", dir=memory_dir(), ignore_cleanup_errors=True) as directory,
        EmbeddedPostgres(Path(directory) / "data") as server,
    ):
        yield server


@pytest.fixture(scope="session")
async def template(postgres: EmbeddedPostgres) -> str:
    """A database with the schema, to clone from."""
    admin = await asyncpg.connect(postgres.url())
    # No test cuts the power, and no plan changes for the autovacuum having been there.
    for setting in ("fsync", "synchronous_commit", "full_page_writes", "autovacuum"):
        await admin.execute(f"ALTER SYSTEM SET {setting} = off")
    await admin.execute("SELECT pg_reload_conf()")
    await admin.execute(f"CREATE DATABASE {TEMPLATE}")
    await admin.close()
    connection = await asyncpg.connect(postgres.url(TEMPLATE))
    await migrate(connection)
    await connection.close()
    return TEMPLATE


@pytest.fixture(scope="session")
def clones(postgres: EmbeddedPostgres, template: str) -> Iterator[Clones]:
    """Databases like the template."""
    clones = Clones(postgres, template)
    with clones.working():
        yield clones


@pytest.fixture
async def database_url(clones: Clones) -> AsyncIterator[str]:
    """A fresh, migrated database of the test's own."""
    async with clones.one() as url:
        yield url


@pytest.fixture(scope="module")
async def module_database_url(clones: Clones) -> AsyncIterator[str]:
    """The same for a whole module."""
    async with clones.one() as url:
        yield url


def make_config(data_dir: Path) -> Config:
    """A server for tests: any free port, open registration, no rate limits, no other servers."""
    return Config(
        server_name="weft.test",
        data_dir=data_dir,
        listeners=(Listener(port=0, resources=frozenset({"client", "federation", "media", "health", "metrics"})),),
        registration=Registration(mode="open", shared_secret=Secret(SHARED_SECRET)),
        rate_limits=RateLimits(enabled=False),
        federation=Federation(enabled=False),  # no test goes out into the world
        logging=Logging(level="WARNING"),
    )


@asynccontextmanager
async def started(config: Config, url: str, clock: Clock = now_ms) -> AsyncIterator[Homeserver]:
    """A server on a socket, with a client for it."""
    async with running(config, url, clock) as server, Homeserver(f"http://{server.addresses[0]}", server) as homeserver:
        yield homeserver


@pytest.fixture
async def homeserver(database_url: str, tmp_path: Path) -> AsyncIterator[Homeserver]:
    """A server of the test's own."""
    async with started(make_config(tmp_path), database_url) as homeserver:
        yield homeserver


@pytest.fixture(scope="module")
async def shared_homeserver(
    module_database_url: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Homeserver]:
    """A server that the tests of a module share: for those that make users and rooms of their own."""
    async with started(make_config(tmp_path_factory.mktemp("server")), module_database_url) as homeserver:
        yield homeserver


StartServer = Callable[..., AbstractAsyncContextManager[Homeserver]]


@pytest.fixture
def start_server(database_url: str, tmp_path: Path) -> StartServer:
    """Starts servers on one database, one after another, with options of `Config` changed: for restarts."""

    def start(**changes: object) -> AbstractAsyncContextManager[Homeserver]:
        return started(replace(make_config(tmp_path), **changes), database_url)  # type: ignore[arg-type]

    return start


__all__ = ["SHARED_SECRET", "Homeserver", "RunningServer", "StartServer", "make_config", "started"]

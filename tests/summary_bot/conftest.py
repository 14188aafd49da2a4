"""A homeserver of each kind for all tests of the bot, a database for the bot, and the bot as it is out of the box."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from appservices.summary_bot.config import parse_config
from appservices.summary_bot.registration import write_registration
from storage.embedded import EmbeddedPostgres
from tests.client import Homeserver
from tests.summary_bot.homeservers import DOMAIN, KINDS, free_port, homeserver
from tests.summary_bot.support import ENCRYPTION_KEY, RunningBot, Site
from tests.summary_bot.switchboard import Switchboard

DATABASE = "summary_bot"


@pytest.fixture(scope="session")
async def bot_database_url(postgres: EmbeddedPostgres, template: str) -> AsyncIterator[str]:
    """A database in which each bot has a schema."""
    assert template
    admin = await asyncpg.connect(postgres.url())
    await admin.execute(f"CREATE DATABASE {DATABASE}")
    yield postgres.url(DATABASE)
    await admin.execute(f"DROP DATABASE {DATABASE} WITH (FORCE)")
    await admin.close()


@pytest.fixture(scope="session", params=KINDS)
async def site(
    request: pytest.FixtureRequest,
    postgres: EmbeddedPostgres,
    template: str,
    bot_database_url: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Site]:
    """A homeserver that knows the bot."""
    kind, directory = request.param, tmp_path_factory.mktemp(request.param)
    port, registration = free_port(), directory / "registration.yaml"
    (directory / "key").write_text(ENCRYPTION_KEY)
    raw = {
        "homeserver": {"url": "http://unknown.test", "domain": DOMAIN},
        "database": {"url": bot_database_url},
        "appservice": {"port": port},
        "encryption": {"key": {"file": "key"}},
    }
    write_registration(parse_config(raw, directory), registration)
    admin = await asyncpg.connect(postgres.url())
    name = f"bot_homeserver_{kind}"
    await admin.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY")
    switchboard = Switchboard()
    try:
        async with (
            switchboard.running(port),
            homeserver(kind, Path(directory), postgres.url(name), registration) as server,
            Homeserver(server.base_url) as client,
        ):
            yield Site(server, client, switchboard, registration, bot_database_url)
    finally:
        await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
        await admin.close()


@pytest.fixture
async def bot(site: Site) -> AsyncIterator[RunningBot]:
    """A bot without models, as it is out of the box."""
    async with site.bot() as bot:
        yield bot

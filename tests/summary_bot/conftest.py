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
from tests.ports import free_port
from tests.summary_bot.homeservers import DOMAIN, KINDS, homeserver
from tests.summary_bot.support import ENCRYPTION_KEY, RunningBot, Site
from tests.summary_bot.switchboard import Switchboard


@pytest.fixture(scope="session", params=KINDS)
async def site(
    request: pytest.FixtureRequest,
    postgres: EmbeddedPostgres,
    template: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Site]:
    """A homeserver that knows the bot, and a database in which each of its bots has a schema."""
    kind, directory = request.param, tmp_path_factory.mktemp(request.param)
    port, registration = free_port(), directory / "registration.yaml"
    name, bots = f"bot_homeserver_{kind}", f"bots_of_{kind}"
    (directory / "key").write_text(ENCRYPTION_KEY)
    raw = {
        "homeserver": {"url": "http://unknown.test", "domain": DOMAIN},
        "database": {"url": postgres.url(bots)},
        "appservice": {"port": port},
        "encryption": {"key": {"file": "key"}},
    }
    write_registration(parse_config(raw, directory), registration)
    admin = await asyncpg.connect(postgres.url())
    await admin.execute(f"CREATE DATABASE {bots}")
    await admin.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY")
    switchboard = Switchboard()
    try:
        async with (
            switchboard.running(port),
            homeserver(kind, Path(directory), postgres.url(name), registration) as server,
            Homeserver(server.base_url) as client,
        ):
            yield Site(server, client, switchboard, registration, postgres.url(bots))
    finally:
        for database in (name, bots):
            await admin.execute(f"DROP DATABASE {database} WITH (FORCE)")
        await admin.close()


@pytest.fixture
async def bot(site: Site) -> AsyncIterator[RunningBot]:
    """A bot without models, as it is out of the box."""
    async with site.bot() as bot:
        yield bot

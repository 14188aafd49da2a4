"""A server with an application service, for the tests of a module to share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import NamedTuple

import pytest

from tests.appservice.support import Appservice, listening
from tests.client import Homeserver
from tests.conftest import make_config, started


class Pair(NamedTuple):
    """A server and a service that knows it."""

    homeserver: Homeserver
    service: Appservice


@pytest.fixture(scope="module")
async def pair(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Pair]:
    """A server with one service."""
    data_dir = tmp_path_factory.mktemp("server")
    async with listening(Appservice("bridge", receive_ephemeral=True)) as service:
        service.write(data_dir)
        async with started(make_config(data_dir), module_database_url) as homeserver:
            yield Pair(homeserver, service)

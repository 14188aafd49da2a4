"""Real servers that federate: TLS on loopback, a database each, an authority that only they trust."""

from __future__ import annotations

import ipaddress
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.authority import Authority
from config.schema import Federation, Listener
from tests.client import Homeserver
from tests.conftest import make_config, started
from tests.databases import Clones
from tests.federation.peer import Peer, running_peer
from tests.ports import free_port

LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))

MakeServer = Callable[..., Awaitable[Homeserver]]


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Who signs the certificates of every test."""
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="session")
def certificate(authority: Authority) -> tuple[Path, Path]:
    """Certificate and key for the names that servers of tests have."""
    return authority.certificate("localhost", "127.0.0.1", "::1")


def federation_options(authority: Authority, **changes: Any) -> Federation:
    """Federation on loopback, with short waits."""
    options = Federation(
        allowed_ip_ranges=LOOPBACK,
        custom_ca_file=authority.ca_file,
        connect_timeout_ms=2_000,
        request_timeout_ms=10_000,
        min_retry_interval_ms=100,
    )
    return replace(options, **changes)


@pytest.fixture(scope="session")
def make_one(
    clones: Clones,
    authority: Authority,
    certificate: tuple[Path, Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[..., AbstractAsyncContextManager[Homeserver]]:
    """Starts a server inside an `async with`: see `make_server`."""

    @asynccontextmanager
    async def make(
        host: str = "localhost", *, federation: dict[str, Any] | None = None, **changes: Any
    ) -> AsyncIterator[Homeserver]:
        port = free_port()
        config = replace(
            make_config(tmp_path_factory.mktemp("server")),
            server_name=f"{host}:{port}",
            federation=federation_options(authority, **(federation or {})),
        )
        public = Listener(
            port=port,
            tls_certificate=certificate[0],
            tls_key=certificate[1],
            resources=frozenset({"federation", "media"}),
        )
        config = replace(config, listeners=(*config.listeners, public), **changes)
        async with clones.one() as url, started(config, url) as homeserver:
            yield homeserver

    return make


@pytest.fixture
async def make_server(make_one: Callable[..., AbstractAsyncContextManager[Homeserver]]) -> AsyncIterator[MakeServer]:
    """Starts servers, `await make_server("localhost")`: each is reached at its own name, over TLS, by the others.

    Its client talks to a listener without TLS. Fields of `Config` may be changed, and of its `federation`.
    """
    async with AsyncExitStack() as stack:

        async def make(host: str = "localhost", **changes: Any) -> Homeserver:
            return await stack.enter_async_context(make_one(host, **changes))

        yield make


@pytest.fixture(scope="module")
async def weft(make_one: Callable[..., AbstractAsyncContextManager[Homeserver]]) -> AsyncIterator[Homeserver]:
    """One server that the tests of a module share: each of them comes with peers of its own."""
    async with make_one("localhost") as homeserver:
        yield homeserver


@pytest.fixture
async def peer(authority: Authority) -> AsyncIterator[Peer]:
    """A server that does what a test tells it to."""
    async with running_peer(authority, "127.0.0.1") as peer:
        yield peer


def network_of(homeserver: Homeserver) -> Any:
    """The network layer of a server in this process."""
    assert homeserver.running is not None
    return homeserver.running.server.network


def name_of(homeserver: Homeserver) -> str:
    """The server's name."""
    assert homeserver.running is not None
    return homeserver.running.server.config.server_name

"""Real servers that federate: TLS on loopback, a database each, an authority that only they trust."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

import pytest

from config.schema import Config, Federation, Listener
from storage.embedded import EmbeddedPostgres
from tests.client import Homeserver
from tests.conftest import cloned_database, make_config, started
from tests.federation.authority import Authority

LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))

MakeServer = Callable[..., Awaitable[Homeserver]]


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Who signs the certificates of every test."""
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="session")
def certificate(authority: Authority) -> tuple[Any, Any]:
    """Certificate and key for the names that servers of tests have."""
    return authority.certificate("localhost", "127.0.0.1", "::1")


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


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


@pytest.fixture
async def make_server(
    postgres: EmbeddedPostgres,
    template: str,
    authority: Authority,
    certificate: tuple[Any, Any],
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[MakeServer]:
    """Starts servers, `await make_server("localhost")`: each is reached at its own name, over TLS, by the others.

    Its client talks to a listener without TLS. Fields of `Config` may be changed, and of its `federation`.
    """
    async with AsyncExitStack() as stack:

        async def make(
            host: str = "localhost", *, federation: dict[str, Any] | None = None, **changes: Any
        ) -> Homeserver:
            port = free_port()
            url = await stack.enter_async_context(cloned_database(postgres, template))
            config: Config = replace(
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
            return await stack.enter_async_context(started(config, url))

        yield make


def network_of(homeserver: Homeserver) -> Any:
    """The network layer of a server in this process."""
    assert homeserver.running is not None
    return homeserver.running.server.network


def name_of(homeserver: Homeserver) -> str:
    """The server's name."""
    assert homeserver.running is not None
    return homeserver.running.server.config.server_name

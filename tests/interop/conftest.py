"""Weft and a Synapse that federate over TLS on loopback."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from benchmarks.authority import Authority
from tests.client import Homeserver
from tests.federation.conftest import authority, certificate, make_one  # noqa: F401
from tests.interop.synapse import Synapse, SynapseProcess, running_synapse
from tests.ports import free_port


@pytest.fixture(scope="module")
async def synapse_process(
    tmp_path_factory: pytest.TempPathFactory,
    authority: Authority,  # noqa: F811
    certificate: tuple[Path, Path],  # noqa: F811
) -> AsyncIterator[tuple[SynapseProcess, Synapse]]:
    """A Synapse that the tests of a module share."""
    directory = tmp_path_factory.mktemp("synapse")
    ports = (free_port(), free_port())
    async with running_synapse(directory, "localhost", ports, authority, certificate) as running:
        yield running


@pytest.fixture(scope="module")
def synapse(synapse_process: tuple[SynapseProcess, Synapse]) -> Synapse:
    """The same, for who only talks to it."""
    return synapse_process[1]


@pytest.fixture(scope="module")
async def weft(make_one: Callable[..., AbstractAsyncContextManager[Homeserver]]) -> AsyncIterator[Homeserver]:  # noqa: F811
    """A Weft that the tests of a module share."""
    async with make_one("127.0.0.1") as homeserver:
        yield homeserver

"""What a client learns of a server: versions, capabilities, and where it is."""

from __future__ import annotations

import pytest

from config.schema import Federation
from matrix.room_versions import ROOM_VERSIONS
from tests.client import Homeserver
from tests.conftest import StartServer


async def test_versions_need_no_token(shared_homeserver: Homeserver) -> None:
    """https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientversions"""
    answer = (await shared_homeserver.request("GET", "/_matrix/client/versions")).ok()

    assert "v1.19" in answer["versions"]
    assert answer["unstable_features"] == {"org.matrix.msc3814": True}


async def test_capabilities_are_those_of_this_server(shared_homeserver: Homeserver) -> None:
    """https://spec.matrix.org/v1.19/client-server-api/#capabilities-negotiation"""
    alice = await shared_homeserver.register()

    capabilities = (await alice.request("GET", "capabilities")).ok()["capabilities"]

    assert capabilities["m.room_versions"] == {"default": "12", "available": dict.fromkeys(ROOM_VERSIONS, "stable")}
    assert capabilities["m.change_password"] == {"enabled": True}
    assert capabilities["m.3pid_changes"] == {"enabled": False}
    (await shared_homeserver.request("GET", "/_matrix/client/v3/capabilities")).error(401, "M_MISSING_TOKEN")


@pytest.mark.parametrize(
    ("base_url", "delegated"),
    [
        (None, "weft.test:443"),
        ("https://matrix.example.org", "matrix.example.org:443"),
        ("https://matrix.example.org:8448", "matrix.example.org:8448"),
        ("http://localhost:8008", None),
    ],
)
async def test_clients_and_servers_are_led_to_the_public_address(
    start_server: StartServer, base_url: str | None, delegated: str | None
) -> None:
    """https://spec.matrix.org/v1.19/client-server-api/#well-known-uris"""
    async with start_server(public_base_url=base_url, federation=Federation()) as homeserver:
        client = (await homeserver.request("GET", "/.well-known/matrix/client")).ok()
        server = await homeserver.request("GET", "/.well-known/matrix/server")

        assert client == {"m.homeserver": {"base_url": base_url or "https://weft.test"}}
        if delegated is None:
            server.error(404, "M_NOT_FOUND")
        else:
            assert server.ok() == {"m.server": delegated}


async def test_a_server_that_does_not_federate_delegates_nothing(start_server: StartServer) -> None:
    async with start_server(federation=Federation(enabled=False)) as homeserver:
        (await homeserver.request("GET", "/.well-known/matrix/server")).error(404, "M_NOT_FOUND")

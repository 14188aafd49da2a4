"""The network layer put together: what the composition root starts, hands out and stops."""

from __future__ import annotations

from dataclasses import dataclass

from config.schema import Config
from federation.outbound.client import FederationClient
from federation.outbound.destinations import Destinations
from federation.outbound.discovery import Discovery
from federation.outbound.https import Https
from federation.outbound.key_ring import ServerKeyRing
from federation.outbound.media import FederatedMedia
from federation.outbound.names import Names
from federation.outbound.web import WebSites
from federation.outbound.well_known import WellKnown
from homeserver.clock import Clock
from homeserver.metrics import Metrics
from matrix.signatures import SigningKey
from storage.destinations import DestinationRepository
from storage.server_keys import ServerKeyRepository


@dataclass(frozen=True, slots=True)
class FederationNetwork:
    """The `Network` of a server that runs."""

    transport: FederationClient
    keys: ServerKeyRing
    destinations: Destinations
    media: FederatedMedia
    web: WebSites
    discovery: Discovery
    https: Https

    async def open(self) -> None:
        """Takes up which servers did not answer before the restart."""
        await self.destinations.open()

    async def run_forever(self) -> None:
        """Writes now and then which servers do not answer, until cancelled."""
        await self.destinations.persist_forever()

    async def close(self) -> None:
        """Ends fetches that are under way, closes connections, and writes which servers do not answer."""
        await self.keys.close()
        await self.discovery.close()
        await self.https.close()
        await self.web.close()
        await self.destinations.persist()


def build_network(
    config: Config,
    key_rows: ServerKeyRepository,
    destination_rows: DestinationRepository,
    signing_key: SigningKey,
    metrics: Metrics,
    clock: Clock,
    *,
    names: Names | None = None,
    well_known_port: int = 443,
) -> FederationNetwork:
    """Makes the parts; nothing is connected yet. `names` and `well_known_port` are given by tests alone.

    Raises OSError for a `federation.custom_ca_file` that cannot be used.
    """
    options = config.federation
    names = names or Names()
    https = Https(options, names)
    discovery = Discovery(WellKnown(https, clock, port=well_known_port), names)
    destinations = Destinations(
        destination_rows, clock, min_retry_ms=options.min_retry_interval_ms, max_retry_ms=options.max_retry_interval_ms
    )
    transport = FederationClient(
        options,
        https,
        discovery,
        destinations,
        metrics,
        clock,
        server_name=config.server_name,
        signing_key=signing_key,
    )
    keys = ServerKeyRing(
        transport,
        key_rows,
        metrics,
        clock,
        server_name=config.server_name,
        signing_key=signing_key,
        signing=config.signing,
        notaries=options.trusted_key_servers,
        max_servers=config.caches.server_keys,
    )
    web = WebSites(options)
    return FederationNetwork(transport, keys, destinations, FederatedMedia(transport, web), web, discovery, https)

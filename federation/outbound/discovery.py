"""From a server name to the endpoints that may answer for it.

https://spec.matrix.org/v1.19/server-server-api/#resolving-server-names
"""

from __future__ import annotations

import ipaddress

from federation.outbound.https import Endpoint
from federation.outbound.names import Names
from federation.outbound.well_known import WellKnown
from homeserver.services.remote import RemoteUnreachable
from matrix.identifiers import is_server_name

DEFAULT_PORT = 8448
MAX_PORT = 65_535
SERVICES = ("_matrix-fed._tcp", "_matrix._tcp")  # the second one is deprecated


class Discovery:
    """Finds servers. Addresses are looked up later, when connecting."""

    def __init__(self, well_known: WellKnown, names: Names) -> None:
        self._well_known = well_known
        self._names = names

    async def endpoints(self, server_name: str) -> list[Endpoint]:
        """Where the server may be, in the order to try it; never empty. Raises RemoteUnreachable.

        The comments have the numbers of the specification's steps.
        """
        if not is_server_name(server_name):
            raise RemoteUnreachable(server_name, "this is not a server name")
        hostname, port = _split(server_name, server_name)
        # 1. and 2.: an IP literal, or a port
        if is_ip_literal(hostname) or port is not None:
            return [Endpoint(hostname, port or DEFAULT_PORT, server_name, hostname)]
        # 3.: delegation
        delegated = await self._well_known.delegated_server(hostname)
        if delegated is None:
            # 4. to 6.: the services of the host itself
            return await self._services(server_name, hostname)
        delegated_host, delegated_port = _split(delegated, server_name)
        # 3.1. and 3.2.
        if is_ip_literal(delegated_host) or delegated_port is not None:
            return [Endpoint(delegated_host, delegated_port or DEFAULT_PORT, delegated, delegated_host)]
        # 3.3. to 3.5.
        return await self._services(server_name, delegated_host)

    async def _services(self, server_name: str, hostname: str) -> list[Endpoint]:
        """The host's SRV records, or else its own address; the certificate is the host's in any case."""
        for service in SERVICES:
            found = await self._names.services(f"{service}.{hostname}")
            if not found:
                continue
            endpoints = [
                Endpoint(target.rstrip("."), port, hostname, hostname) for target, port in found if target.strip(".")
            ]
            if not endpoints:
                raise RemoteUnreachable(server_name, f"{hostname} has no Matrix server, by its SRV record")
            return endpoints
        return [Endpoint(hostname, DEFAULT_PORT, hostname, hostname)]

    def doubt(self, server_name: str) -> None:
        """Nothing answers at the endpoints: what is known of the server is looked up again soon."""
        self._well_known.doubt(server_name)

    async def close(self) -> None:
        """Ends what is under way."""
        await self._well_known.close()


def is_ip_literal(hostname: str) -> bool:
    """Whether a host name, without brackets, is an IP address."""
    try:
        ipaddress.ip_address(hostname)
    except ValueError:
        return False
    return True


def _split(name: str, server_name: str) -> tuple[str, int | None]:
    """Host name (of IPv6 literals without their brackets) and port. Raises RemoteUnreachable, naming the server."""
    host, colon, port = name.rpartition(":")
    if not colon or port.endswith("]"):
        host, port = name, ""
    if port and not 0 < int(port) <= MAX_PORT:
        raise RemoteUnreachable(server_name, f"{port} is not a port")
    if host.startswith("["):
        host = host[1:-1]
        if not is_ip_literal(host):
            raise RemoteUnreachable(server_name, f"{host} is not an address")
    return host, int(port) if port else None

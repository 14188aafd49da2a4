"""Which addresses this server connects to on behalf of others.

What other servers say (their names, `.well-known`, redirects, DNS) decides where requests go. So that none of it leads
into this machine or its network, the address is judged where a socket is made for it, after all names are resolved:
an answer of DNS that changes between a check and its use changes nothing.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
from collections.abc import Sequence
from typing import Any

from config.schema import IpNetwork

AddressInfo = tuple[int | socket.AddressFamily, int | socket.SocketKind, int, str, tuple[Any, ...]]

# https://www.rfc-editor.org/rfc/rfc6052: IPv4 addresses that a translator reaches, inside of IPv6 addresses.
_TRANSLATED = ipaddress.IPv6Network("64:ff9b::/96")


class AddressRefused(OSError):
    """An address that this server does not connect to."""

    def __init__(self, address: str) -> None:
        super().__init__(errno.EACCES, f"addresses such as {address} are not connected to")


class AddressPolicy:
    """Networks that are denied, and those that are allowed in spite of it."""

    def __init__(self, allowed: Sequence[IpNetwork], denied: Sequence[IpNetwork]) -> None:
        self._allowed = tuple(allowed)
        self._denied = tuple(denied)

    def check(self, address: str) -> None:
        """Raises AddressRefused for an address, without a zone, that is denied and not allowed, or is none."""
        try:
            ip = ipaddress.ip_address(address)
        except ValueError:
            raise AddressRefused(address) from None
        if any(self._is_denied(form) for form in _forms(ip)):
            raise AddressRefused(address)

    def _is_denied(self, ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
        if any(ip in network for network in self._allowed):
            return False
        return any(ip in network for network in self._denied)

    def make_socket(self, info: AddressInfo) -> socket.socket:
        """A socket to connect to an address with (an `aiohttp.TCPConnector`'s `socket_factory`).

        Raises AddressRefused. Every connection goes through here, by name or by address, first or redirected.
        """
        family, kind, protocol, _, address = info
        self.check(str(address[0]))
        made = socket.socket(family, kind, protocol)
        made.setblocking(False)
        return made


def _forms(
    ip: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, ...]:
    """What a host may take the address for: an IPv4 address in IPv6 clothes is judged as what it is."""
    if isinstance(ip, ipaddress.IPv4Address):
        return (ip,)
    if ip.ipv4_mapped is not None:
        return (ip.ipv4_mapped,)
    if ip in _TRANSLATED:
        return (ip, ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF))
    return (ip,)

"""Requests to hosts that users name: only to addresses that the administrator does not deny.

Whether an address is denied is asked of the one that a socket is made for, after names were resolved: what a name
resolved to at an earlier time does not matter, nor in which of its forms an address was written.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Sequence
from typing import Any

import aiohttp

from config.schema import IpNetwork


class DeniedAddress(OSError):
    """A host has an address that is not to be connected to."""


class AddressGuard:
    """Which addresses may be connected to."""

    def __init__(self, allowed: Sequence[IpNetwork], denied: Sequence[IpNetwork]) -> None:
        self._allowed = allowed
        self._denied = denied

    def is_allowed(self, text: str) -> bool:
        """Whether an IP address may be connected to; no other text is one."""
        try:
            address = ipaddress.ip_address(text.partition("%")[0])
        except ValueError:
            return False
        forms = [address]
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            forms.append(address.ipv4_mapped)
        if any(form in network for form in forms for network in self._allowed):
            return True
        return not any(form in network for form in forms for network in self._denied)

    def socket(self, addr_info: Any) -> socket.socket:
        """A socket for an address (as of `getaddrinfo`). Raises DeniedAddress."""
        family, type, protocol, _, address = addr_info
        if not self.is_allowed(str(address[0])):
            raise DeniedAddress("the address is denied")
        made = socket.socket(family, type, protocol)
        made.setblocking(False)
        return made

    def connector(self, **options: Any) -> aiohttp.TCPConnector:
        """A connector that goes nowhere else."""
        return aiohttp.TCPConnector(socket_factory=self.socket, **options)

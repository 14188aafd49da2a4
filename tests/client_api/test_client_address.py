"""Whose address a request is counted under, behind proxies and without."""

from __future__ import annotations

import ipaddress

import pytest

from homeserver.http.request import client_address

TRUSTED = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("10.0.0.0/8"))


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        ("127.0.0.1", "203.0.113.7", "203.0.113.7"),
        ("unix", "203.0.113.7", "203.0.113.7"),
        ("203.0.113.9", "203.0.113.7", "203.0.113.9"),  # nobody believes a stranger
        ("127.0.0.1", "198.51.100.1, 203.0.113.7", "203.0.113.7"),  # what the client wrote itself does not count
        ("127.0.0.1", "198.51.100.1, 203.0.113.7, 10.0.0.2", "203.0.113.7"),
        ("127.0.0.1", "10.0.0.3", "10.0.0.3"),
        ("127.0.0.1", "nonsense", "unix"),
        ("127.0.0.1", "2001:db8::1", "2001:db8::1"),
    ],
)
def test_the_last_address_that_no_trusted_proxy_vouched_for_counts(peer: str, forwarded: str, address: str) -> None:
    assert client_address(peer, forwarded, TRUSTED) == address

"""Where this server connects to, and where not."""

from __future__ import annotations

import ipaddress
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.schema import Federation
from federation.outbound.addresses import AddressPolicy, AddressRefused

DEFAULTS = Federation()
POLICY = AddressPolicy((), DEFAULTS.denied_ip_ranges)
addresses_v4 = st.ip_addresses(v=4)


def is_refused(address: str, policy: AddressPolicy = POLICY) -> bool:
    try:
        policy.check(address)
    except AddressRefused:
        return True
    return False


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1",
        "255.255.255.255", "::1", "::", "fe80::1", "fc00::1", "fd00:ec2::254", "ff02::1", "::ffff:127.0.0.1",
        "::ffff:169.254.169.254", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "2002:7f00:1::", "fe80::1%eth0",
        "localhost", "", "127.1", "0x7f.0.0.1", "2130706433", "017700000001",
    ],
)  # fmt: skip
def test_private_addresses_are_refused_in_every_form(address: str) -> None:
    assert is_refused(address)


@pytest.mark.parametrize("address", ["1.1.1.1", "203.0.112.1", "2606:4700::1", "::ffff:1.1.1.1", "64:ff9b::101:101"])
def test_public_addresses_are_not(address: str) -> None:
    assert not is_refused(address)


@given(addresses_v4)
def test_an_ipv4_address_in_ipv6_clothes_is_judged_as_what_it_is(address: ipaddress.IPv4Address) -> None:
    for prefix in ("::ffff:0:0", "64:ff9b::"):
        dressed = ipaddress.IPv6Address(int(ipaddress.IPv6Address(prefix)) | int(address))
        assert is_refused(str(dressed)) == is_refused(str(address))


def test_what_is_allowed_goes_before_what_is_denied() -> None:
    policy = AddressPolicy((ipaddress.ip_network("10.1.0.0/16"),), DEFAULTS.denied_ip_ranges)
    assert not is_refused("10.1.2.3", policy)
    assert not is_refused("::ffff:10.1.2.3", policy)
    assert is_refused("10.2.2.3", policy)


def test_a_socket_is_made_for_allowed_addresses_alone() -> None:
    made = POLICY.make_socket((socket.AF_INET, socket.SOCK_STREAM, 0, "", ("1.1.1.1", 443)))
    assert not made.getblocking()
    made.close()
    with pytest.raises(AddressRefused):
        POLICY.make_socket((socket.AF_INET6, socket.SOCK_STREAM, 0, "", ("::1", 443, 0, 0)))

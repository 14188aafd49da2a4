"""DNS: the addresses of a host, and the servers of a service."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Sequence
from typing import NamedTuple

import aiodns
import pycares
from aiohttp.abc import AbstractResolver, ResolveResult

TIMEOUT_S = 3.0
TRIES = 3
MAX_ADDRESSES = 16
MAX_SERVICES = 16


class Service(NamedTuple):
    """Where an SRV record leads."""

    target: str
    port: int


class Names(AbstractResolver):
    """Asks the system's name servers, and knows the system's file of hosts. Answers are kept for as long as they say.

    `nameservers` (address or address:port) are asked in place of the system's.
    """

    def __init__(self, nameservers: Sequence[str] = ()) -> None:
        self._nameservers = nameservers
        self._resolver: aiodns.DNSResolver | None = None

    def _asked(self) -> aiodns.DNSResolver:
        if self._resolver is None:  # it wants a running event loop
            self._resolver = aiodns.DNSResolver(
                self._nameservers, timeout=TIMEOUT_S, tries=TRIES, flags=pycares.ARES_FLAG_NOSEARCH
            )
        return self._resolver

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """The addresses of a host, IPv6 ones and IPv4 ones, in the order to try them. Raises OSError."""
        try:
            found = await self._asked().getaddrinfo(host, family=family, port=port, type=socket.SOCK_STREAM)
        except aiodns.error.DNSError as error:
            raise OSError(None, f"{host} has no address ({_reason(error)})") from error
        return [
            ResolveResult(
                hostname=host,
                host=node.addr[0].decode("ascii"),
                port=port,
                family=node.family,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for node in found.nodes[:MAX_ADDRESSES]
        ]

    async def services(self, name: str) -> list[Service]:
        """The targets of SRV records, in the order to try them; none where there is no record or no answer.

        A target "." says that the service is not offered, which is for the caller to find.
        https://www.rfc-editor.org/rfc/rfc2782
        """
        try:
            answer = (await self._asked().query_dns(name, "SRV")).answer
        except aiodns.error.DNSError:
            return []
        records = [record.data for record in answer if isinstance(record.data, pycares.SRVRecordData)]
        chosen: list[Service] = []
        for priority in sorted({record.priority for record in records}):
            group = [record for record in records if record.priority == priority]
            while group and len(chosen) < MAX_SERVICES:
                record = _pick(group)
                group.remove(record)
                chosen.append(Service(record.target, record.port))
        return chosen

    async def close(self) -> None:
        """Lets go of the name servers."""
        if self._resolver is not None:
            await self._resolver.close()
            self._resolver = None


def _pick(group: Sequence[pycares.SRVRecordData]) -> pycares.SRVRecordData:
    """One of the records of equal priority, by chance and weight."""
    at = secrets.randbelow(sum(record.weight + 1 for record in group))
    for record in group:
        at -= record.weight + 1
        if at < 0:
            return record
    raise AssertionError("the weights were summed up")


def _reason(error: aiodns.error.DNSError) -> str:
    return str(error.args[1]) if len(error.args) > 1 else "no answer"

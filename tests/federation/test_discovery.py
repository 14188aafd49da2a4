"""From a server name to a connection: a case for each step of the specification, with DNS and HTTPS on loopback.

https://spec.matrix.org/v1.19/server-server-api/#resolving-server-names
"""

from __future__ import annotations

import asyncio
import ipaddress
import itertools
import random
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from email.utils import formatdate
from typing import Any

import pytest
from aiohttp import web

from benchmarks.authority import Authority
from federation.outbound.discovery import Discovery
from federation.outbound.https import Endpoint, Https
from federation.outbound.names import Names
from federation.outbound.well_known import (
    DEFAULT_TTL_MS,
    MAX_ERROR_TTL_MS,
    MAX_TTL_MS,
    MIN_TTL_MS,
    WellKnown,
    cache_ttl_ms,
)
from homeserver.services.remote import RemoteFailure, RemoteUnreachable
from matrix.identifiers import is_server_name
from tests.federation.conftest import federation_options
from tests.federation.dns_server import DnsServer, running_dns
from tests.federation.peer import Peer, json, raw, running_peer

PATH = "/.well-known/matrix/server"
HOSTS = ("a.example", "b.example", "many.example", "inside.example")
LOOPBACK_2 = ipaddress.ip_network("127.0.0.2/32")


class Web:
    """DNS, a web server for HOSTS, and a discovery that finds both; its clock can be moved."""

    def __init__(self, dns: DnsServer, peer: Peer, authority: Authority, **options: Any) -> None:
        self.dns, self.peer = dns, peer
        self.ahead_ms = 0
        self.names = Names([dns.address])
        self.https = Https(federation_options(authority, **options), self.names)
        self.discovery = Discovery(WellKnown(self.https, self.now_ms, port=peer.port), self.names)

    def now_ms(self) -> int:
        return int(time.time() * 1000) + self.ahead_ms

    def says(self, server: Any, **headers: str) -> None:
        self.peer.handlers[PATH] = json({"m.server": server}, **headers)

    async def endpoint(self, name: str) -> Endpoint:
        (endpoint,) = await self.discovery.endpoints(name)
        return endpoint

    async def close(self) -> None:
        await self.discovery.close()
        await self.https.close()


@pytest.fixture
async def internet(authority: Authority) -> AsyncIterator[Web]:
    async with AsyncExitStack() as stack:
        dns = await stack.enter_async_context(running_dns())
        peer = await stack.enter_async_context(running_peer(authority, *HOSTS))
        dns.records["a.example", "A"] = ["127.0.0.1"]
        dns.records["b.example", "A"] = ["127.0.0.1"]
        made = Web(dns, peer, authority)
        yield made
        await made.close()


@pytest.mark.parametrize(
    ("name", "endpoint"),
    [
        ("192.0.2.1", Endpoint("192.0.2.1", 8448, "192.0.2.1", "192.0.2.1")),
        ("192.0.2.1:80", Endpoint("192.0.2.1", 80, "192.0.2.1:80", "192.0.2.1")),
        ("[2001:db8::1]", Endpoint("2001:db8::1", 8448, "[2001:db8::1]", "2001:db8::1")),
        ("[2001:db8::1]:80", Endpoint("2001:db8::1", 80, "[2001:db8::1]:80", "2001:db8::1")),
        ("a.example:443", Endpoint("a.example", 443, "a.example:443", "a.example")),
    ],
)
async def test_steps_1_and_2_ask_nobody(internet: Web, name: str, endpoint: Endpoint) -> None:
    assert await internet.endpoint(name) == endpoint
    assert internet.peer.asked == []
    assert internet.dns.asked == []


@pytest.mark.parametrize(
    ("delegated", "endpoint"),
    [
        ("192.0.2.1", Endpoint("192.0.2.1", 8448, "192.0.2.1", "192.0.2.1")),
        ("[2001:db8::1]:80", Endpoint("2001:db8::1", 80, "[2001:db8::1]:80", "2001:db8::1")),
        ("b.example:443", Endpoint("b.example", 443, "b.example:443", "b.example")),
        ("b.example", Endpoint("b.example", 8448, "b.example", "b.example")),
    ],
)
async def test_step_3_follows_a_delegation(internet: Web, delegated: str, endpoint: Endpoint) -> None:
    internet.says(delegated)
    assert await internet.endpoint("a.example") == endpoint
    assert internet.peer.asked[0].headers["Host"] == f"a.example:{internet.peer.port}"
    assert "Authorization" not in internet.peer.asked[0].headers


@pytest.mark.parametrize("service", ["_matrix-fed._tcp", "_matrix._tcp"])
@pytest.mark.parametrize("is_delegated", [False, True])
async def test_steps_3_to_5_look_for_services(internet: Web, service: str, is_delegated: bool) -> None:
    host = "b.example" if is_delegated else "a.example"
    if is_delegated:
        internet.says(host)
    internet.dns.records[f"{service}.{host}", "SRV"] = [
        "20 0 4 last.example.",
        "10 0 2 target.example.",
        "10 60000 1 target.example.",
    ]
    endpoints = await internet.discovery.endpoints("a.example")
    assert {endpoint.port for endpoint in endpoints[:2]} == {1, 2}
    assert endpoints[2] == Endpoint("last.example", 4, host, host)
    assert {endpoint.certificate_name for endpoint in endpoints} == {host}


async def test_the_newer_service_goes_before_the_deprecated_one(internet: Web) -> None:
    internet.dns.records["_matrix-fed._tcp.a.example", "SRV"] = ["1 1 1 new.example."]
    internet.dns.records["_matrix._tcp.a.example", "SRV"] = ["1 1 1 old.example."]
    assert (await internet.endpoint("a.example")).host == "new.example"


async def test_step_6_is_the_host_itself(internet: Web) -> None:
    assert await internet.endpoint("a.example") == Endpoint("a.example", 8448, "a.example", "a.example")
    assert ("_matrix-fed._tcp.a.example", "SRV") in internet.dns.asked
    assert ("_matrix._tcp.a.example", "SRV") in internet.dns.asked


async def test_a_service_that_is_not_offered_is_not_there(internet: Web) -> None:
    internet.dns.records["_matrix-fed._tcp.a.example", "SRV"] = ["0 0 0 ."]
    with pytest.raises(RemoteUnreachable, match="has no Matrix server"):
        await internet.discovery.endpoints("a.example")


@pytest.mark.parametrize(
    "handler",
    [
        json({"m.server": "b.example:1"}, status=404),
        raw(b"nonsense"),
        raw(b"[]"),
        json({}),
        json({"m.server": 1}),
        json({"m.server": "https://b.example"}),
        raw(b'{"m.server":"b.example:1","x":"' + b"x" * 60_000 + b'"}'),
        raw(b"[" * 1000 + b"]" * 1000),
        json({}, status=302, Location=""),
        json({}, status=302, Location="http://a.example/.well-known/matrix/server"),
        json({}, status=302, Location="https://:0/"),
        json({}, status=302, Location="https://[/"),
        json({}, status=302, Location="ftp://a.example/"),
        json({}, status=302, Location="https://nobody.example/"),
        json({}, status=302, Location="https://127.0.0.1:1/"),
    ],
    ids=range(15),
)
async def test_what_is_no_delegation_is_as_if_there_were_none(internet: Web, handler: Any) -> None:
    internet.peer.handlers[PATH] = handler
    assert await internet.endpoint("a.example") == Endpoint("a.example", 8448, "a.example", "a.example")


async def test_a_delegation_to_a_port_that_is_none_fails(internet: Web) -> None:
    internet.says("b.example:99999")
    with pytest.raises(RemoteUnreachable, match="not a port"):
        await internet.discovery.endpoints("a.example")


async def test_redirects_are_followed_a_few_times(internet: Web) -> None:
    async def redirect(request: web.BaseRequest) -> web.StreamResponse:
        number = int(request.query.get("n", "0"))
        if number == last:
            return web.json_response({"m.server": "b.example:1"})
        return web.Response(status=(301, 302, 303, 307, 308)[number % 5], headers={"Location": f"?n={number + 1}"})

    internet.peer.handlers[PATH] = redirect
    last = 5
    assert (await internet.endpoint("a.example")).port == 1
    last = -1  # for ever
    assert (await internet.endpoint("b.example")).port == 8448
    assert len(internet.peer.asked) == 6 + 6


@pytest.mark.parametrize("target", ["https://127.0.0.1:{port}/secret", "https://inside.example:{port}/secret"])
async def test_a_redirect_into_the_private_network_is_not_followed(
    authority: Authority, internet: Web, target: str
) -> None:
    """Nor is a name that leads there. The public Internet of this test is 127.0.0.2."""
    async with running_peer(authority, "127.0.0.1", *HOSTS) as inside:
        inside.handlers["/secret"] = json({"m.server": "b.example:1"})
        internet.dns.records["inside.example", "A"] = ["127.0.0.1"]
        internet.dns.records["a.example", "A"] = ["127.0.0.2"]
        async with running_peer(authority, *HOSTS, address="127.0.0.2", port=internet.peer.port) as public:
            public.handlers[PATH] = json({}, status=302, Location=target.format(port=inside.port))
            careful = Web(internet.dns, public, authority, allowed_ip_ranges=(LOOPBACK_2,))
            assert (await careful.endpoint("a.example")).port == 8448
            await careful.close()
            assert public.count(PATH) == 1
            assert inside.asked == []
        # The same is followed where the network is allowed.
        internet.peer.handlers[PATH] = json({}, status=302, Location=target.format(port=inside.port))
        assert (await internet.endpoint("b.example")).port == 1


async def test_answers_are_kept_for_as_long_as_they_say(internet: Web) -> None:
    internet.says("b.example:1", **{"Cache-Control": "max-age=3600"})
    for _ in range(2):
        assert (await internet.endpoint("a.example")).port == 1
    assert internet.peer.count(PATH) == 1
    internet.says("b.example:2", **{"Cache-Control": "max-age=3600"})
    internet.ahead_ms = 3_599_000
    assert (await internet.endpoint("a.example")).port == 1
    internet.ahead_ms = 3_601_000
    assert (await internet.endpoint("a.example")).port == 2
    # A host that fails is asked again later and later, and what it said last holds meanwhile, for two days.
    internet.peer.handlers[PATH] = json({}, status=500)
    internet.ahead_ms += 3_601_000
    for _ in range(20):
        assert (await internet.endpoint("a.example")).port == 2
    assert internet.peer.count(PATH) == 3
    internet.ahead_ms += MAX_ERROR_TTL_MS
    assert (await internet.endpoint("a.example")).port == 2
    internet.ahead_ms += MAX_TTL_MS
    assert (await internet.endpoint("a.example")).port == 8448


async def test_failures_are_kept_too_and_for_longer_each_time(internet: Web) -> None:
    asked_after = []
    while len(asked_after) < 8:
        before = internet.peer.count(PATH)
        await internet.endpoint("a.example")
        if internet.peer.count(PATH) > before:
            asked_after.append(internet.ahead_ms)
        internet.ahead_ms += 30_000
    waits = [later - earlier for earlier, later in itertools.pairwise(asked_after)]
    assert waits[0] <= 60_000
    assert waits[-1] <= MAX_ERROR_TTL_MS
    assert waits == sorted(waits)
    assert waits[-1] >= MAX_ERROR_TTL_MS * 3 // 4


async def test_those_who_ask_at_the_same_time_share_an_answer(internet: Web) -> None:
    internet.says("b.example:1")
    found = await asyncio.gather(*(internet.endpoint("a.example") for _ in range(10)))
    assert {endpoint.port for endpoint in found} == {1}
    assert internet.peer.count(PATH) == 1


async def test_a_delegation_that_leads_nowhere_is_asked_for_again(internet: Web) -> None:
    internet.says("b.example:1")
    assert (await internet.endpoint("a.example")).port == 1
    internet.says("b.example:2")
    internet.discovery.doubt("a.example")
    assert (await internet.endpoint("a.example")).port == 1  # it was said a moment ago
    internet.ahead_ms = MAX_ERROR_TTL_MS + 1000
    internet.discovery.doubt("a.example")
    assert (await internet.endpoint("a.example")).port == 2


NOW = 1_700_000_000_000


@pytest.mark.parametrize(
    ("headers", "ttl_ms"),
    [
        ({}, DEFAULT_TTL_MS),
        ({"Cache-Control": "public"}, DEFAULT_TTL_MS),
        ({"Cache-Control": "public, max-age=7200"}, 7_200_000),
        ({"Cache-Control": "Max-Age = 7200"}, 7_200_000),
        ({"Cache-Control": "max-age=7200", "Age": "200"}, 7_000_000),
        ({"Cache-Control": "max-age=7200", "Age": "long"}, 7_200_000),
        ({"Cache-Control": "max-age=9999999999"}, MAX_TTL_MS),
        ({"Cache-Control": "max-age=0"}, MIN_TTL_MS),
        ({"Cache-Control": "no-store"}, MIN_TTL_MS),
        ({"Cache-Control": "private,no-cache,max-age=7200"}, MIN_TTL_MS),
        ({"Cache-Control": "x-max-age=1"}, DEFAULT_TTL_MS),
        ({"Expires": formatdate(NOW / 1000 + 7200, usegmt=True)}, 7_200_000),
        ({"Expires": formatdate(NOW / 1000 + 7200, usegmt=True), "Cache-Control": "max-age=600"}, 600_000),
        ({"Expires": formatdate(NOW / 1000 - 7200, usegmt=True)}, MIN_TTL_MS),
        ({"Expires": "0"}, MIN_TTL_MS),
        ({"Expires": "Fri, 31 Dec 9999 23:59:59 GMT"}, MAX_TTL_MS),
    ],
)
def test_headers_say_how_long_an_answer_is_kept(headers: dict[str, str], ttl_ms: int) -> None:
    assert cache_ttl_ms(headers, NOW) == ttl_ms


async def test_a_connection_is_made_as_discovery_says(internet: Web) -> None:
    """To the target of the SRV record, whose certificate is that of the delegated host."""
    internet.says("b.example")
    internet.peer.handlers["/hello"] = json({})
    internet.dns.records["_matrix-fed._tcp.b.example", "SRV"] = [f"1 1 {internet.peer.port} target.invalid."]
    internet.dns.records["target.invalid", "A"] = ["127.0.0.1"]
    endpoint = await internet.endpoint("a.example")
    answer = await internet.https.ask("a.example", endpoint, "GET", "/hello", headers={}, max_bytes=100)
    assert answer.body == b"{}"
    assert internet.peer.asked[-1].headers["Host"] == "b.example"


async def test_addresses_are_tried_until_one_answers(internet: Web) -> None:
    internet.dns.records["many.example", "A"] = ["127.0.0.3", "10.0.0.1", "127.0.0.1"]
    internet.dns.records["many.example", "AAAA"] = ["::1", "fe80::1"]
    internet.peer.handlers["/hello"] = json({})
    endpoint = Endpoint("many.example", internet.peer.port, "many.example", "many.example")
    answer = await internet.https.ask("many.example", endpoint, "GET", "/hello", headers={}, max_bytes=100)
    assert answer.status == 200


async def test_any_name_that_the_grammar_allows_is_found_or_not(internet: Web) -> None:
    """Whatever a server calls itself, looking for it fails in an orderly way."""

    async def reach(name: str) -> None:
        for endpoint in await internet.discovery.endpoints(name):
            await internet.https.ask(name, endpoint, "GET", "/", headers={}, max_bytes=100)

    chance = random.Random(1)
    odd = [
        ".",
        "..",
        "-",
        "a..b",
        ".a",
        "a.",
        "xn--zz",
        "1.2.3",
        "0",
        "0x7f.1",
        "a" * 64,
        "a." * 127,
        "a" * 255,
        "A-.-",
    ]
    letters = ["".join(chance.choices("0aZ.-", k=chance.randint(1, 12))) for _ in range(40)]
    literals = ["[" + "".join(chance.choices("0f:.", k=chance.randint(2, 12))) + "]" for _ in range(20)]
    for host in [*odd, *letters, *literals]:
        for name in (host, f"{host}:{internet.peer.port}"):
            assert is_server_name(name)
            with pytest.raises(RemoteFailure):
                await reach(name)


async def test_a_connection_is_good_for_the_name_only_that_its_certificate_was_checked_for(internet: Web) -> None:
    """Many servers may be behind one address, and a name in DNS may lead anywhere."""
    internet.peer.handlers["/hello"] = json({})

    async def ask(name: str) -> int:
        endpoint = Endpoint("127.0.0.1", internet.peer.port, name, name)
        return (await internet.https.ask(name, endpoint, "GET", "/hello", headers={}, max_bytes=100)).status

    assert await ask("a.example") == 200
    with pytest.raises(RemoteUnreachable, match="certificate is refused"):
        await ask("victim.example")
    assert await ask("b.example") == 200

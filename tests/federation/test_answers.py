"""What other servers answer: too much, too slowly, something else, nothing. It costs them a failure, and us little."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from benchmarks.authority import Authority
from federation.outbound.https import Endpoint, Https
from federation.outbound.names import Names
from homeserver.services.remote import (
    RemoteFailure,
    RemoteMisbehaved,
    RemoteRefused,
    RemoteUnreachable,
)
from matrix.request_authentication import parse_authorization, verify_request
from matrix.signatures import VerifyKey
from tests.client import Homeserver
from tests.federation.conftest import MakeServer, federation_options, name_of, network_of
from tests.federation.peer import Handler, Peer, json, raw, running_peer
from tests.ports import free_port

PATH = "/_matrix/federation/v1/version"
MAX_BYTES = 100_000


async def ask(weft: Homeserver, peer: Peer, **options: Any) -> Any:
    return await network_of(weft).transport.request(peer.name, "GET", PATH, max_bytes=MAX_BYTES, **options)


async def test_a_request_is_signed_and_says_who_it_is(weft: Homeserver, peer: Peer) -> None:
    asked: dict[str, Any] = {}

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        asked.update(headers=request.headers, uri=request.raw_path, content=await request.json())
        return web.json_response({"ok": True})

    path = "/_matrix/federation/v1/send/1%2F2"
    peer.handlers["/_matrix/federation/v1/send/1/2"] = answer
    content = {"pdus": [], "b": "ü"}
    options: dict[str, Any] = {"query": [("room", "#a:b&c"), ("room", "ü")], "content": content}
    assert await network_of(weft).transport.request(peer.name, "PUT", path, **options) == {"ok": True}

    assert asked["uri"] == path + "?room=%23a%3Ab%26c&room=%C3%BC"
    assert asked["content"] == content
    assert asked["headers"]["User-Agent"].startswith("Weft/")
    assert asked["headers"]["Host"] == peer.name
    authorization = parse_authorization(asked["headers"]["Authorization"])
    assert (authorization.origin, authorization.destination) == (name_of(weft), peer.name)
    assert weft.running is not None
    own = weft.running.server.signing_key
    key = VerifyKey(own.key_id, own.public_key, 0)
    assert verify_request(authorization, key, "PUT", asked["uri"], destination=peer.name, content=content)


NESTED = b"[" * 5000 + b"]" * 5000


@pytest.mark.parametrize(
    ("handler", "value"),
    [
        (raw(b"not JSON"), None),
        (raw(b""), None),
        (raw(b'{"a":1,"a":2}'), None),
        (raw(b"\xff"), None),
        (raw(b'{"a":NaN}'), None),
        (raw(b'{"a":"\\ud800"}'), None),
        (raw(b'{"a":' + b"9" * 400 + b"}"), None),
        (raw(NESTED), None),
        (raw(b"x" * (MAX_BYTES + 1)), None),
        (raw(gzip.compress(b'"' + b"x" * 30_000_000 + b'"'), **{"Content-Encoding": "gzip"}), None),
        (raw(b"{}", **{"Content-Encoding": "gzip"}), None),
        (json({"a": 2**70}), {"a": 2**70}),
        (json([1.5]), [1.5]),
    ],
    ids=range(13),
)
async def test_an_answer_is_json_of_bounded_size(weft: Homeserver, peer: Peer, handler: Handler, value: Any) -> None:
    peer.handlers[PATH] = handler
    if value is None:
        with pytest.raises(RemoteFailure) as failure:
            await ask(weft, peer)
        assert isinstance(failure.value, RemoteMisbehaved | RemoteUnreachable)
        assert len(str(failure.value)) < 300
    else:
        assert await ask(weft, peer) == value


async def test_no_more_is_read_of_an_endless_answer_than_may_be(weft: Homeserver, peer: Peer) -> None:
    sent = 0
    cut_off = asyncio.Event()

    async def endless(request: web.BaseRequest) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                await response.write(b"x" * 10_000)
                sent += 10_000
        except ConnectionError:
            cut_off.set()
            raise

    peer.handlers[PATH] = endless
    with pytest.raises(RemoteMisbehaved):
        await ask(weft, peer)
    await cut_off.wait()
    assert sent < 10_000_000  # what fits into the buffers of two sockets


async def test_an_answer_in_drops_is_not_waited_for(authority: Authority, peer: Peer) -> None:
    async def drops(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b" ")
            await asyncio.sleep(0.02)

    peer.handlers[PATH] = drops
    https = Https(federation_options(authority), Names(), progress_window_s=0.2)
    with pytest.raises(RemoteUnreachable, match="too slowly"):
        await https.ask(
            peer.name,
            Endpoint("127.0.0.1", peer.port, peer.name, "127.0.0.1"),
            "GET",
            PATH,
            headers={},
            max_bytes=MAX_BYTES,
        )
    await https.close()


async def silence(_request: web.BaseRequest) -> web.StreamResponse:
    await asyncio.Event().wait()
    raise AssertionError("nobody wakes it")


async def test_no_answer_is_waited_for_longer_than_asked(weft: Homeserver, peer: Peer) -> None:
    peer.handlers[PATH] = silence
    with pytest.raises(RemoteUnreachable, match=r"within 0\.2 s"):
        await ask(weft, peer, timeout_ms=200)


async def test_errors_are_told_apart(weft: Homeserver, peer: Peer) -> None:
    for handler, status, errcode, message in (
        (json({"errcode": "M_NOT_FOUND", "error": "Nö\n\x07"}, status=404), 404, "M_NOT_FOUND", "Nö"),
        (json({"errcode": "<b>", "error": 1}, status=403), 403, "M_UNKNOWN", ""),
        (raw(b"<html>", status=400), 400, "M_UNKNOWN", ""),
        (json({"errcode": "M_UNKNOWN", "error": "x" * 10_000}, status=500), 500, "M_UNKNOWN", "x" * 300),
        (json({}, status=302, Location="https://127.0.0.1:1/"), 302, "M_UNKNOWN", ""),
        (json({}, status=502), 502, "M_UNKNOWN", ""),
    ):
        peer.handlers[PATH] = handler
        with pytest.raises(RemoteRefused) as refusal:
            await ask(weft, peer)
        assert (refusal.value.status, refusal.value.errcode, refusal.value.message) == (status, errcode, message)


async def test_a_server_that_fails_is_left_alone_for_a_while_but_not_by_users(
    make_server: MakeServer, peer: Peer
) -> None:
    weft = await make_server(federation={"min_retry_interval_ms": 600_000})
    path, users_path = "/_matrix/federation/v1/send/1", "/_matrix/federation/v1/query/profile"
    peer.handlers[users_path] = peer.handlers[path] = json({}, status=503)
    transport = network_of(weft).transport
    with pytest.raises(RemoteRefused):
        await transport.request(peer.name, "PUT", path, content={})
    peer.handlers[users_path] = peer.handlers[path] = json({})
    with pytest.raises(RemoteUnreachable, match="tried again in"):
        await transport.request(peer.name, "PUT", path, content={})
    assert peer.count(path) == 1
    assert await transport.request(peer.name, "GET", users_path) == {}
    assert await transport.request(peer.name, "PUT", path, content={}) == {}


async def test_only_so_many_requests_go_to_one_server_at_a_time(make_server: MakeServer, peer: Peer) -> None:
    weft = await make_server(federation={"max_concurrent_requests": 2})
    under_way, most = 0, 0

    async def count(_request: web.BaseRequest) -> web.StreamResponse:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        for _ in range(20):
            await asyncio.sleep(0)
        under_way -= 1
        return web.json_response({})

    peer.handlers[PATH] = count
    assert await asyncio.gather(*(ask(weft, peer) for _ in range(10))) == [{}] * 10
    assert most == 2


async def test_what_becomes_of_requests_is_counted(weft: Homeserver, peer: Peer) -> None:
    async def counts() -> dict[str, float]:
        figures = (await weft.request("GET", "/metrics")).json
        found = re.findall(r'^federation_requests_total\{outcome="(\w+)"\} (\S+)$', figures, re.MULTILINE)
        return {outcome: float(count) for outcome, count in found}

    before = await counts()
    outcomes = {"ok": json({}), "misbehaved": raw(b"x"), "refused": json({}, status=404), "unreachable": silence}
    for handler in outcomes.values():
        peer.handlers[PATH] = handler
        with contextlib.suppress(RemoteFailure):
            await ask(weft, peer, timeout_ms=100)
    with contextlib.suppress(RemoteFailure):
        await ask(weft, peer)
    after = await counts()
    assert {outcome: after[outcome] - before.get(outcome, 0) for outcome in after} == dict.fromkeys(
        (*outcomes, "left_alone"), 1
    )


def test_an_authority_that_is_none_is_refused_at_the_start(authority: Authority, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("nonsense")
    with pytest.raises(OSError, match=r"not a file of PEM certificates: '.*ca\.pem'"):
        Https(federation_options(authority, custom_ca_file=tmp_path / "ca.pem"), Names())


@pytest.fixture
async def stranger(authority: Authority) -> AsyncIterator[Peer]:
    """A peer whose certificate is good for another name."""
    async with running_peer(authority, "other.example") as peer:
        peer.name = f"127.0.0.1:{peer.port}"
        yield peer


async def test_what_cannot_be_reached_says_why(
    weft: Homeserver, make_server: MakeServer, peer: Peer, stranger: Peer, tmp_path_factory: pytest.TempPathFactory
) -> None:
    transport = network_of(weft).transport
    for name, reason in (
        (f"127.0.0.1:{free_port()}", "Connection refused|Connect call failed|no connection"),
        (stranger.name, "certificate is refused: IP address mismatch"),
        ("127.0.0.1:0", "not a port"),
        ("127.0.0.1:99999", "not a port"),
        ("[::z]", "not a server name"),
        ("[1::2::3]", "not an address"),
        ("a b", "not a server name"),
        ("nul\0", "not a server name"),
        (name_of(weft), "the server itself"),
        ("10.0.0.1", "not connected to"),
        ("[::ffff:10.0.0.1]:8448", "not connected to"),
    ):
        with pytest.raises(RemoteUnreachable, match=reason):
            await transport.request(name, "GET", PATH)
    off = await make_server(federation={"enabled": False})
    with pytest.raises(RemoteUnreachable, match="does not federate"):
        await network_of(off).transport.request(peer.name, "GET", PATH)
    # An authority that the server does not trust.
    async with running_peer(Authority(tmp_path_factory.mktemp("other")), "127.0.0.1") as untrusted:
        with pytest.raises(RemoteUnreachable, match="certificate is refused"):
            await transport.request(untrusted.name, "GET", PATH)
        assert untrusted.asked == []

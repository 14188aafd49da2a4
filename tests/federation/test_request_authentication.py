"""Who may ask: requests of servers that sign, lie, replay and hide.

https://spec.matrix.org/v1.19/server-server-api/#request-authentication
"""

from __future__ import annotations

import asyncio
import time

import pytest

from config.schema import RateLimit, RateLimits
from matrix.request_authentication import sign_request
from matrix.signatures import SigningKey
from tests.client import Homeserver
from tests.federation.conftest import MakeServer, name_of, network_of
from tests.federation.peer import KEYS, Peer, json

ROOMS = "/_matrix/federation/v1/publicRooms"
OTHER_KEY = SigningKey.from_seed("peer", b"o" * 32)


async def test_a_signed_request_is_answered(weft: Homeserver, peer: Peer) -> None:
    assert (await peer.ask(name_of(weft), "GET", f"{ROOMS}?limit=3")).ok()["chunk"] == []
    assert (await peer.ask(name_of(weft), "POST", ROOMS, {"limit": 3, "ünï": 2**70})).ok()["chunk"] == []
    assert peer.count(KEYS) == 1


async def test_what_is_not_rightly_signed_is_refused(weft: Homeserver, peer: Peer) -> None:
    name = name_of(weft)
    good = str(sign_request("GET", ROOMS, origin=peer.name, destination=name, key=peer.key))
    for answer in (
        await peer.ask(name, "GET", ROOMS, authorization=[]),
        await peer.ask(name, "GET", ROOMS, authorization=["Bearer x"]),
        await peer.ask(name, "GET", ROOMS, authorization=["X-Matrix nonsense"]),
        await peer.ask(name, "GET", ROOMS, authorization=[good] * 9),
        await peer.ask(name, "GET", ROOMS, authorization=[good, good.replace(peer.name, "other.example")]),
        await peer.ask(name, "GET", ROOMS, authorization=[good.replace(f'"{name}"', '"other.example"')]),
        await peer.ask(name, "GET", ROOMS, destination="other.example"),
        await peer.ask(name, "GET", ROOMS, key=OTHER_KEY),
        await peer.ask(name, "GET", ROOMS, key=SigningKey.from_seed("unknown", b"p" * 32)),
        await peer.ask(name, "GET", ROOMS, origin="nobody.invalid"),
        await peer.ask(name, "GET", ROOMS, origin=name),
        await peer.ask(name, "GET", f"{ROOMS}?limit=3", signed_uri=ROOMS),
        await peer.ask(name, "POST", ROOMS, {"limit": 3}, signed_content={"limit": 4}),
        await peer.ask(name, "POST", ROOMS, authorization=[good]),
        await peer.ask(name, "GET", ROOMS, authorization=[good], body=b"{}"),
    ):
        answer.error(401, "M_UNAUTHORIZED")
    (await peer.ask(name, "POST", ROOMS, {}, body=b"{")).error(400, "M_NOT_JSON")
    (await peer.ask(name, "POST", ROOMS, {}, body=b'{"a":1,"a":2}')).error(400, "M_NOT_JSON")
    (await peer.ask(name, "POST", ROOMS)).error(400, "M_NOT_JSON")  # signed, but without the body that it needs


async def test_one_good_signature_of_several_is_enough(weft: Homeserver, peer: Peer) -> None:
    def signed(key: SigningKey) -> str:
        return str(sign_request("GET", ROOMS, origin=peer.name, destination=name_of(weft), key=key))

    future = signed(SigningKey.from_seed("future", b"f" * 32))
    (await peer.ask(name_of(weft), "GET", ROOMS, authorization=[future, signed(peer.key)])).ok()
    # Older servers leave the destination out of the header; it is signed all the same.
    without = signed(peer.key).replace(f'destination="{name_of(weft)}",', "")
    assert "destination" not in without
    (await peer.ask(name_of(weft), "GET", ROOMS, authorization=[without])).ok()


async def test_a_body_is_bounded(make_server: MakeServer, peer: Peer) -> None:
    weft = await make_server(federation={"max_request_bytes": 65_536})
    (await peer.ask(name_of(weft), "POST", ROOMS, {"since": "x" * 70_000})).error(413, "M_TOO_LARGE")
    # What fits is read although it is large enough to be verified in a thread, and then it is no token.
    (await peer.ask(name_of(weft), "POST", ROOMS, {"since": "x" * 65_000})).error(400, "M_INVALID_PARAM")


async def test_a_body_has_to_arrive_in_time(make_server: MakeServer, peer: Peer) -> None:
    weft = await make_server(federation={"request_timeout_ms": 100})
    signed = sign_request("POST", ROOMS, origin=peer.name, destination=name_of(weft), content={}, key=peer.key)
    host, _, port = name_of(weft).partition(":")
    reader, writer = await asyncio.open_connection("127.0.0.1", int(port), ssl=peer.tls, server_hostname=host)
    head = f"POST {ROOMS} HTTP/1.1\r\nHost: {host}\r\nAuthorization: {signed}\r\nContent-Length: 2\r\n\r\n"
    writer.write(head.encode() + b"{")
    assert (await reader.readline()).startswith(b"HTTP/1.1 408 ")
    writer.close()


async def test_without_federation_nobody_is_answered(make_server: MakeServer, peer: Peer) -> None:
    weft = await make_server(federation={"enabled": False})
    (await peer.ask(name_of(weft), "GET", ROOMS)).error(403, "M_FORBIDDEN")
    assert peer.asked == []


async def test_a_key_that_is_not_valid_now_signs_no_request(weft: Homeserver, peer: Peer) -> None:
    peer.keys_changed = lambda keys: peer.keys(valid_until_ts=int(time.time() * 1000) - 60_000)
    (await peer.ask(name_of(weft), "GET", ROOMS)).error(401, "M_UNAUTHORIZED")


async def test_an_old_key_signs_no_request(weft: Homeserver, peer: Peer) -> None:
    old = {
        OTHER_KEY.key_id + "_old": {"key": OTHER_KEY.public_key_base64, "expired_ts": int(time.time() * 1000) - 60_000}
    }
    peer.keys_changed = lambda keys: peer.keys(old_verify_keys=old)
    key = SigningKey.from_seed("peer_old", b"o" * 32)
    (await peer.ask(name_of(weft), "GET", ROOMS, key=key)).error(401, "M_UNAUTHORIZED")
    (await peer.ask(name_of(weft), "GET", ROOMS)).ok()


@pytest.mark.parametrize("lie", ["name", "signature", "status", "shape"])
async def test_a_key_server_that_lies_is_not_believed(weft: Homeserver, peer: Peer, lie: str) -> None:
    peer.handlers[KEYS] = {
        "name": json(peer.keys(server_name="victim.example")),
        "signature": json({**peer.keys(), "valid_until_ts": 2**53 - 1}),
        "status": json(peer.keys(), status=500),
        "shape": json([peer.keys()]),
    }[lie]
    (await peer.ask(name_of(weft), "GET", ROOMS)).error(401, "M_UNAUTHORIZED")
    (await peer.ask(name_of(weft), "GET", ROOMS)).error(401, "M_UNAUTHORIZED")
    assert peer.count(KEYS) == 1  # what failed is not asked for again at once


async def test_requests_that_come_together_fetch_a_key_once(weft: Homeserver, peer: Peer) -> None:
    answers = await asyncio.gather(*(peer.ask(name_of(weft), "GET", ROOMS) for _ in range(10)))
    assert [answer.status for answer in answers] == [200] * 10
    assert peer.count(KEYS) == 1


async def test_who_invents_origins_is_held_back_by_address_and_honest_servers_by_name(
    make_server: MakeServer, peer: Peer
) -> None:
    weft = await make_server(rate_limits=RateLimits(federation=RateLimit(0.001, 3)))
    (await peer.ask(name_of(weft), "GET", ROOMS)).ok()
    for n in range(2):
        (await peer.ask(name_of(weft), "GET", ROOMS, origin=f"invented{n}.invalid:1")).error(401, "M_UNAUTHORIZED")
    (await peer.ask(name_of(weft), "GET", ROOMS, origin="invented.invalid:1")).error(429, "M_LIMIT_EXCEEDED")
    for _ in range(2):
        (await peer.ask(name_of(weft), "GET", ROOMS)).ok()
    (await peer.ask(name_of(weft), "GET", ROOMS)).error(429, "M_LIMIT_EXCEEDED")


async def test_a_server_that_signs_is_no_longer_left_alone(weft: Homeserver, peer: Peer) -> None:
    destinations = network_of(weft).destinations
    recovered: list[str] = []
    destinations.on_recovered.append(recovered.append)
    destinations.failed(peer.name)
    assert destinations.retry_ts(peer.name) > 0
    (await peer.ask(name_of(weft), "GET", ROOMS)).ok()
    assert destinations.retry_ts(peer.name) == 0
    assert set(recovered) == {peer.name}

"""Keys of other servers: fetched, kept, vouched for by notaries, and not believed without proof.

https://spec.matrix.org/v1.19/server-server-api/#retrieving-server-keys
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.authority import Authority
from config.schema import RateLimit, RateLimits
from federation.outbound.network import FederationNetwork, build_network
from homeserver.metrics import Metrics
from matrix.canonical_json import MAX_INTEGER
from matrix.signatures import SigningKey, sign_json, verify_json_signature
from matrix.unpadded_base64 import decode_base64
from storage.database import Database
from storage.destinations import DestinationRepository
from storage.server_keys import ServerKeyRepository
from tests.client import Homeserver
from tests.conftest import make_config
from tests.federation.conftest import MakeServer, federation_options, name_of, network_of
from tests.federation.peer import KEYS, Peer, json, raw, running_peer

QUERY = "/_matrix/key/v2/query"
OLD = SigningKey.from_seed("old", b"o" * 32)
NEW = SigningKey.from_seed("new", b"n" * 32)


def now_ms() -> int:
    return int(time.time() * 1000)


class Ring:
    """A key ring on a database, with a clock that the test moves."""

    def __init__(self, network: FederationNetwork) -> None:
        self.network = network
        self.ahead_ms = 0

    async def valid(self, peer: Peer, *key_ids: str, valid_at_ms: int = 0) -> set[str]:
        return set(await self.network.keys.verify_keys(peer.name, key_ids, valid_at_ms=valid_at_ms))


@pytest.fixture(scope="module")
async def database(module_database_url: str) -> AsyncIterator[Database]:
    """A database that the tests share: each has a server of another name in it."""
    database = Database(module_database_url, max_connections=4)
    await database.open()
    yield database
    await database.close()


StartRing = Callable[..., Ring]


@pytest.fixture
async def start_ring(database: Database, authority: Authority, tmp_path: Path) -> AsyncIterator[StartRing]:
    """Makes key rings on one database, one after another, as restarts would."""
    rings: list[Ring] = []

    def start(**federation: Any) -> Ring:
        config = replace(make_config(tmp_path), federation=federation_options(authority, **federation))
        network = build_network(
            config,
            ServerKeyRepository(database.pool),
            DestinationRepository(database.pool),
            SigningKey.from_seed("own", b"w" * 32),
            Metrics(),
            lambda: now_ms() + ring.ahead_ms,
        )
        ring = Ring(network)
        rings.append(ring)
        return ring

    yield start
    for ring in rings:
        await ring.network.close()


async def test_own_keys_are_at_hand(weft: Homeserver) -> None:
    assert weft.running is not None
    own = weft.running.server.signing_key
    keys = await network_of(weft).keys.verify_keys(name_of(weft), [own.key_id, "ed25519:x"], valid_at_ms=MAX_INTEGER)
    assert {key_id: key.public_key for key_id, key in keys.items()} == {own.key_id: own.public_key}


async def test_keys_are_fetched_once_and_kept_over_restarts(start_ring: StartRing, peer: Peer) -> None:
    ring = start_ring()
    found = await asyncio.gather(*(ring.valid(peer, "ed25519:peer", valid_at_ms=now_ms()) for _ in range(5)))
    assert found == [{"ed25519:peer"}] * 5
    assert peer.count(KEYS) == 1
    del peer.handlers[KEYS]
    assert await start_ring().valid(peer, "ed25519:peer", valid_at_ms=now_ms()) == {"ed25519:peer"}
    assert peer.count(KEYS) == 1


async def test_validity_counts_unless_the_time_is_0(start_ring: StartRing, peer: Peer) -> None:
    ended = now_ms() - 1_000_000
    until = now_ms() + 1_000_000
    peer.keys_changed = lambda _: peer.keys(
        valid_until_ts=until, old_verify_keys={OLD.key_id: {"key": OLD.public_key_base64, "expired_ts": ended}}
    )
    ring = start_ring()
    both = {"ed25519:peer", OLD.key_id}
    assert await ring.valid(peer, *both) == both
    assert await ring.valid(peer, *both, valid_at_ms=ended) == both
    assert await ring.valid(peer, *both, valid_at_ms=ended + 1) == {"ed25519:peer"}
    assert await ring.valid(peer, *both, valid_at_ms=until) == {"ed25519:peer"}
    assert await ring.valid(peer, *both, valid_at_ms=until + 1) == set()
    assert peer.count(KEYS) == 1  # it was asked a moment ago
    # Later it is asked whether the key lives longer, and it does.
    ring.ahead_ms = 120_000
    until += 1_000_000
    assert await ring.valid(peer, *both, valid_at_ms=until) == {"ed25519:peer"}
    assert peer.count(KEYS) == 2
    # What lies too far ahead is not worth a question: no key is valid for so long.
    ring.ahead_ms = 240_000
    assert await ring.valid(peer, *both, valid_at_ms=now_ms() + 30 * 24 * 3600 * 1000) == set()
    assert peer.count(KEYS) == 2


async def test_a_key_that_was_replaced_goes_on_verifying_what_it_signed(start_ring: StartRing, peer: Peer) -> None:
    ring = start_ring()
    assert await ring.valid(peer, "ed25519:peer") == {"ed25519:peer"}
    peer.key, replaced_ts = NEW, now_ms() - 1
    assert await ring.valid(peer, NEW.key_id) == set()  # asked a moment ago
    ring.ahead_ms = 61_000
    assert await ring.valid(peer, NEW.key_id, valid_at_ms=now_ms()) == {NEW.key_id}
    # The server does not say what became of the old one: it was good until the time it had been given.
    assert await ring.valid(peer, "ed25519:peer", valid_at_ms=replaced_ts) == {"ed25519:peer"}
    # Then it says that it had been stolen.
    stolen = SigningKey.from_seed("peer", b"p" * 32)
    peer.keys_changed = lambda _: peer.keys(
        old_verify_keys={stolen.key_id: {"key": stolen.public_key_base64, "expired_ts": replaced_ts - 5000}}
    )
    ring.ahead_ms = 130_000
    assert await ring.valid(peer, "ed25519:other") == set()
    assert await ring.valid(peer, "ed25519:peer", valid_at_ms=replaced_ts) == set()
    assert await start_ring().valid(peer, "ed25519:peer", valid_at_ms=replaced_ts) == set()


@pytest.mark.parametrize("fault", ["gone", "large", "nonsense", "other name", "unsigned"])
async def test_keys_that_cannot_be_had_are_missing_and_soon_asked_for_again(
    start_ring: StartRing, peer: Peer, fault: str
) -> None:
    good = peer.handlers[KEYS]
    unsigned = {name: value for name, value in peer.keys().items() if name != "signatures"}
    peer.handlers[KEYS] = {
        "gone": json({}, status=502),
        "large": raw(b'"' + b"x" * 200_000 + b'"'),
        "nonsense": raw(b"nonsense"),
        "other name": json(peer.keys(server_name="other.example")),
        "unsigned": json(unsigned),
    }[fault]
    ring = start_ring()
    assert await ring.valid(peer, "ed25519:peer") == set()
    assert await ring.valid(peer, "ed25519:peer") == set()
    assert peer.count(KEYS) == 1
    peer.handlers[KEYS] = good
    ring.ahead_ms = 61_000
    assert await ring.valid(peer, "ed25519:peer") == {"ed25519:peer"}


async def test_names_and_ids_that_are_none_are_not_looked_for(start_ring: StartRing, peer: Peer) -> None:
    ring = start_ring()
    assert await ring.network.keys.verify_keys("no name", ["ed25519:a"], valid_at_ms=0) == {}
    assert await ring.valid(peer) == set()
    assert await ring.valid(peer, "nonsense", "x448:1") == set()
    assert peer.asked == []


async def test_a_server_that_is_away_is_vouched_for_by_a_notary(
    authority: Authority, start_ring: StartRing, peer: Peer
) -> None:
    async with running_peer(authority, "localhost", "127.0.0.1") as notary:
        notary.name = f"127.0.0.1:{notary.port}"
        notary.key = NEW
        published = peer.keys()
        path = f"{QUERY}/{peer.name}"
        notary.handlers[path] = json({"server_keys": [sign_json(published, notary.name, notary.key)]})
        del peer.handlers[KEYS]
        ring = start_ring(trusted_key_servers=("weft.test", notary.name))
        assert await ring.valid(peer, "ed25519:peer", valid_at_ms=now_ms()) == {"ed25519:peer"}
        assert notary.count(path) == notary.count(KEYS) == 1
        asked = next(request for request in notary.asked if request.path == path)
        assert int(asked.query["minimum_valid_until_ts"]) >= now_ms() - 60_000


async def test_a_notary_is_asked_for_what_the_server_does_not_tell_any_more(
    authority: Authority, start_ring: StartRing, peer: Peer
) -> None:
    async with running_peer(authority, "127.0.0.1") as notary:
        notary.key = NEW
        path, current = f"{QUERY}/{peer.name}", peer.key
        peer.key = OLD
        notary.handlers[path] = json({"server_keys": [sign_json(peer.keys(), notary.name, notary.key)]})
        peer.key = current
        ring = start_ring(trusted_key_servers=(notary.name,))
        found = await asyncio.gather(ring.valid(peer, "ed25519:peer"), ring.valid(peer, OLD.key_id))
        assert found == [{"ed25519:peer"}, {OLD.key_id}]
        for _ in range(2):
            assert await ring.valid(peer, "ed25519:unheard_of") == set()
        assert (peer.count(KEYS), notary.count(path)) == (1, 1)


@pytest.mark.parametrize("fault", ["unsigned", "by another", "other server", "not self-signed", "shape", "many"])
async def test_a_notary_is_believed_with_both_signatures_only(
    authority: Authority, start_ring: StartRing, peer: Peer, fault: str
) -> None:
    async with running_peer(authority, "127.0.0.1") as notary:
        notary.key = NEW
        published = peer.keys()
        signed = sign_json(published, notary.name, NEW)
        forged = sign_json({**published, "signatures": {}}, notary.name, NEW)
        notary.handlers[f"{QUERY}/{peer.name}"] = json(
            {
                "unsigned": {"server_keys": [published]},
                "by another": {
                    "server_keys": [sign_json(published, notary.name, SigningKey.from_seed("new", b"x" * 32))]
                },
                "other server": {"server_keys": [sign_json(notary.keys(), notary.name, NEW)]},
                "not self-signed": {"server_keys": [forged]},
                "shape": {"server_keys": {}},
                "many": {"server_keys": [signed] * 51},
            }[fault]
        )
        del peer.handlers[KEYS]
        assert await start_ring(trusted_key_servers=(notary.name,)).valid(peer, "ed25519:peer") == set()


async def test_a_notary_does_not_bring_back_what_the_server_gave_up(
    authority: Authority, start_ring: StartRing, peer: Peer
) -> None:
    stale = peer.keys()
    stolen = peer.key
    ended = now_ms() - 1000
    peer.key = NEW
    peer.keys_changed = lambda _: peer.keys(
        old_verify_keys={stolen.key_id: {"key": stolen.public_key_base64, "expired_ts": ended}}
    )
    async with running_peer(authority, "127.0.0.1") as notary:
        notary.handlers[f"{QUERY}/{peer.name}"] = json({"server_keys": [sign_json(stale, notary.name, notary.key)]})
        ring = start_ring(trusted_key_servers=(notary.name,))
        assert await ring.valid(peer, stolen.key_id, "ed25519:missing") == {stolen.key_id}
        assert notary.count(f"{QUERY}/{peer.name}") == 1
        for later in (ring, start_ring()):
            assert await later.valid(peer, stolen.key_id, valid_at_ms=ended + 1) == set()


async def test_two_notaries_that_are_away_do_not_wait_for_each_other(
    authority: Authority, start_ring: StartRing, peer: Peer
) -> None:
    async with running_peer(authority, "127.0.0.1") as one, running_peer(authority, "127.0.0.1") as two:
        for notary, other in ((one, two), (two, one)):
            del notary.handlers[KEYS]
            for about in (other, peer):
                answer = sign_json(about.keys(), notary.name, notary.key)
                notary.handlers[f"{QUERY}/{about.name}"] = json({"server_keys": [answer]})
        ring = start_ring(trusted_key_servers=(one.name, two.name))
        async with asyncio.timeout(20):
            found = await asyncio.gather(ring.valid(one, "ed25519:peer"), ring.valid(two, "ed25519:peer"))
        assert found == [set(), set()]  # neither has said who it is


# As a notary


def signed_by(answer: dict[str, Any], name: str, keys: dict[str, Any]) -> bool:
    return any(
        verify_json_signature(answer, name, key_id, decode_base64(key["key"]))
        for key_id, key in keys["verify_keys"].items()
    )


async def test_what_servers_say_is_passed_on_number_for_number(weft: Homeserver, peer: Peer) -> None:
    said = peer.keys(**{"org.example": [2**70, 1e-7, 1.0]})
    peer.keys_changed = lambda _: said
    (answer,) = (await weft.request("GET", f"{QUERY}/{peer.name}")).ok()["server_keys"]
    assert answer["org.example"] == said["org.example"]
    assert signed_by(answer, peer.name, said)


async def test_this_server_vouches_for_others(weft: Homeserver, peer: Peer) -> None:
    own = (await weft.request("GET", KEYS)).ok()
    (answer,) = (await weft.request("GET", f"{QUERY}/{peer.name}")).ok()["server_keys"]
    assert answer["verify_keys"] == {"ed25519:peer": {"key": peer.key.public_key_base64}}
    assert signed_by(answer, name_of(weft), own)
    assert signed_by(answer, peer.name, peer.keys())
    # It goes on when the server is gone.
    peer.handlers[KEYS] = json({}, status=502)
    query = {
        peer.name: {"ed25519:peer": {"minimum_valid_until_ts": 1}},
        name_of(weft): {},
        "gone.invalid": {},
        "a b": {},
    }
    answers = (await weft.request("POST", QUERY, {"server_keys": query})).ok()["server_keys"]
    assert [answer["server_name"] for answer in answers] == [peer.name, name_of(weft)]
    (own_answer,) = (await weft.request("GET", f"{QUERY}/{name_of(weft)}")).ok()["server_keys"]
    assert signed_by(own_answer, name_of(weft), own)
    assert (await weft.request("GET", f"{QUERY}/gone.invalid")).ok() == {"server_keys": []}
    assert (await weft.request("POST", QUERY, {"server_keys": {}})).ok() == {"server_keys": []}


async def test_a_notary_asks_when_what_it_has_does_not_last_long_enough(weft: Homeserver, peer: Peer) -> None:
    soon = now_ms() + 300_000
    peer.keys_changed = lambda _: peer.keys(valid_until_ts=soon)
    for _ in range(2):
        (await weft.request("GET", f"{QUERY}/{peer.name}", minimum_valid_until_ts=soon - 1)).ok()
    assert peer.count(KEYS) == 1
    (await weft.request("GET", f"{QUERY}/{peer.name}", minimum_valid_until_ts=soon + 1)).ok()
    assert peer.count(KEYS) == 1  # a moment ago


async def test_questions_to_a_notary_are_bounded(weft: Homeserver) -> None:
    many: dict[str, Any] = {f"server{n}.invalid": {} for n in range(51)}
    keys: dict[str, Any] = {f"ed25519:{n}": {} for n in range(201)}
    for query in (many, {"a.invalid": keys}):
        (await weft.request("POST", QUERY, {"server_keys": query})).error(400, "M_INVALID_PARAM")
    for body in ({"server_keys": []}, {"server_keys": {"a": {"b": []}}}, {"server_keys": {"a": 1}}):
        (await weft.request("POST", QUERY, body)).error(400, "M_BAD_JSON")
    (await weft.request("POST", QUERY, {})).error(400, "M_MISSING_PARAM")
    (await weft.request("GET", f"{QUERY}/a%20b")).error(400, "M_INVALID_PARAM")
    (await weft.request("GET", f"{QUERY}/a.invalid", minimum_valid_until_ts="soon")).error(400, "M_INVALID_PARAM")


async def test_who_asks_a_notary_too_much_is_held_back(make_server: MakeServer) -> None:
    weft = await make_server(rate_limits=RateLimits(federation=RateLimit(0.001, 2)))
    query = {"server_keys": {"127.0.0.1:1": {}, "127.0.0.1:2": {}}}
    (await weft.request("POST", QUERY, query)).ok()
    (await weft.request("POST", QUERY, query)).error(429, "M_LIMIT_EXCEEDED")

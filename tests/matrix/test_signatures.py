"""Hashes, signatures and event IDs: https://spec.matrix.org/v1.19/appendices/#cryptographic-test-vectors."""

import json
import random
from typing import Any

import pytest
import signedjson.key
import signedjson.sign
from hypothesis import given
from hypothesis import strategies as st

from matrix.hashes import compute_event_id, content_hash, content_hash_matches, reference_hash
from matrix.room_versions import ROOM_VERSIONS, RoomVersion
from matrix.signatures import (
    SigningKey,
    hash_and_sign_event,
    sign_event,
    sign_json,
    signature_key_ids,
    verify_event_signature,
    verify_json_signature,
)
from matrix.unpadded_base64 import decode_base64, encode_base64, encode_base64_url_safe
from tests.matrix.rooms import ALL_VERSIONS
from tests.matrix.test_canonical_json import EVENT_VALUES, STRINGS
from tests.matrix.test_redaction import EVENTS

SEED = decode_base64("YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1")
KEY = SigningKey.from_seed("1", SEED)
SEEDS = st.binary(min_size=32, max_size=32)
OBJECTS = st.dictionaries(STRINGS.filter(lambda key: key not in ("signatures", "unsigned")), EVENT_VALUES)


@pytest.mark.parametrize(
    ("data", "encoded"),
    [(b"", ""), (b"f", "Zg"), (b"fo", "Zm8"), (b"foo", "Zm9v"), (b"foob", "Zm9vYg"), (b"fooba", "Zm9vYmE")],
)
def test_unpadded_base64(data: bytes, encoded: str) -> None:
    assert encode_base64(data) == encoded
    assert decode_base64(encoded) == decode_base64(encoded + "=" * (-len(encoded) % 4)) == data


def test_both_alphabets_are_decoded() -> None:
    data = bytes(range(256))
    assert decode_base64(encode_base64(data)) == decode_base64(encode_base64_url_safe(data)) == data
    assert encode_base64(b"\xfb\xff") == "+/8"
    assert encode_base64_url_safe(b"\xfb\xff") == "-_8"


@pytest.mark.parametrize("text", ["A", "Zm9v!", "Zm 9v", "é", "Zg==Zg"])
def test_what_is_not_base64_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not Base64"):
        decode_base64(text)


@pytest.mark.parametrize(
    ("obj", "signature"),
    [
        ({}, "K8280/U9SSy9IVtjBuVeLr+HpOB4BQFWbg+UZaADMtTdGYI7Geitb76LTrr5QV/7Xg4ahLwYGYZzuHGZKM5ZAQ"),
        (
            {"one": 1, "two": "Two"},
            "KqmLSbO39/Bzb0QIYE82zqLwsA+PDzYIpIRA2sRQ4sL53+sN6/fpNSoqE7BP7vBZhG6kYdD13EIMJpvhJI+6Bw",
        ),
    ],
)
def test_the_json_signing_vectors(obj: dict[str, Any], signature: str) -> None:
    signed = sign_json(obj, "domain", KEY)
    assert signed == {**obj, "signatures": {"domain": {"ed25519:1": signature}}}
    assert verify_json_signature(signed, "domain", "ed25519:1", KEY.public_key)


MINIMAL_EVENT = {
    "room_id": "!x:domain",
    "sender": "@a:domain",
    "origin": "domain",
    "origin_server_ts": 1000000,
    "signatures": {},
    "hashes": {},
    "type": "X",
    "content": {},
    "prev_events": [],
    "auth_events": [],
    "depth": 3,
    "unsigned": {"age_ts": 1000000},
}
REDACTABLE_EVENT = {
    "content": {"body": "Here is the message content"},
    "event_id": "$0:domain",
    "origin": "domain",
    "origin_server_ts": 1000000,
    "type": "m.room.message",
    "room_id": "!r:domain",
    "sender": "@u:domain",
    "signatures": {},
    "unsigned": {"age_ts": 1000000},
}


@pytest.mark.parametrize(
    ("event", "sha256", "signature"),
    [
        (
            MINIMAL_EVENT,
            "5jM4wQpv6lnBo7CLIghJuHdW+s2CMBJPUOGOC89ncos",
            "KxwGjPSDEtvnFgU00fwFz+l6d2pJM6XBIaMEn81SXPTRl16AqLAYqfIReFGZlHi5KLjAWbOoMszkwsQma+lYAg",
        ),
        (
            REDACTABLE_EVENT,
            "onLKD1bGljeBWQhWZ1kaP9SorVmRQNdN5aM2JYU2n/g",
            "Wm+VzmOUOz08Ds+0NTWb1d4CZrVsJSikkeRxh6aCcUwu6pNC78FunoD7KNWzqFn241eYHYMGCA5McEiVPdhzBA",
        ),
    ],
)
def test_the_event_signing_vectors(event: dict[str, Any], sha256: str, signature: str) -> None:
    signed = hash_and_sign_event(event, ROOM_VERSIONS["1"], "domain", KEY)
    assert signed == {
        **event,
        "hashes": {"sha256": sha256},
        "signatures": {"domain": {"ed25519:1": signature}},
    }
    assert content_hash_matches(signed)


def test_a_key_reads_and_writes_the_usual_file_format() -> None:
    line = "ed25519 a_1 " + encode_base64(SEED)
    key = SigningKey.from_line(line + "\n")
    assert (key.key_id, key.to_line()) == ("ed25519:a_1", line)
    assert key.public_key_base64 == signedjson.key.encode_verify_key_base64(
        signedjson.key.get_verify_key(signedjson.key.decode_signing_key_base64("ed25519", "a_1", encode_base64(SEED)))
    )
    assert encode_base64(SEED) not in repr(key)


@pytest.mark.parametrize(
    "line",
    ["", "ed25519 a_1", "rsa a_1 " + encode_base64(SEED), "ed25519 a_1 AAAA", "ed25519 a-1 " + encode_base64(SEED)],
)
def test_other_lines_are_no_keys(line: str) -> None:
    with pytest.raises(ValueError, match="signing key"):
        SigningKey.from_line(line)


@given(OBJECTS, SEEDS)
def test_signatures_are_those_of_the_reference_implementation(obj: dict[str, Any], seed: bytes) -> None:
    theirs = signedjson.key.decode_signing_key_base64("ed25519", "a_1", encode_base64(seed))
    signed = sign_json(obj, "example.org", SigningKey.from_seed("a_1", seed))
    assert signed == signedjson.sign.sign_json(dict(obj), "example.org", theirs)
    signedjson.sign.verify_signed_json(signed, "example.org", signedjson.key.get_verify_key(theirs))


@given(OBJECTS, SEEDS, EVENT_VALUES)
def test_a_signature_holds_until_something_signed_changes(obj: dict[str, Any], seed: bytes, other: Any) -> None:
    key = SigningKey.from_seed("a_1", seed)
    signed = sign_json({**obj, "unsigned": 1}, "example.org", key)
    twice = sign_json({**signed, "unsigned": other}, "other.example", SigningKey.from_seed("b", seed))
    assert verify_json_signature(twice, "example.org", "ed25519:a_1", key.public_key)
    assert verify_json_signature(twice, "other.example", "ed25519:b", key.public_key)
    assert not verify_json_signature({**twice, "\0added": other}, "example.org", "ed25519:a_1", key.public_key)


@pytest.mark.parametrize(
    "signatures",
    [
        None,
        [],
        {},
        {"domain": []},
        {"domain": {}},
        {"domain": {"ed25519:1": 1}},
        {"domain": {"ed25519:1": "!"}},
        {"domain": {"ed25519:1": "AAAA"}},
        {"domain": {"ed25519:1": "A" * 86}},
        {"domain": {"ed25519:2": sign_json({}, "domain", KEY)["signatures"]["domain"]["ed25519:1"]}},
    ],
)
def test_malformed_signatures_are_invalid(signatures: Any) -> None:
    assert not verify_json_signature({"signatures": signatures}, "domain", "ed25519:1", KEY.public_key)


def test_odd_public_keys_verify_nothing() -> None:
    signed = sign_json({}, "domain", KEY)
    assert not verify_json_signature(signed, "domain", "ed25519:1", KEY.public_key[:31])
    assert not verify_json_signature({**signed, "a": float("nan")}, "domain", "ed25519:1", KEY.public_key)


def test_only_known_algorithms_are_listed() -> None:
    signatures = {"domain": {"ed25519:1": "x", "rsa:1": "y"}, "junk": 1}
    assert signature_key_ids({"signatures": signatures}, "domain") == ["ed25519:1"]
    assert signature_key_ids({"signatures": signatures}, "junk") == []
    assert signature_key_ids({}, "domain") == []


@pytest.mark.parametrize("version", ALL_VERSIONS, ids=lambda version: version.identifier)
def test_an_event_stays_verifiable_when_redacted_or_signed_again(version: RoomVersion) -> None:
    event = hash_and_sign_event({**MINIMAL_EVENT, "content": {"body": "x"}}, version, "domain", KEY)
    second = sign_event(event, version, "other", SigningKey.from_seed("2", SEED))
    redacted = {**second, "content": {}, "unsigned": {"redacted_because": {}}}
    for copy in (event, second, redacted):
        assert verify_event_signature(copy, version, "domain", "ed25519:1", KEY.public_key)
    assert content_hash_matches(second)
    assert not content_hash_matches(redacted)
    assert not verify_event_signature({**event, "depth": 4}, version, "domain", "ed25519:1", KEY.public_key)


@pytest.mark.parametrize("hashes", [None, {}, {"sha256": 1}, {"sha256": "!"}, {"sha256": "AAAA"}])
def test_malformed_content_hashes_do_not_match(hashes: Any) -> None:
    assert not content_hash_matches({**MINIMAL_EVENT, "hashes": hashes})


@pytest.mark.parametrize("version", ALL_VERSIONS, ids=lambda version: version.identifier)
def test_event_ids_have_the_format_of_the_version(version: RoomVersion) -> None:
    event = {**MINIMAL_EVENT, "content": {"body": "88"}, "event_id": "$0:domain"}
    digest = reference_hash(event, version)
    expected = {1: "$0:domain", 2: "$0:domain", 3: "$" + encode_base64(digest)}
    event_id = compute_event_id(event, version)
    assert event_id == expected.get(int(version.identifier), "$" + encode_base64_url_safe(digest))


def shuffled(value: Any, order: random.Random) -> Any:
    if isinstance(value, dict):
        keys = list(value)
        order.shuffle(keys)
        return {key: shuffled(value[key], order) for key in keys}
    return [shuffled(item, order) for item in value] if isinstance(value, list) else value


@given(EVENTS, st.randoms(use_true_random=False), st.sampled_from(ALL_VERSIONS))
def test_hashes_do_not_depend_on_the_serialisation(
    event: dict[str, Any], order: random.Random, version: RoomVersion
) -> None:
    copy = json.loads(json.dumps(shuffled(event, order), indent=order.choice([None, 1])))
    assert content_hash(copy) == content_hash(event)
    assert reference_hash(copy, version) == reference_hash(event, version)


@given(EVENTS, EVENT_VALUES, st.sampled_from(ALL_VERSIONS))
def test_hashes_do_not_cover_signatures_and_unsigned(event: dict[str, Any], value: Any, version: RoomVersion) -> None:
    copy = {**event, "signatures": value, "unsigned": value}
    assert content_hash(copy) == content_hash(event)
    assert reference_hash(copy, version) == reference_hash(event, version)

"""What is believed of a server that publishes its keys."""

from __future__ import annotations

from typing import Any

import pytest

from matrix.server_keys import MAX_KEYS, MAX_VALIDITY_MS, ServerKeysError, parse_server_keys
from matrix.signatures import SigningKey, VerifyKey, sign_json

NOW = 1_700_000_000_000
NAME = "a.example"
KEY = SigningKey.from_seed("1", b"k" * 32)
OLD = SigningKey.from_seed("0", b"o" * 32)


def published(**changes: Any) -> dict[str, Any]:
    return sign_json(
        {
            "server_name": NAME,
            "valid_until_ts": NOW + 1000,
            "verify_keys": {KEY.key_id: {"key": KEY.public_key_base64}},
            "old_verify_keys": {OLD.key_id: {"key": OLD.public_key_base64, "expired_ts": NOW - 1000}},
            **changes,
        },
        NAME,
        KEY,
    )


def test_keys_in_use_and_old_ones_are_told_apart() -> None:
    keys = parse_server_keys(published(), NAME, fetched_ts=NOW)
    assert keys.verify_keys == {KEY.key_id: VerifyKey(KEY.key_id, KEY.public_key, NOW + 1000)}
    assert keys.old_verify_keys == {OLD.key_id: VerifyKey(OLD.key_id, OLD.public_key, NOW - 1000, is_old=True)}


def test_no_key_is_valid_for_longer_than_a_week() -> None:
    keys = parse_server_keys(published(valid_until_ts=2**53 - 1), NAME, fetched_ts=NOW)
    assert keys.valid_until_ts == keys.verify_keys[KEY.key_id].valid_until_ts == NOW + MAX_VALIDITY_MS


def test_an_old_key_did_not_expire_in_the_future() -> None:
    old = {OLD.key_id: {"key": OLD.public_key_base64, "expired_ts": NOW + 1_000_000}}
    keys = parse_server_keys(published(old_verify_keys=old), NAME, fetched_ts=NOW)
    assert keys.old_verify_keys[OLD.key_id].valid_until_ts == NOW


def test_a_key_of_an_algorithm_that_nobody_knows_is_passed_over() -> None:
    mixed = {KEY.key_id: {"key": KEY.public_key_base64}, "x448:1": {"key": "AAAA"}}
    assert set(parse_server_keys(published(verify_keys=mixed), NAME, fetched_ts=NOW).verify_keys) == {KEY.key_id}
    # Old keys may be left out altogether.
    without = sign_json({k: v for k, v in published().items() if k not in ("old_verify_keys", "signatures")}, NAME, KEY)
    assert parse_server_keys(without, NAME, fetched_ts=NOW).old_verify_keys == {}


@pytest.mark.parametrize(
    "answer",
    [
        None,
        [],
        {},
        published(server_name="b.example"),
        published(valid_until_ts="soon"),
        published(valid_until_ts=-1),
        published(valid_until_ts=2**53),
        published(valid_until_ts=True),
        published(verify_keys={}),
        published(verify_keys=[]),
        published(verify_keys={KEY.key_id: KEY.public_key_base64}),
        published(verify_keys={KEY.key_id: {"key": 1}}),
        published(verify_keys={KEY.key_id: {"key": "AAAA"}}),
        published(verify_keys={KEY.key_id: {"key": KEY.public_key_base64}, "ed25519:a b": {"key": "A" * 43}}),
        published(verify_keys={KEY.key_id: {"key": OLD.public_key_base64}}),
        published(old_verify_keys={OLD.key_id: {"key": OLD.public_key_base64}}),
        published(verify_keys={f"ed25519:{n}": {"key": KEY.public_key_base64} for n in range(MAX_KEYS + 1)}),
        {**published(), "valid_until_ts": NOW + 2000},
        {**published(), "signatures": {}},
        {**published(), "signatures": {NAME: {KEY.key_id: 1}}},
    ],
)
def test_what_no_server_publishes_is_refused(answer: Any) -> None:
    with pytest.raises(ServerKeysError):
        parse_server_keys(answer, NAME, fetched_ts=NOW)

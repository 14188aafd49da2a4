"""Policy servers' signatures: https://spec.matrix.org/v1.19/server-server-api/#policy-servers"""

from __future__ import annotations

from typing import Any

import pytest

from matrix.pdu import Pdu, build_pdu
from matrix.policy_servers import POLICY_KEY_ID, PolicyServer, is_recommended, with_policy_signature
from matrix.room_versions import ROOM_VERSIONS
from matrix.signatures import SigningKey, sign_event

KEY = SigningKey("policy_server", b"p" * 32)
SERVER = PolicyServer("policy.example", KEY.public_key)
VERSION = ROOM_VERSIONS["12"]


@pytest.mark.parametrize(
    "signatures", [None, [], "a", {SERVER.name: "a"}, {SERVER.name: []}, {SERVER.name: {"ed25519:1": "a"}, "b": 1}]
)
def test_a_signature_is_added_to_whatever_is_there(signatures: Any) -> None:
    made = build_pdu(
        room_version=VERSION,
        room_id=f"!{'a' * 43}",
        type="m.room.message",
        sender="@a:a.example",
        state_key=None,
        content={},
        prev_events=[],
        auth_events=[],
        depth=1,
        origin_server_ts=1,
        server_name="a.example",
        signing_key=SigningKey("1", b"a" * 32),
    )
    answer = sign_event({**made.json, "signatures": {}}, VERSION, SERVER.name, KEY)["signatures"]
    signed = with_policy_signature(Pdu(VERSION, made.event_id, {**made.json, "signatures": signatures}), SERVER, answer)
    assert signed is not None
    assert is_recommended(signed, SERVER)
    kept = signatures.get(SERVER.name) if isinstance(signatures, dict) else None
    expected = {"ed25519:1", POLICY_KEY_ID} if isinstance(kept, dict) else {POLICY_KEY_ID}
    assert signed.json["signatures"][SERVER.name].keys() == expected

"""Policy servers: which a room has, and whether it recommends an event.

https://spec.matrix.org/v1.19/server-server-api/#policy-servers
"""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from matrix.pdu import Pdu
from matrix.signatures import verify_event_signature
from matrix.unpadded_base64 import decode_base64

POLICY: Final = ("m.room.policy", "")
POLICY_KEY_ID: Final = "ed25519:policy_server"
""""The Key ID for the ed25519 key in m.room.policy is *always* ed25519:policy_server"; no server publishes it."""


class PolicyServer(NamedTuple):
    """Whom a room wants to be asked, and the key: empty where that cannot be read, and signs nothing then."""

    name: str
    public_key: bytes


def policy_server_of(content: Mapping[str, Any]) -> PolicyServer | None:
    """Return the server that the content of m.room.policy names; None where it is not valid.

    It is one only while somebody of it is in the room:
    https://spec.matrix.org/v1.19/server-server-api/#determining-if-a-policy-server-is-enabled-in-a-room
    """
    name, keys = content.get("via"), content.get("public_keys")
    key = keys.get("ed25519") if isinstance(keys, dict) else None
    if not isinstance(name, str) or not isinstance(key, str):
        return None
    try:
        return PolicyServer(name, decode_base64(key))
    except ValueError:
        return PolicyServer(name, b"")


def is_exempt(type: str, state_key: str | None) -> bool:
    """Tell whether an event is recommended without a signature: so that rooms can always get rid of their server."""
    return (type, state_key) == POLICY


def is_recommended(pdu: Pdu, server: PolicyServer) -> bool:
    """Tell whether an event needs no signature of the policy server, or has it.

    https://spec.matrix.org/v1.19/server-server-api/#validating-policy-server-signatures
    """
    return is_exempt(pdu.type, pdu.state_key) or verify_event_signature(
        pdu.json, pdu.room_version, server.name, POLICY_KEY_ID, server.public_key
    )


def with_policy_signature(pdu: Pdu, server: PolicyServer, answer: object) -> Pdu | None:
    """Return the event with the signature that the policy server has answered; None unless it is a good one.

    The server's other signatures, which it has where the event is its own, are kept; what is none is left out, since
    nobody has looked at it before.
    """
    by_key = answer.get(server.name) if isinstance(answer, dict) else None
    signature = by_key.get(POLICY_KEY_ID) if isinstance(by_key, dict) else None
    if not isinstance(signature, str):
        return None
    signatures = pdu.json.get("signatures")
    signatures = signatures if isinstance(signatures, dict) else {}
    others = signatures.get(server.name)
    own = {**(others if isinstance(others, dict) else {}), POLICY_KEY_ID: signature}
    signed = Pdu(pdu.room_version, pdu.event_id, {**pdu.json, "signatures": {**signatures, server.name: own}})
    return signed if is_recommended(signed, server) else None

"""The rules for m.room.third_party_invite, and for memberships of invite that accept one.

Both stand together, since one event makes the promise that the other redeems.
https://spec.matrix.org/v1.19/server-server-api/#third-party-invites
"""

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from matrix.event_auth.common import AuthContext, Rejection, get_membership
from matrix.pdu import Pdu
from matrix.power_levels import PowerLevels
from matrix.signatures import signature_key_ids, verify_json_signature
from matrix.unpadded_base64 import decode_base64

MAX_SIGNATURE_CHECKS: Final = 100
"""Bounds the work that one event can cause; real invites need one or two checks."""


class InviteKey(NamedTuple):
    """A key of an m.room.third_party_invite, and the address to ask at whether it is still good, if there is one."""

    encoded: str
    public_key: bytes
    validity_url: str | None


def check_third_party_invite(pdu: Pdu, levels: PowerLevels) -> Rejection | None:
    """Apply rule 7, for m.room.third_party_invite. All versions."""
    # 7.1. Allow if and only if the sender's power level reaches the invite level.
    if levels.user(pdu.sender) >= levels.invite:
        return None
    return Rejection("the sender may not invite")


def check_invite_by_third_party(pdu: Pdu, target: str, context: AuthContext) -> Rejection | None:
    """Apply rule 5.4.1, for invites whose content has a third_party_invite. All versions."""
    # 5.4.1.1. "If target user is banned, reject."
    if get_membership(context.auth_state, target) == "ban":
        return Rejection("the invited user is banned")
    # 5.4.1.2. Without a signed property, reject.
    third_party_invite = pdu.content["third_party_invite"]
    signed = third_party_invite.get("signed") if isinstance(third_party_invite, dict) else None
    if not isinstance(signed, dict):
        return Rejection("content.third_party_invite has no signed object")
    # 5.4.1.3. Without mxid and token in signed, reject.
    token = signed.get("token")
    if "mxid" not in signed or not isinstance(token, str):
        return Rejection("content.third_party_invite.signed lacks mxid or token")
    # 5.4.1.4. "If mxid does not match state_key, reject."
    if signed["mxid"] != target:
        return Rejection("the third party invite is for another user")
    # 5.4.1.5. Without the m.room.third_party_invite event of the token, reject.
    promise = context.auth_state.get(("m.room.third_party_invite", token))
    if promise is None:
        return Rejection("there is no third party invite with the token")
    # 5.4.1.6. "If sender does not match sender of the m.room.third_party_invite, reject."
    if pdu.sender != promise.sender:
        return Rejection("the sender did not make the third party invite")
    # 5.4.1.7. "If any signature in signed matches any public key in the m.room.third_party_invite event, allow."
    if find_invite_key(signed, promise.content) is not None:
        return None
    # 5.4.1.8. "Otherwise, reject."
    return Rejection("the third party invite has no valid signature")


def find_invite_key(signed: dict[str, Any], content: dict[str, Any]) -> InviteKey | None:
    """Return the key of an m.room.third_party_invite, of which `content` is, that `signed` is signed with."""
    signatures = signed.get("signatures")
    if not isinstance(signatures, dict):
        return None
    keys = list(_get_keys(content))
    checks = 0
    for server_name in signatures:
        for key_id in signature_key_ids(signed, server_name):
            for key in keys:
                checks += 1
                if checks > MAX_SIGNATURE_CHECKS:
                    return None
                if verify_json_signature(signed, server_name, key_id, key.public_key):
                    return key
    return None


def _get_keys(content: dict[str, Any]) -> Iterator[InviteKey]:
    entries = [content]
    public_keys = content.get("public_keys")
    if isinstance(public_keys, list):
        entries.extend(entry for entry in public_keys if isinstance(entry, dict))
    for entry in entries:
        encoded, url = entry.get("public_key"), entry.get("key_validity_url")
        if isinstance(encoded, str):
            try:
                yield InviteKey(encoded, decode_base64(encoded), url if isinstance(url, str) else None)
            except ValueError:
                continue  # a key that cannot be read matches no signature

"""Events that their senders have not made, or that are made to be taken for others.

https://spec.matrix.org/v1.19/server-server-api/#validating-hashes-and-signatures-on-received-events
"""

from __future__ import annotations

from typing import Any

import pytest

from matrix.signatures import SigningKey, sign_event
from tests.client import Homeserver, User
from tests.client_api.support import state_event
from tests.federation.peer import Peer
from tests.federation.test_hostile_events import enter, is_shown


@pytest.fixture
async def alice(weft: Homeserver) -> User:
    """Who has the rooms."""
    return await weft.register()


@pytest.mark.parametrize(("version", "promise"), [("2", {}), ("10", {}), ("11", "none"), ("12", "none")])
async def test_an_invitation_needs_a_signature_if_it_redeems_none(
    alice: User, peer: Peer, version: str, promise: Any
) -> None:
    """Invitations by third parties need no signature of their senders' servers, but that is no way round it: with
    another hash all that speaks of a third party is redacted."""
    intruder = await enter(alice, peer, version)
    friend = f"@friend:{peer.name}"
    auth = [intruder.state[type, ""] for type in ("m.room.power_levels", "m.room.join_rules")]
    if version != "12":
        auth.append(intruder.state["m.room.create", ""])
    invite = intruder.event(
        "m.room.member",
        {"membership": "invite", "third_party_invite": promise},
        sender=alice.user_id,
        state_key=friend,
        auth_events=[pdu.reference for pdu in (*auth, intruder.state["m.room.member", alice.user_id])],
        signing_key=SigningKey("any", b"a" * 32),
    )
    forged = {**invite.json, "hashes": {"sha256": "A" * 43}, "signatures": {}}
    await intruder.send(sign_event(forged, intruder.version, peer.name, peer.key))
    (await state_event(alice, intruder.room_id, "m.room.member", friend)).error(404, "M_NOT_FOUND")


async def test_auth_events_that_are_named_twice_authorise_nothing(alice: User, peer: Peer) -> None:
    intruder = await enter(alice, peer)
    auth = [intruder.state["m.room.create", ""], intruder.state["m.room.power_levels", ""], intruder.join]
    on_tip = intruder.event(auth_events=[pdu.reference for pdu in (*auth, auth[1])])
    await intruder.send(on_tip)
    await alice.send(intruder.room_id, "meanwhile")
    aside = intruder.event(auth_events=[pdu.reference for pdu in (*auth, auth[0])])
    await intruder.send(aside)
    for event in (on_tip, aside):
        assert not await is_shown(alice, intruder.room_id, event.event_id)

"""Invitations by e-mail address and the like are redeemed by a signed token.

https://spec.matrix.org/v1.19/server-server-api/#third-party-invites
"""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from aiohttp import web

from matrix.room_versions import ROOM_VERSIONS
from matrix.signatures import SigningKey, sign_event, sign_json
from tests.client import Answer, Homeserver, User
from tests.client_api.support import encode, state_event
from tests.federation.conftest import name_of
from tests.federation.peer import Peer, json

KEY = SigningKey.from_seed("0", b"i" * 32)
STRANGER = SigningKey.from_seed("0", b"j" * 32)
EXCHANGE = "/_matrix/federation/v1/exchange_third_party_invite/"


@pytest.fixture
async def alice(weft: Homeserver) -> User:
    """Who invites."""
    return await weft.register()


@pytest.fixture
async def bob(weft: Homeserver) -> User:
    """Who has the address that she knows."""
    return await weft.register()


async def promise(alice: User, version: str = "12", **content: Any) -> str:
    """A private room of Alice's that lets in whoever a token is signed for."""
    room_id = await alice.create_room(room_version=version)
    content = {"display_name": "b...@e...", "public_key": KEY.public_key_base64, **content}
    await alice.set_state(room_id, "m.room.third_party_invite", content, "token")
    return room_id


def signed_for(user_id: str, *, token: str = "token", key: SigningKey = KEY, **more: Any) -> dict[str, Any]:
    """What an identity server gives to who has the address."""
    return sign_json({"mxid": user_id, "token": token, **more}, "id.test", key)


async def join(user: User, room_id: str, signed: dict[str, Any]) -> Answer:
    """Joins by what an identity server gave."""
    return await user.in_room("POST", room_id, "join", {"third_party_signed": signed})


@pytest.mark.parametrize("version", ROOM_VERSIONS)
async def test_a_signed_token_lets_its_user_in(alice: User, bob: User, version: str) -> None:
    room_id = await promise(alice, version)
    since = (await bob.sync())["next_batch"]
    (await join(bob, room_id, signed_for(bob.user_id, sender=alice.user_id))).ok()
    room = (await bob.sync(since))["rooms"]["join"][room_id]
    invite, joined = [e for e in room["timeline"]["events"] if e.get("state_key") == bob.user_id]
    assert (invite["sender"], invite["content"]["membership"]) == (alice.user_id, "invite")
    assert invite["content"]["third_party_invite"]["display_name"] == "b...@e..."
    assert joined["content"]["membership"] == "join"
    (await join(bob, room_id, signed_for(bob.user_id, sender=alice.user_id))).ok()
    assert (await state_event(bob, room_id, "m.room.member", bob.user_id)).ok()["membership"] == "join"


async def test_no_other_token_does(alice: User, bob: User) -> None:
    room_id = await promise(alice)
    for wrong in (
        signed_for(bob.user_id, sender=alice.user_id, token="other"),
        signed_for(bob.user_id, sender=alice.user_id, key=STRANGER),
        signed_for(alice.user_id, sender=alice.user_id),
        signed_for(bob.user_id, sender=bob.user_id),
        {**signed_for(bob.user_id, sender=alice.user_id), "more": 1},
        {**signed_for(bob.user_id, sender=alice.user_id), "signatures": {}},
    ):
        (await join(bob, room_id, wrong)).error(403, "M_FORBIDDEN")
    (await join(bob, room_id, {"mxid": bob.user_id})).error(400, "M_MISSING_PARAM")
    (await state_event(alice, room_id, "m.room.member", bob.user_id)).error(404, "M_NOT_FOUND")


@pytest.mark.parametrize("valid", [True, False, None])
async def test_keys_are_asked_after(alice: User, bob: User, peer: Peer, valid: bool | None) -> None:
    room_id = await promise(alice, key_validity_url=f"https://{peer.name}/isvalid")
    if valid is not None:
        peer.handlers["/isvalid"] = json({"valid": valid})
    answer = await join(bob, room_id, signed_for(bob.user_id, sender=alice.user_id))
    assert answer.status == (200 if valid else 403)
    assert peer.asked[-1].query["public_key"] == KEY.public_key_base64


def outline(room_id: str, sender: str, user_id: str, signed: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """The event that a server wants made."""
    content = {"membership": "invite", "third_party_invite": {"display_name": "?", "signed": signed}}
    event = {"type": "m.room.member", "room_id": room_id, "sender": sender, "state_key": user_id, "content": content}
    return {**event, **changes}


async def test_another_server_has_its_user_invited(alice: User, peer: Peer) -> None:
    room_id, carol = await promise(alice), f"@carol:{peer.name}"
    uri = f"{EXCHANGE}{encode(room_id)}"
    here = name_of(alice.homeserver)
    good = outline(room_id, alice.user_id, carol, signed_for(carol))

    async def sign(request: web.BaseRequest) -> web.StreamResponse:
        invite = orjson.loads(await request.read())
        version = ROOM_VERSIONS[invite["room_version"]]
        return web.json_response({"event": sign_event(invite["event"], version, peer.name, peer.key)})

    peer.handlers[f"/_matrix/federation/v2/invite/{room_id}/"] = sign
    for wrong in (
        outline(room_id, alice.user_id, carol, signed_for(carol, key=STRANGER)),
        outline(room_id, alice.user_id, "@carol:elsewhere.test", signed_for("@carol:elsewhere.test")),
        outline(room_id, carol, carol, signed_for(carol)),
    ):
        (await peer.ask(here, "PUT", uri, wrong)).error(403, "M_FORBIDDEN")
    (await peer.ask(here, "PUT", uri, {**good, "room_id": "!other"})).error(400, "M_INVALID_PARAM")
    (await peer.ask(here, "PUT", uri, {**good, "type": "m.room.message"})).error(400, "M_INVALID_PARAM")
    (await peer.ask(here, "PUT", f"{EXCHANGE}!no:where", {**good, "room_id": "!no:where"})).error(404, "M_NOT_FOUND")
    (await state_event(alice, room_id, "m.room.member", carol)).error(404, "M_NOT_FOUND")
    assert (await peer.ask(here, "PUT", uri, good)).ok() == {}
    content = (await state_event(alice, room_id, "m.room.member", carol)).ok()
    assert content["third_party_invite"] == {"display_name": "b...@e...", "signed": signed_for(carol)}


async def on_bind(bob: User, peer: Peer, *invites: dict[str, Any], mxid: str | None = None) -> Answer:
    """What an identity server tells once Bob has shown that an address is his."""
    body = {"medium": "email", "address": "bob@example.org", "mxid": mxid or bob.user_id, "invites": list(invites)}
    return await peer.ask(name_of(bob.homeserver), "PUT", "/_matrix/federation/v1/3pid/onbind", body, authorization=[])


async def test_an_identity_server_tells_of_invitations(alice: User, bob: User, peer: Peer) -> None:
    room_id = await promise(alice)
    asked: list[Any] = []

    async def exchange(request: web.BaseRequest) -> web.StreamResponse:
        asked.append(orjson.loads(await request.read()))
        return web.json_response({})

    peer.handlers[EXCHANGE] = exchange
    away = {"room_id": "!away", "sender": f"@dave:{peer.name}", "signed": signed_for(bob.user_id)}
    wrong = {"room_id": room_id, "sender": alice.user_id, "signed": signed_for(bob.user_id, key=STRANGER)}
    here = {"room_id": room_id, "sender": alice.user_id, "signed": signed_for(bob.user_id)}
    assert (await on_bind(bob, peer, wrong, away, here)).ok() == {}
    assert room_id in (await bob.sync())["rooms"]["invite"]
    assert [event["room_id"] for event in asked] == ["!away"]
    assert asked[0]["content"]["third_party_invite"]["signed"] == signed_for(bob.user_id)
    (await on_bind(bob, peer, mxid=f"@bob:{peer.name}")).error(400, "M_INVALID_PARAM")
    (await on_bind(bob, peer, mxid=f"@nobody:{name_of(bob.homeserver)}")).error(404, "M_NOT_FOUND")

"""A server that a room's access control list keeps out is heard there by no door.

https://spec.matrix.org/v1.19/server-server-api/#server-access-control-lists-acls
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from matrix.pdu import Pdu
from tests.client import Homeserver
from tests.federation.peer import Peer
from tests.federation.test_hostile_events import Intruder


def member(intruder: Intruder, membership: str, user_id: str = "") -> Pdu:
    content = {"membership": membership}
    return intruder.event("m.room.member", content, state_key=user_id or intruder.user_id)


def put(intruder: Intruder, path: str, pdu: Pdu, body: Any = None) -> tuple[str, str, Any]:
    room, event = quote(intruder.room_id, safe=""), quote(pdu.event_id, safe="")
    return "PUT", f"{path}/{room}/{event}", body or pdu.json


def doors(intruder: Intruder, alice_id: str) -> list[tuple[str, str, Any]]:
    """Method, path below /_matrix/federation, body: all that has to be closed, and what Weft closes besides."""
    room, user = quote(intruder.room_id, safe=""), quote(intruder.user_id, safe="")
    event = quote(intruder.join.event_id, safe="")
    invite = member(intruder, "invite", alice_id)
    signed = {"mxid": intruder.user_id, "token": "a", "signatures": {}}
    third_party = {"membership": "invite", "third_party_invite": {"display_name": "a", "signed": signed}}
    return [
        *(("GET", f"v1/make_{step}/{room}/{user}?ver=1", None) for step in ("join", "leave", "knock")),
        put(intruder, "v2/send_join", intruder.join),
        put(intruder, "v2/send_leave", member(intruder, "leave")),
        put(intruder, "v1/send_knock", member(intruder, "knock")),
        put(intruder, "v1/invite", invite),
        put(intruder, "v2/invite", invite, {"room_version": "1", "event": invite.json, "invite_room_state": []}),
        ("GET", f"v1/state/{room}?event_id={event}", None),
        ("GET", f"v1/state_ids/{room}?event_id={event}", None),
        ("GET", f"v1/backfill/{room}?v={event}&limit=5", None),
        ("GET", f"v1/event_auth/{room}/{event}", None),
        ("GET", f"v1/event/{event}", None),
        ("GET", f"v1/timestamp_to_event/{room}?ts=0&dir=f", None),
        ("POST", f"v1/get_missing_events/{room}", {"earliest_events": [], "latest_events": []}),
        (
            "PUT",
            f"v1/exchange_third_party_invite/{room}",
            {
                "type": "m.room.member",
                "room_id": intruder.room_id,
                "sender": alice_id,
                "state_key": intruder.user_id,
                "content": third_party,
            },
        ),
    ]


async def test_who_is_kept_out_finds_every_door_closed(weft: Homeserver, peer: Peer) -> None:
    alice = await weft.register()
    room_id = await alice.create_room(preset="public_chat", room_version="1")
    intruder = await Intruder.enter(peer, weft, room_id)
    await alice.set_state(room_id, "m.room.server_acl", {"allow": ["*"], "deny": ["127.0.0.?"]})
    for method, path, body in doors(intruder, alice.user_id):
        answer = await peer.ask(intruder.server_name, method, f"/_matrix/federation/{path}", body)
        assert (path, answer.status, answer.json["errcode"]) == (path, 403, "M_FORBIDDEN"), answer.json
    # Here it is as if the room were none that it could join.
    hierarchy = f"/_matrix/federation/v1/hierarchy/{quote(room_id, safe='')}"
    (await peer.ask(intruder.server_name, "GET", hierarchy)).error(404, "M_NOT_FOUND")


async def test_who_is_kept_out_is_not_heard(weft: Homeserver, peer: Peer) -> None:
    alice = await weft.register()
    room_id = await alice.create_room(preset="public_chat")
    open_id = await alice.create_room(preset="public_chat", room_version="11")
    intruder, guest = await Intruder.enter(peer, weft, room_id), await Intruder.enter(peer, weft, open_id)
    await alice.set_state(room_id, "m.room.server_acl", {"allow": ["*"], "allow_ip_literals": False})
    since = (await alice.sync())["next_batch"]
    event, heard = intruder.event(), guest.event()
    receipts = {
        one.room_id: {"m.read": {one.user_id: {"data": {"ts": 1}, "event_ids": [one.join.event_id]}}}
        for one in (intruder, guest)
    }
    typing = [{"room_id": one.room_id, "user_id": one.user_id, "typing": True} for one in (intruder, guest)]
    edus = [("m.receipt", receipts), *(("m.typing", content) for content in typing)]
    told = [{"edu_type": edu_type, "content": content} for edu_type, content in edus]
    results = (await intruder.send(event, heard, edus=told)).ok()["pdus"]
    assert "error" in results[event.event_id]
    assert results[heard.event_id] == {}
    joined = (await alice.sync(since))["rooms"]["join"]
    assert joined.keys() == {open_id}
    assert {event["type"] for event in joined[open_id]["ephemeral"]["events"]} == {"m.typing", "m.receipt"}

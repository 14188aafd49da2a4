"""An invitation to a room that nobody here is in: phones, mailboxes and application services hear of it.

https://spec.matrix.org/v1.19/server-server-api/#inviting-to-a-room
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

from benchmarks.authority import Authority
from matrix.pdu import Pdu
from storage.appservices import AppserviceRepository
from storage.pushers import PusherRepository
from tests.appservice.support import Appservice, ghost, listening
from tests.client import User
from tests.email.smtp import email_config, mailbox_started
from tests.email.test_notifications import MovingClock, Post, next_notification, notifications
from tests.federation.conftest import MakeServer, name_of
from tests.federation.peer import Peer, running_peer
from tests.federation.test_hostile_rooms import Host
from tests.push.gateway import PUSH, gateway_started, set_pusher

numbers = itertools.count(1)


def told_state(host: Host) -> list[dict[str, Any]]:
    """What the inviting server tells of its room."""
    name = {"type": "m.room.name", "state_key": "", "content": {"name": "Far away"}, "sender": host.user_id}
    member = {"membership": "join", "displayname": "Hostess"}
    inviter = {"type": "m.room.member", "state_key": host.user_id, "content": member, "sender": host.user_id}
    return [name, inviter]


async def ignore(user: User, ignored: str) -> None:
    content = {"ignored_users": {ignored: {}}}
    (await user.request("PUT", f"user/{user.user_id}/account_data/m.ignored_user_list", content)).ok()


async def test_phones_and_mailboxes_hear_of_it(make_server: MakeServer, peer: Peer, tmp_path: Path) -> None:
    async with gateway_started() as gateway, mailbox_started() as (mailbox, port):
        email = email_config(tmp_path, port, notify_after_ms=1_000).email
        weft = await make_server("localhost", push=PUSH, email=email, public_base_url="https://weft.test")
        post = Post(weft, mailbox, MovingClock())
        alice, address = await post.user("alice")
        await set_pusher(alice, gateway.url)
        unwanted, host = Host(peer, weft), Host(peer, weft)
        unwanted.user_id = f"@pest:{peer.name}"
        await ignore(alice, f"@pest:{peer.name}")
        (await unwanted.invite(alice.user_id)).ok()
        (await host.invite(alice.user_id, told_state(host))).ok()
        await gateway.wait(gateway.event_ids)
        [push] = [one for one in gateway.taken if "event_id" in one]
        assert (push["room_id"], push["room_name"]) == (host.room_id, "Far away")
        assert (push["sender"], push["sender_display_name"]) == (host.user_id, "Hostess")
        assert (push["type"], push["user_is_target"]) == ("m.room.member", True)
        text = await next_notification(post, address)
        assert "Hostess" in text
        assert "Invites you to this room" in text
        assert f"https://matrix.to/#/{host.room_id}/" in text
        assert mailbox.to(address)[-1]["Subject"] == "Hostess invites you to Far away"

        # Who missed it finds it, and it is over once it was declined.
        assert weft.running is not None
        rows = PusherRepository(weft.running.server.database.pool)
        assert len(await rows.load_events_after(0, up_to=2**62, limit=10)) > 0
        other = Host(peer, weft)
        (await other.invite(alice.user_id)).ok()
        await gateway.wait(lambda: len(gateway.event_ids()) == 2)
        (await alice.in_room("POST", other.room_id, "leave", {})).ok()
        assert len(notifications(mailbox, address)) == 1


async def test_application_services_hear_of_it(make_server: MakeServer, peer: Peer) -> None:
    weft = await make_server("localhost")
    assert weft.running is not None
    server = weft.running.server
    async with listening(Appservice("bridge")) as service:
        service.write(server.config.data_dir)
        await server.appservices.registrations.check()
        await ghost(weft, service, "invited")
        user_id = service.user("invited").replace("weft.test", name_of(weft))
        host = Host(peer, weft)
        (await host.invite(user_id, told_state(host))).ok()
        await service.wait(lambda: [event for event in service.events() if event["room_id"] == host.room_id])
        [invitation] = [event for event in service.events() if event["room_id"] == host.room_id]
        assert (invitation["state_key"], invitation["content"]["membership"]) == (user_id, "invite")
        passing = await AppserviceRepository(server.database.pool).load_passing(0, 2**62, 1000)
        assert [row.type for row in passing][-1:] == ["m.room.member"], "and finds it after a restart"


async def test_it_may_be_taken_back(make_server: MakeServer, peer: Peer, authority: Authority) -> None:
    weft = await make_server("localhost")
    alice = await weft.register()
    host = Host(peer, weft)
    (await host.invite(alice.user_id, told_state(host))).ok()
    invited = await alice.sync()
    assert host.room_id in invited["rooms"]["invite"]
    create, member, rules = host.state

    def leave(**changes: Any) -> Pdu:
        content = {"membership": "leave", "reason": "a mistake", **changes.pop("content", {})}
        auth = changes.pop("auth", [create, member, host.invitation])
        return host.event("m.room.member", content, [rules], auth, state_key=changes.pop("state_key", alice.user_id))

    async def send(by: Peer, *pdus: Pdu) -> Any:
        content = {"origin": by.name, "origin_server_ts": 0, "pdus": [pdu.json for pdu in pdus]}
        path = f"/_matrix/federation/v1/send/back{next(numbers)}"
        return (await by.ask(name_of(weft), "PUT", path, content)).ok()["pdus"]

    about_nothing = leave(auth=[create, member])
    accepts = leave(content={"membership": "join"})
    of_others = leave(state_key=host.user_id)
    assert await send(peer, about_nothing, accepts, of_others) == {}
    async with running_peer(authority, "127.0.0.1") as other:
        assert await send(other, leave()) == {}
    assert host.room_id in (await alice.sync())["rooms"]["invite"]
    good = leave()
    assert await send(peer, good) == {good.event_id: {}}
    since = await alice.sync(invited["next_batch"])
    assert host.room_id in since["rooms"]["leave"]
    assert host.room_id not in (await alice.sync())["rooms"].get("invite", {})
    assert await send(peer, good) == {}

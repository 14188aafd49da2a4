"""https://spec.matrix.org/v1.19/client-server-api/#room-membership"""

from __future__ import annotations

import asyncio
import secrets
from typing import Any

import pytest

from tests.client import Homeserver, User
from tests.client_api.support import encode, make_room, membership_of, state_event


@pytest.fixture
async def alice(shared_homeserver: Homeserver) -> User:
    return await shared_homeserver.register()


@pytest.fixture
async def bob(shared_homeserver: Homeserver) -> User:
    return await shared_homeserver.register()


@pytest.fixture
async def carol(shared_homeserver: Homeserver) -> User:
    return await shared_homeserver.register()


async def act(user: User, action: str, room_id: str, target: User | None = None, **body: Any) -> Any:
    if target is not None:
        body["user_id"] = target.user_id
    return await user.in_room("POST", room_id, action, body)


async def test_who_is_invited_may_join_a_private_room_and_nobody_else(alice: User, bob: User, carol: User) -> None:
    room_id = await alice.create_room(preset="private_chat")
    (await act(bob, "join", room_id)).error(403, "M_FORBIDDEN")
    (await bob.request("POST", f"join/{encode(room_id)}", {})).error(403, "M_FORBIDDEN")
    (await act(alice, "invite", room_id, bob, reason="welcome")).ok()
    assert (await state_event(alice, room_id, "m.room.member", bob.user_id)).ok()["reason"] == "welcome"
    assert (await act(bob, "join", room_id, reason="thanks")).ok() == {"room_id": room_id}
    content = (await state_event(alice, room_id, "m.room.member", bob.user_id)).ok()
    assert (content["membership"], content["reason"]) == ("join", "thanks")
    (await act(carol, "join", room_id)).error(403, "M_FORBIDDEN")
    assert await membership_of(alice, room_id, carol) is None


async def test_join_by_id_and_by_alias_and_again(alice: User, bob: User) -> None:
    name = secrets.token_hex(4)
    room_id = await alice.create_room(preset="public_chat", room_alias_name=name)
    answer = await bob.request("POST", f"join/{encode(f'#{name}:weft.test')}", {})
    assert answer.ok() == {"room_id": room_id}
    position = (await bob.in_room("GET", room_id, f"state/m.room.member/{encode(bob.user_id)}", format="event")).ok()
    assert (await bob.request("POST", f"join/{encode(room_id)}")).ok() == {"room_id": room_id}
    again = (await bob.in_room("GET", room_id, f"state/m.room.member/{encode(bob.user_id)}", format="event")).ok()
    assert again["event_id"] == position["event_id"]
    (await bob.request("POST", "join/%23nobody:weft.test", {})).error(404, "M_NOT_FOUND")
    (await bob.request("POST", f"join/{encode('!unknown:weft.test')}", {})).error(404, "M_NOT_FOUND")
    for action in ("join", "knock"):
        (await bob.request("POST", f"{action}/nonsense", {})).error(400, "M_INVALID_PARAM")
    assert (await bob.request("GET", "joined_rooms")).ok() == {"joined_rooms": [room_id]}


async def test_only_members_with_the_power_invite(alice: User, bob: User, carol: User) -> None:
    room_id = await make_room(bob, creator=alice, power_level_content_override={"invite": 50})
    (await act(carol, "invite", room_id, carol)).error(403, "M_FORBIDDEN")
    (await act(bob, "invite", room_id, carol)).error(403, "M_FORBIDDEN")
    (await act(alice, "invite", room_id, bob)).error(403, "M_FORBIDDEN")
    (await act(alice, "invite", room_id, carol)).ok()
    (await act(alice, "ban", room_id, carol)).ok()
    (await act(alice, "invite", room_id, carol)).error(403, "M_FORBIDDEN")
    unknown = await alice.in_room("POST", room_id, "invite", {"user_id": "@nobody:weft.test"})
    assert unknown.status in (403, 404)


async def test_an_invitation_can_be_declined_and_taken_back(alice: User, bob: User, carol: User) -> None:
    room_id = await alice.create_room(preset="private_chat", invite=[bob.user_id, carol.user_id])
    (await act(bob, "leave", room_id, reason="no")).ok()
    (await act(alice, "kick", room_id, carol)).ok()
    for user in (bob, carol):
        assert await membership_of(alice, room_id, user) == "leave"
        (await act(user, "join", room_id)).error(403, "M_FORBIDDEN")
        (await user.in_room("GET", room_id, "state")).error(403, "M_FORBIDDEN")


async def test_leaving(alice: User, bob: User) -> None:
    room_id = await make_room(bob, creator=alice)
    (await act(bob, "leave", room_id)).ok()
    (await act(bob, "leave", room_id)).error(403, "M_FORBIDDEN")
    (await bob.in_room("PUT", room_id, "send/m.room.message/1", {})).error(403, "M_FORBIDDEN")
    (await bob.in_room("PUT", room_id, "state/m.room.topic/", {})).error(403, "M_FORBIDDEN")
    (await bob.in_room("GET", room_id, "joined_members")).error(403, "M_FORBIDDEN")
    assert (await bob.request("GET", "joined_rooms")).ok() == {"joined_rooms": []}
    await bob.join(room_id)
    await bob.send(room_id, "back")


async def test_kicking(alice: User, bob: User, carol: User) -> None:
    room_id = await make_room(bob, carol, creator=alice)
    (await act(bob, "kick", room_id, carol)).error(403, "M_FORBIDDEN")
    (await act(bob, "kick", room_id, alice)).error(403, "M_FORBIDDEN")
    (await act(alice, "kick", room_id, carol, reason="out")).ok()
    member = (await state_event(alice, room_id, "m.room.member", carol.user_id)).ok()
    assert (member["membership"], member["reason"]) == ("leave", "out")
    (await act(alice, "kick", room_id, carol)).error(403, "M_FORBIDDEN")
    (await act(carol, "kick", room_id, bob)).error(403, "M_FORBIDDEN")
    await carol.join(room_id)


async def test_banning(alice: User, bob: User, carol: User) -> None:
    room_id = await make_room(bob, creator=alice)
    (await act(bob, "ban", room_id, carol)).error(403, "M_FORBIDDEN")
    (await act(alice, "ban", room_id, carol, reason="spam")).ok()
    (await act(alice, "ban", room_id, bob)).ok()
    for user in (bob, carol):
        (await act(user, "join", room_id)).error(403, "M_FORBIDDEN")
        (await act(user, "leave", room_id)).error(403, "M_FORBIDDEN")
        assert await membership_of(alice, room_id, user) == "ban"
    assert (await act(carol, "unban", room_id, carol)).status == 403
    (await act(alice, "unban", room_id, carol)).ok()
    assert await membership_of(alice, room_id, carol) == "leave"
    assert (await act(alice, "unban", room_id, carol)).status == 403
    await carol.join(room_id)
    (await act(carol, "unban", room_id, bob)).error(403, "M_FORBIDDEN")


async def test_knocking(alice: User, bob: User, carol: User) -> None:
    knock = {"type": "m.room.join_rules", "content": {"join_rule": "knock"}}
    room_id = await alice.create_room(initial_state=[knock])
    (await act(bob, "join", room_id)).error(403, "M_FORBIDDEN")
    answer = await bob.request("POST", f"knock/{encode(room_id)}", {"reason": "please"})
    assert answer.ok() == {"room_id": room_id}
    member = (await state_event(alice, room_id, "m.room.member", bob.user_id)).ok()
    assert (member["membership"], member["reason"]) == ("knock", "please")
    (await act(bob, "join", room_id)).error(403, "M_FORBIDDEN")
    (await act(alice, "invite", room_id, bob)).ok()
    (await bob.request("POST", f"knock/{encode(room_id)}", {})).error(403, "M_FORBIDDEN")
    await bob.join(room_id)
    (await bob.request("POST", f"knock/{encode(room_id)}", {})).error(403, "M_FORBIDDEN")
    (await carol.request("POST", f"knock/{encode(room_id)}")).ok()
    (await act(carol, "leave", room_id)).ok()
    assert await membership_of(alice, room_id, carol) == "leave"
    (await act(alice, "ban", room_id, carol)).ok()
    (await carol.request("POST", f"knock/{encode(room_id)}", {})).error(403, "M_FORBIDDEN")


async def test_knocking_where_nobody_may(alice: User, bob: User) -> None:
    private = await alice.create_room(preset="private_chat")
    (await bob.request("POST", f"knock/{encode(private)}", {})).error(403, "M_FORBIDDEN")
    old = await alice.create_room(preset="private_chat", room_version="6")
    (await bob.request("POST", f"knock/{encode(old)}", {})).error(403, "M_FORBIDDEN")
    for unknown in ("!unknown:weft.test", "#unknown:weft.test"):
        (await bob.request("POST", f"knock/{encode(unknown)}", {})).error(404, "M_NOT_FOUND")


@pytest.mark.parametrize("version", ["8", "10", "12"])
@pytest.mark.parametrize("rule", ["restricted", "knock_restricted"])
async def test_restricted_rooms_let_in_members_of_the_allowed_rooms(
    shared_homeserver: Homeserver, version: str, rule: str
) -> None:
    if (rule, version) == ("knock_restricted", "8"):
        version = "11"  # the rule came with room version 10
    alice, bob, carol = [await shared_homeserver.register() for _ in range(3)]
    space = await make_room(bob, creator=alice)
    allow = [
        {"type": "unknown"},
        1,
        {"type": "m.room_membership", "room_id": []},
        {"type": "m.room_membership", "room_id": space},
    ]
    rules = {"type": "m.room.join_rules", "content": {"join_rule": rule, "allow": allow}}
    room_id = await alice.create_room(room_version=version, initial_state=[rules])
    (await act(carol, "join", room_id)).error(403, "M_FORBIDDEN")
    await bob.join(room_id)
    content = (await state_event(alice, room_id, "m.room.member", bob.user_id)).ok()
    assert content["join_authorised_via_users_server"] == alice.user_id
    (await act(alice, "invite", room_id, carol)).ok()
    await carol.join(room_id)
    assert (
        "join_authorised_via_users_server"
        not in (await state_event(alice, room_id, "m.room.member", carol.user_id)).ok()
    )


async def test_a_restricted_room_where_nobody_can_let_in(alice: User, bob: User, carol: User) -> None:
    space = await make_room(bob, creator=alice)
    rules = {
        "type": "m.room.join_rules",
        "content": {"join_rule": "restricted", "allow": [{"type": "m.room_membership", "room_id": space}]},
    }
    levels = {"invite": 100, "users": {alice.user_id: 100}}
    room_id = await alice.create_room(
        room_version="11", initial_state=[rules], power_level_content_override=levels, invite=[carol.user_id]
    )
    await carol.join(room_id)
    (await act(alice, "leave", room_id)).ok()
    answer = await act(bob, "join", room_id)
    assert answer.status in (400, 403)
    assert answer.json["errcode"] in ("M_UNABLE_TO_GRANT_JOIN", "M_FORBIDDEN")


async def test_forgetting_a_room_ends_the_reading_of_it(alice: User, bob: User) -> None:
    room_id = await make_room(bob, creator=alice)
    event_id = await alice.send(room_id, "while bob was here")
    (await act(bob, "forget", room_id)).error(400, "M_UNKNOWN")
    (await act(bob, "leave", room_id)).ok()
    (await bob.in_room("GET", room_id, "state")).ok()
    (await act(bob, "forget", room_id)).ok()
    (await act(bob, "forget", room_id)).ok()
    (await bob.in_room("GET", room_id, "state")).error(403, "M_FORBIDDEN")
    (await bob.in_room("GET", room_id, "messages", dir="b")).error(403, "M_FORBIDDEN")
    (await bob.in_room("GET", room_id, "members")).error(403, "M_FORBIDDEN")
    (await bob.in_room("GET", room_id, f"event/{encode(event_id)}")).error(404, "M_NOT_FOUND")
    include_leave = '{"room":{"include_leave":true}}'
    assert "leave" not in (await bob.sync(filter=include_leave))["rooms"]
    await bob.join(room_id)
    (await bob.in_room("GET", room_id, f"event/{encode(event_id)}")).ok()


async def test_forgetting_a_room_that_one_never_was_in(alice: User, bob: User) -> None:
    room_id = await alice.create_room(preset="public_chat")
    (await act(bob, "forget", room_id)).error(404, "M_NOT_FOUND")
    (await act(bob, "forget", "!unknown:weft.test")).error(404, "M_NOT_FOUND")


async def test_member_events_through_the_state_endpoint_follow_the_rules(alice: User, bob: User, carol: User) -> None:
    room_id = await make_room(bob, creator=alice)
    path = f"state/m.room.member/{encode(bob.user_id)}"
    (await bob.in_room("PUT", room_id, path, {"membership": "join", "displayname": "Here only"})).ok()
    assert (await state_event(alice, room_id, "m.room.member", bob.user_id)).ok()["displayname"] == "Here only"
    for content in ({}, {"membership": 1}, {"membership": "guest"}, {"membership": "ban"}, {"membership": "invite"}):
        assert (await bob.in_room("PUT", room_id, path, content)).status in (400, 403), content
    other = f"state/m.room.member/{encode(carol.user_id)}"
    (await alice.in_room("PUT", room_id, other, {"membership": "join"})).error(403, "M_FORBIDDEN")
    (await bob.in_room("PUT", room_id, path, {"membership": "leave"})).ok()
    assert (await bob.request("GET", "joined_rooms")).ok() == {"joined_rooms": []}
    (await bob.in_room("PUT", room_id, path, {"membership": "join"})).ok()
    assert (await bob.request("GET", "joined_rooms")).ok() == {"joined_rooms": [room_id]}
    await bob.send(room_id, "here again")
    closed = await alice.create_room()
    (await bob.in_room("PUT", closed, path, {"membership": "join"})).error(403, "M_FORBIDDEN")
    (await bob.in_room("PUT", "!unknown:weft.test", path, {"membership": "join"})).error(404, "M_NOT_FOUND")
    assert await membership_of(alice, closed, bob) is None


async def test_many_joins_at_once(shared_homeserver: Homeserver, alice: User) -> None:
    users = [await shared_homeserver.register() for _ in range(8)]
    room_id = await alice.create_room(preset="public_chat")
    await asyncio.gather(*(user.join(room_id) for user in users), *(user.join(room_id) for user in users))
    members = (await alice.in_room("GET", room_id, "joined_members")).ok()["joined"]
    assert members.keys() == {alice.user_id, *(user.user_id for user in users)}
    summary = (await alice.sync())["rooms"]["join"][room_id]["summary"]
    assert summary["m.joined_member_count"] == 9

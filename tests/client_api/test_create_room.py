"""https://spec.matrix.org/v1.19/client-server-api/#creation"""

from __future__ import annotations

import asyncio
import secrets
from typing import Any

import pytest

from matrix.room_versions import ROOM_VERSIONS
from tests.client import Homeserver, User
from tests.client_api.support import encode, page_through, state_event
from tests.conftest import StartServer

CREATOR_IN_CONTENT = [str(number) for number in range(1, 11)]


async def state(user: User, room_id: str) -> dict[tuple[str, str], dict[str, Any]]:
    events = (await user.in_room("GET", room_id, "state")).ok()
    return {(event["type"], event["state_key"]): event["content"] for event in events}


@pytest.mark.parametrize("version", ROOM_VERSIONS)
async def test_the_first_events_come_in_the_order_of_the_specification(
    shared_homeserver: Homeserver, version: str
) -> None:
    alice, bob = await shared_homeserver.register(), await shared_homeserver.register()
    name = secrets.token_hex(4)
    room_id = await alice.create_room(
        room_version=version,
        room_alias_name=name,
        name="Name",
        topic="Topic",
        invite=[bob.user_id],
        is_direct=True,
        initial_state=[{"type": "org.example.x", "content": {"a": 1}}],
    )
    events = await page_through(alice, room_id, "f", limit=100)
    assert [event["type"] for event in events] == [
        "m.room.create",
        "m.room.member",
        "m.room.power_levels",
        "m.room.canonical_alias",
        "m.room.join_rules",
        "m.room.history_visibility",
        "m.room.guest_access",
        "org.example.x",
        "m.room.name",
        "m.room.topic",
        "m.room.member",
    ]
    assert all("state_key" in event and event["sender"] == alice.user_id for event in events)
    create = events[0]["content"]
    assert create["room_version"] == version
    assert ("creator" in create) == (version in CREATOR_IN_CONTENT)
    assert events[3]["content"] == {"alias": f"#{name}:weft.test"}
    assert events[-1]["state_key"] == bob.user_id
    assert events[-1]["content"]["membership"] == "invite"
    assert events[-1]["content"]["is_direct"] is True
    assert events[-2]["content"]["topic"] == "Topic"
    assert events[-2]["content"]["m.topic"] == {"m.text": [{"body": "Topic", "mimetype": "text/plain"}]}


async def test_a_room_of_version_12_is_named_after_its_create_event(shared_homeserver: Homeserver) -> None:
    alice = await shared_homeserver.register()
    room_id = await alice.create_room(room_version="12")
    event = (await alice.in_room("GET", room_id, "state/m.room.create/", format="event")).ok()
    assert room_id == "!" + event["event_id"][1:]
    assert event["room_id"] == room_id


@pytest.mark.parametrize(
    ("options", "join_rule", "visibility", "guest_access"),
    [
        ({}, "invite", "shared", "can_join"),
        ({"visibility": "private"}, "invite", "shared", "can_join"),
        ({"visibility": "public"}, "public", "shared", "forbidden"),
        ({"preset": "private_chat"}, "invite", "shared", "can_join"),
        ({"preset": "trusted_private_chat"}, "invite", "shared", "can_join"),
        ({"preset": "public_chat"}, "public", "shared", "forbidden"),
        ({"preset": "private_chat", "visibility": "public"}, "invite", "shared", "can_join"),
    ],
)
async def test_presets(
    shared_homeserver: Homeserver, options: dict[str, Any], join_rule: str, visibility: str, guest_access: str
) -> None:
    alice = await shared_homeserver.register()
    room_id = await alice.create_room(**options)
    found = await state(alice, room_id)
    assert found["m.room.join_rules", ""] == {"join_rule": join_rule}
    assert found["m.room.history_visibility", ""] == {"history_visibility": visibility}
    assert found["m.room.guest_access", ""] == {"guest_access": guest_access}


async def test_a_trusted_private_chat_gives_invitees_the_power_of_the_creator(shared_homeserver: Homeserver) -> None:
    alice, bob = await shared_homeserver.register(), await shared_homeserver.register()
    old = await alice.create_room(room_version="11", preset="trusted_private_chat", invite=[bob.user_id])
    levels = (await state_event(alice, old, "m.room.power_levels")).ok()
    assert levels["users"] == {alice.user_id: 100, bob.user_id: 100}
    new = await alice.create_room(room_version="12", preset="trusted_private_chat", invite=[bob.user_id])
    assert (await state_event(alice, new, "m.room.create")).ok()["additional_creators"] == [bob.user_id]
    await bob.join(new)
    await bob.set_state(new, "m.room.tombstone", {"body": "moved", "replacement_room": "!x"})


async def test_creators_of_version_12_stand_in_no_power_levels(shared_homeserver: Homeserver) -> None:
    alice, bob = await shared_homeserver.register(), await shared_homeserver.register()
    content = {"additional_creators": [bob.user_id]}
    room_id = await alice.create_room(room_version="12", creation_content=content, preset="public_chat")
    found = await state(alice, room_id)
    assert found["m.room.create", ""]["additional_creators"] == [bob.user_id]
    assert found["m.room.power_levels", ""]["users"] == {}
    assert found["m.room.power_levels", ""]["events"]["m.room.tombstone"] > 100
    await bob.join(room_id)
    await bob.set_state(room_id, "m.room.power_levels", {**found["m.room.power_levels", ""], "ban": 200})
    for users in ({alice.user_id: 100}, {bob.user_id: 0}):
        levels = {**found["m.room.power_levels", ""], "users": users}
        (await alice.in_room("PUT", room_id, "state/m.room.power_levels/", levels)).error(403, "M_FORBIDDEN")


@pytest.mark.parametrize("creators", ["x", [1], ["nobody"], [None], {"a": 1}, None])
async def test_additional_creators_must_be_user_ids(shared_homeserver: Homeserver, creators: Any) -> None:
    alice = await shared_homeserver.register()
    options = {"room_version": "12", "creation_content": {"additional_creators": creators}}
    assert (await alice.request("POST", "createRoom", options)).status == 400
    await alice.create_room(room_version="11", creation_content={"additional_creators": creators})


async def test_creation_content_cannot_forge_what_the_server_sets(shared_homeserver: Homeserver) -> None:
    alice = await shared_homeserver.register()
    given = {"creator": "@mallory:weft.test", "room_version": "99", "m.federate": False, "type": "m.space"}
    for version in ("10", "11"):
        room_id = await alice.create_room(room_version=version, creation_content=given)
        content = (await state_event(alice, room_id, "m.room.create")).ok()
        expected = {"room_version": version, "m.federate": False, "type": "m.space"}
        assert content == (expected if version == "11" else {**expected, "creator": alice.user_id})


async def test_initial_state_outdoes_the_preset_and_name_and_topic_outdo_initial_state(
    shared_homeserver: Homeserver,
) -> None:
    alice = await shared_homeserver.register()
    room_id = await alice.create_room(
        preset="private_chat",
        name="from name",
        topic="from topic",
        initial_state=[
            {"type": "m.room.join_rules", "content": {"join_rule": "knock"}},
            {"type": "m.room.history_visibility", "content": {"history_visibility": "joined"}},
            {"type": "m.room.name", "state_key": "", "content": {"name": "from state"}},
            {"type": "m.room.topic", "content": {"topic": "from state"}},
            {"type": "org.example.x", "state_key": "key", "content": {"n": 1}},
            {"type": "org.example.x", "state_key": "key", "content": {"n": 2}},
        ],
    )
    found = await state(alice, room_id)
    assert found["m.room.join_rules", ""] == {"join_rule": "knock"}
    assert found["m.room.history_visibility", ""] == {"history_visibility": "joined"}
    assert found["m.room.name", ""]["name"] == "from name"
    assert found["m.room.topic", ""]["topic"] == "from topic"
    assert found["org.example.x", "key"] == {"n": 2}


async def test_power_levels_are_overridden_key_by_key(shared_homeserver: Homeserver) -> None:
    alice = await shared_homeserver.register()
    override = {"events_default": 20, "events": {"m.room.name": 7}, "users": {alice.user_id: 150}}
    room_id = await alice.create_room(room_version="11", power_level_content_override=override)
    levels = (await state_event(alice, room_id, "m.room.power_levels")).ok()
    assert levels["events_default"] == 20
    assert levels["events"] == {"m.room.name": 7}
    assert levels["users"] == {alice.user_id: 150}
    assert levels["ban"] == 50


@pytest.mark.parametrize(
    "options",
    [
        {"room_version": "12", "power_level_content_override": {"users": {"{creator}": 100}}},
        {"room_version": "11", "power_level_content_override": {"users": {"{creator}": 0}}, "name": "x"},
        {"room_version": "10", "power_level_content_override": {"ban": "50"}},
        {"power_level_content_override": {"users": {"nobody": 1}}},
        {"initial_state": [{"type": "m.room.create", "content": {}}]},
        {"initial_state": [{"type": "m.room.member", "state_key": "@x:weft.test", "content": {"membership": "join"}}]},
    ],
)
async def test_a_room_that_the_rules_forbid_is_not_made(shared_homeserver: Homeserver, options: dict[str, Any]) -> None:
    alice = await shared_homeserver.register()
    override = options.get("power_level_content_override", {})
    if "{creator}" in override.get("users", {}):
        override = {"users": {alice.user_id: override["users"]["{creator}"]}}
        options = {**options, "power_level_content_override": override}
    alias = secrets.token_hex(4)
    answer = await alice.request("POST", "createRoom", {**options, "room_alias_name": alias})
    answer.error(400, "M_INVALID_ROOM_STATE")
    assert (await alice.request("GET", "joined_rooms")).ok() == {"joined_rooms": []}
    (await alice.request("GET", f"directory/room/{encode(f'#{alias}:weft.test')}")).error(404, "M_NOT_FOUND")
    await alice.create_room(room_alias_name=alias)


async def test_unsupported_versions_are_refused(shared_homeserver: Homeserver) -> None:
    alice = await shared_homeserver.register()
    for version in ("0", "13", "org.example", ""):
        answer = await alice.request("POST", "createRoom", {"room_version": version})
        answer.error(400, "M_UNSUPPORTED_ROOM_VERSION")


async def test_an_alias_is_given_once(shared_homeserver: Homeserver) -> None:
    alice, bob = await shared_homeserver.register(), await shared_homeserver.register()
    name = secrets.token_hex(4)
    room_id = await alice.create_room(room_alias_name=name)
    target = (await bob.request("GET", f"directory/room/{encode(f'#{name}:weft.test')}")).ok()
    assert target == {"room_id": room_id, "servers": ["weft.test"]}
    (await bob.request("POST", "createRoom", {"room_alias_name": name})).error(400, "M_ROOM_IN_USE")
    assert (await bob.request("GET", "joined_rooms")).ok() == {"joined_rooms": []}


async def test_of_many_rooms_at_once_with_one_alias_one_is_made(shared_homeserver: Homeserver) -> None:
    alice = await shared_homeserver.register()
    name = secrets.token_hex(4)
    requests = [alice.request("POST", "createRoom", {"room_alias_name": name}) for _ in range(8)]
    answers = await asyncio.gather(*requests)
    assert sorted(answer.status for answer in answers) == [200] + [400] * 7
    assert {answer.json["errcode"] for answer in answers if answer.status == 400} == {"M_ROOM_IN_USE"}
    assert len((await alice.request("GET", "joined_rooms")).ok()["joined_rooms"]) == 1


@pytest.mark.parametrize("name", ["", "a:b", "#x:weft.test", "x" * 256, "\0"])
async def test_bad_alias_names_are_refused(shared_homeserver: Homeserver, name: str) -> None:
    alice = await shared_homeserver.register()
    (await alice.request("POST", "createRoom", {"room_alias_name": name})).error(400, "M_INVALID_PARAM")


async def test_invitations_are_part_of_the_room_or_there_is_no_room(shared_homeserver: Homeserver) -> None:
    alice = await shared_homeserver.register()
    answer = await alice.request("POST", "createRoom", {"invite": ["@nobody:weft.test"]})
    assert 400 <= answer.status < 500
    answer = await alice.request("POST", "createRoom", {"invite": ["@user:elsewhere.test"]})
    assert 400 <= answer.status < 500
    assert (await alice.request("GET", "joined_rooms")).ok() == {"joined_rooms": []}


async def test_no_body_at_all_makes_a_room(shared_homeserver: Homeserver) -> None:
    alice = await shared_homeserver.register()
    room_id = (await alice.request("POST", "createRoom")).ok()["room_id"]
    assert (await state_event(alice, room_id, "m.room.create")).ok()["room_version"] == "12"


async def test_rooms_outlive_a_restart(start_server: StartServer) -> None:
    async with start_server() as homeserver:
        alice = await homeserver.register()
        room_id = await alice.create_room(name="before", room_version="11")
        first = await alice.send(room_id, "before", txn_id="t")
        before = await state(alice, room_id)
    async with start_server() as homeserver:
        alice = User(homeserver, alice.user_id, alice.token, alice.device_id)
        assert await state(alice, room_id) == before
        assert await alice.send(room_id, "before", txn_id="t") == first
        second = await alice.send(room_id, "after")
        another = await alice.create_room()
        ids = [event["event_id"] for event in await page_through(alice, room_id, "b", limit=3)]
        assert ids[:2] == [second, first]
        assert await alice.send(another, "x")


async def test_a_room_is_not_made_of_what_is_no_json(shared_homeserver: Homeserver) -> None:
    alice = await shared_homeserver.register()
    path = "/_matrix/client/v3/createRoom"
    (await shared_homeserver.request("POST", path, data=b"{", token=alice.token)).error(400, "M_NOT_JSON")

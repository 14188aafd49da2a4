"""https://spec.matrix.org/v1.19/client-server-api/#room-upgrades"""

from __future__ import annotations

from typing import Any

import pytest

from tests.client import Answer, Homeserver, User
from tests.client_api.support import encode, joined, make_room, membership_of, state_event


@pytest.fixture
async def alice(shared_homeserver: Homeserver) -> User:
    return await shared_homeserver.register()


@pytest.fixture
async def bob(shared_homeserver: Homeserver) -> User:
    return await shared_homeserver.register()


async def upgrade(user: User, room_id: str, version: str, **more: Any) -> Answer:
    return await user.in_room("POST", room_id, "upgrade", {"new_version": version, **more})


async def content(user: User, room_id: str, type: str) -> Any:
    return (await state_event(user, room_id, type)).ok()


TRANSFERRED: dict[str, dict[str, Any]] = {
    "m.room.server_acl": {"allow": ["*"]},
    "m.room.encryption": {"algorithm": "m.megolm.v1.aes-sha2"},
    "m.room.name": {"name": "Old and new"},
    "m.room.avatar": {"url": "mxc://weft.test/x"},
    "m.room.topic": {"topic": "The same"},
    "m.room.guest_access": {"guest_access": "can_join"},
    "m.room.history_visibility": {"history_visibility": "joined"},
    "m.room.join_rules": {"join_rule": "knock"},
}


@pytest.mark.parametrize(("old", "new"), [("1", "12"), ("9", "11"), ("11", "12"), ("12", "12"), ("12", "10")])
async def test_the_new_room_takes_the_place_of_the_old_one(alice: User, bob: User, old: str, new: str) -> None:
    name = f"a{alice.user_id[1:].partition(':')[0]}"
    alias = f"#{name}:weft.test"
    room_id = await make_room(
        bob,
        creator=alice,
        room_version=old,
        room_alias_name=name,
        visibility="public",
        creation_content={"type": "m.space"},
    )
    levels = await content(alice, room_id, "m.room.power_levels")
    levels["users"][bob.user_id] = 75
    await alice.set_state(room_id, "m.room.power_levels", levels)
    for type, state in TRANSFERRED.items():
        await alice.set_state(room_id, type, state)
    await alice.set_state(room_id, "org.example.custom", {"is": "left behind"})
    last = await alice.send(room_id, "the last word")
    replacement = (await upgrade(alice, room_id, new)).ok()["replacement_room"]
    assert replacement != room_id
    create = await content(alice, replacement, "m.room.create")
    assert (create["room_version"], create["type"]) == (new, "m.space")
    predecessor = {"room_id": room_id} if new == "12" else {"room_id": room_id, "event_id": last}
    assert create["predecessor"] == predecessor
    for type, state in TRANSFERRED.items():
        assert await content(alice, replacement, type) == state
    (await state_event(alice, replacement, "org.example.custom")).error(404, "M_NOT_FOUND")
    assert await membership_of(alice, replacement, bob) is None
    users = (await content(alice, replacement, "m.room.power_levels"))["users"]
    assert users == {bob.user_id: 75} if new == "12" else {bob.user_id: 75, alice.user_id: 100}
    # The names and the place in the directory have gone over.
    assert (await alice.request("GET", f"directory/room/{encode(alias)}")).ok()["room_id"] == replacement
    assert await content(alice, replacement, "m.room.canonical_alias") == {"alias": alias}
    for room, visibility in ((room_id, "private"), (replacement, "public")):
        assert (await alice.request("GET", f"directory/list/room/{encode(room)}")).ok() == {"visibility": visibility}
    # The old room points to the new one and falls silent.
    assert (await content(bob, room_id, "m.room.tombstone"))["replacement_room"] == replacement
    levels = await content(bob, room_id, "m.room.power_levels")
    assert (levels["events_default"], levels["invite"]) == (50, 50)
    await alice.send(replacement, "and on it goes")


async def test_who_may_not_send_tombstones_may_not_upgrade(alice: User, bob: User) -> None:
    room_id = await make_room(bob, creator=alice)
    before = (await alice.sync())["next_batch"]
    (await upgrade(bob, room_id, "12")).error(403, "M_FORBIDDEN")
    (await upgrade(bob, "!unknown:weft.test", "12")).error(403, "M_FORBIDDEN")
    (await upgrade(alice, room_id, "nonsense")).error(400, "M_UNSUPPORTED_ROOM_VERSION")
    (await upgrade(alice, room_id, "12", additional_creators=["bob"])).error(400, "M_INVALID_PARAM")
    (await upgrade(alice, room_id, "12", additional_creators="bob")).error(400, "M_BAD_JSON")
    (await alice.in_room("POST", room_id, "upgrade", {})).error(400, "M_MISSING_PARAM")
    assert (await alice.sync(before))["rooms"] == {}


async def test_creators_are_named_anew(alice: User, bob: User) -> None:
    room_id = await make_room(bob, creator=alice, room_version="11")
    levels = await content(alice, room_id, "m.room.power_levels")
    levels["users"][bob.user_id] = 50
    await alice.set_state(room_id, "m.room.power_levels", levels)
    answer = await upgrade(alice, room_id, "12", additional_creators=[bob.user_id, bob.user_id])
    replacement = answer.ok()["replacement_room"]
    assert (await content(alice, replacement, "m.room.create"))["additional_creators"] == [bob.user_id]
    assert (await content(alice, replacement, "m.room.power_levels"))["users"] == {}
    again = (await upgrade(alice, replacement, "12")).ok()["replacement_room"]
    assert "additional_creators" not in await content(alice, again, "m.room.create")
    ignored = await upgrade(alice, again, "11", additional_creators=["nonsense"])
    assert "additional_creators" not in await content(alice, ignored.ok()["replacement_room"], "m.room.create")


async def test_who_may_do_no_more_than_that_upgrades_all_the_same(alice: User, bob: User) -> None:
    room_id = await make_room(bob, creator=alice, room_version="11", name="Room")
    levels = await content(alice, room_id, "m.room.power_levels")
    levels["users"][bob.user_id] = 30
    levels["events"]["m.room.tombstone"] = 30
    await alice.set_state(room_id, "m.room.power_levels", levels)
    replacement = (await upgrade(bob, room_id, "11")).ok()["replacement_room"]
    assert await content(bob, replacement, "m.room.name") == {"name": "Room"}
    assert await content(bob, replacement, "m.room.power_levels") == levels
    assert (await content(bob, room_id, "m.room.tombstone"))["replacement_room"] == replacement
    assert await content(bob, room_id, "m.room.power_levels") == levels


async def test_an_upgrade_that_fails_leaves_no_half(alice: User, bob: User) -> None:
    """A topic that just fits into an event of the newest version, and not into one of the first."""
    name = f"h{alice.user_id[1:].partition(':')[0]}"
    room_id = await make_room(bob, creator=alice, room_version="12", room_alias_name=name)
    fits, is_too_much = 60_000, 66_000
    while is_too_much - fits > 1:
        size = (fits + is_too_much) // 2
        answer = await alice.in_room("PUT", room_id, "state/m.room.topic", {"topic": "y" * size})
        fits, is_too_much = (size, is_too_much) if answer.status == 200 else (fits, size)
    since = (await alice.sync())["next_batch"]
    (await upgrade(alice, room_id, "1")).error(413, "M_TOO_LARGE")
    assert (await alice.sync(since))["rooms"] == {}
    assert (await alice.request("GET", "joined_rooms")).ok() == {"joined_rooms": [room_id]}
    assert (await alice.request("GET", f"directory/room/{encode(f'#{name}:weft.test')}")).ok()["room_id"] == room_id
    (await state_event(alice, room_id, "m.room.tombstone")).error(404, "M_NOT_FOUND")
    replacement = (await upgrade(alice, room_id, "12")).ok()["replacement_room"]
    assert len((await content(alice, replacement, "m.room.topic"))["topic"]) == fits


async def test_tags_follow_into_the_new_room(alice: User, bob: User) -> None:
    room_id = await make_room(bob, creator=alice)

    def tags(user: User, room: str) -> str:
        return f"user/{encode(user.user_id)}/rooms/{encode(room)}/tags"

    for user in (alice, bob):
        (await user.request("PUT", f"{tags(user, room_id)}/m.favourite", {"order": 0.5})).ok()
    replacement = (await upgrade(alice, room_id, "12")).ok()["replacement_room"]
    await bob.join(replacement)
    for user in (alice, bob):
        assert (await user.request("GET", tags(user, replacement))).ok() == {"tags": {"m.favourite": {"order": 0.5}}}
    # A room that merely claims to be another's successor gets nothing.
    claim = {"predecessor": {"room_id": room_id}}
    false_heir = await make_room(bob, creator=alice, creation_content=claim)
    assert (await bob.request("GET", tags(bob, false_heir))).ok() == {"tags": {}}


async def test_notifications_follow_into_the_new_room(alice: User, bob: User) -> None:
    room_id = await make_room(bob, creator=alice)
    other = await make_room(bob, creator=alice)
    mute = {"actions": [], "conditions": [{"kind": "event_match", "key": "room_id", "pattern": room_id}]}
    (await bob.request("PUT", f"pushrules/global/override/{encode(room_id)}", mute)).ok()
    (await bob.request("PUT", f"pushrules/global/room/{encode(other)}", {"actions": ["notify"]})).ok()
    (await alice.request("PUT", f"pushrules/global/room/{encode(room_id)}", {"actions": ["notify"]})).ok()
    replacement = (await upgrade(alice, room_id, "12")).ok()["replacement_room"]
    before = (await bob.request("GET", "pushrules/")).ok()["global"]
    await bob.join(replacement)
    rules = (await bob.request("GET", "pushrules/")).ok()["global"]
    muted, *rest = [rule for rule in rules["override"] if rule not in before["override"]]
    assert rest == []
    assert (muted["rule_id"], muted["actions"]) == (replacement, [])
    assert muted["conditions"] == [{"kind": "event_match", "key": "room_id", "pattern": replacement}]
    assert rules["room"] == before["room"]
    assert (await alice.request("GET", f"pushrules/global/room/{encode(replacement)}")).ok()["actions"] == ["notify"]
    await alice.send(replacement, "nobody hears this")
    assert joined(await bob.sync(), replacement)["unread_notifications"]["notification_count"] == 0

"""https://spec.matrix.org/v1.19/client-server-api/#profiles"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.client import Homeserver, User
from tests.client_api.support import encode, joined, make_room, state_event


@pytest.fixture
async def alice(shared_homeserver: Homeserver) -> User:
    return await shared_homeserver.register()


@pytest.fixture
async def bob(shared_homeserver: Homeserver) -> User:
    return await shared_homeserver.register()


async def set_field(user: User, key: str, value: Any) -> Any:
    return await user.request("PUT", f"profile/{encode(user.user_id)}/{encode(key)}", {key: value})


async def test_fields_are_public(alice: User, shared_homeserver: Homeserver) -> None:
    assert (await set_field(alice, "displayname", "Alice \N{GRINNING FACE}")).ok() == {}
    (await set_field(alice, "avatar_url", "mxc://weft.test/x")).ok()
    (await set_field(alice, "m.tz", "Europe/Berlin")).ok()
    (await set_field(alice, "org.example.x", {"any": ["json", 1, None]})).ok()
    path = f"/_matrix/client/v3/profile/{encode(alice.user_id)}"
    whole = {
        "displayname": "Alice \N{GRINNING FACE}",
        "avatar_url": "mxc://weft.test/x",
        "m.tz": "Europe/Berlin",
        "org.example.x": {"any": ["json", 1, None]},
    }
    assert (await shared_homeserver.request("GET", path)).ok() == whole
    for key, value in whole.items():
        assert (await shared_homeserver.request("GET", f"{path}/{key}")).ok() == {key: value}
    (await alice.request("DELETE", f"{path}/m.tz")).ok()
    (await shared_homeserver.request("GET", f"{path}/m.tz")).error(404, "M_NOT_FOUND")
    for unknown in ("@nobody:weft.test", "@nobody:elsewhere.test", "nonsense"):
        answer = await shared_homeserver.request("GET", f"/_matrix/client/v3/profile/{encode(unknown)}")
        assert answer.status in (403, 404)


async def test_a_profile_is_changed_by_its_owner_alone(alice: User, bob: User) -> None:
    path = f"profile/{encode(alice.user_id)}/displayname"
    (await bob.request("PUT", path, {"displayname": "Mallory"})).error(403, "M_FORBIDDEN")
    (await bob.request("DELETE", path)).error(403, "M_FORBIDDEN")
    profile = (await bob.request("GET", f"profile/{encode(alice.user_id)}")).ok()
    assert profile.get("displayname") != "Mallory"


@pytest.mark.parametrize(
    ("key", "body", "errcode"),
    [
        ("displayname", {}, "M_MISSING_PARAM"),
        ("displayname", {"other": "x"}, "M_MISSING_PARAM"),
        ("displayname", {"displayname": 1}, "M_BAD_JSON"),
        ("avatar_url", {"avatar_url": {}}, "M_BAD_JSON"),
        ("org.example.x", {"org.example.x": 1.5}, "M_BAD_JSON"),
        ("org.example.x", {"org.example.x": 2**60}, "M_BAD_JSON"),
        ("org.example.x", {"org.example.x": None}, "M_BAD_JSON"),
        ("m.tz", {"m.tz": None}, "M_BAD_JSON"),
        ("Upper", {"Upper": 1}, "M_INVALID_PARAM"),
        ("white space", {"white space": 1}, "M_INVALID_PARAM"),
        ("x" * 256, {"x" * 256: 1}, "M_KEY_TOO_LARGE"),
        ("org.example.x", {"org.example.x": ["x" * 1000] * 70}, "M_PROFILE_TOO_LARGE"),
        ("org.example.x", {"org.example.x": {"y": "x" * 66_000}}, "M_PROFILE_TOO_LARGE"),
    ],
)
async def test_bad_fields_are_refused(alice: User, key: str, body: dict[str, Any], errcode: str) -> None:
    answer = await alice.request("PUT", f"profile/{encode(alice.user_id)}/{encode(key)}", body)
    answer.error(400, errcode)
    assert (await alice.request("GET", f"profile/{encode(alice.user_id)}")).ok().get(key) is None


@pytest.mark.parametrize("key", ["displayname", "avatar_url"])
async def test_older_clients_remove_names_and_avatars_by_null(alice: User, key: str) -> None:
    (await set_field(alice, key, "mxc://weft.test/x")).ok()
    (await set_field(alice, key, None)).ok()
    (await alice.request("GET", f"profile/{encode(alice.user_id)}/{key}")).error(404, "M_NOT_FOUND")


async def test_only_names_that_a_field_can_have_are_deleted(alice: User) -> None:
    profile = f"profile/{encode(alice.user_id)}"
    (await alice.request("DELETE", f"{profile}/Upper")).error(400, "M_INVALID_PARAM")
    (await alice.request("DELETE", f"{profile}/{'x' * 256}")).error(400, "M_KEY_TOO_LARGE")
    (await alice.request("DELETE", f"{profile}/org.example.nothing")).ok()


async def test_a_change_goes_into_the_rooms(alice: User, bob: User) -> None:
    first = await make_room(bob, creator=alice)
    second = await make_room(creator=alice)
    left = await make_room(bob, creator=alice)
    (await alice.in_room("POST", left, "leave", {})).ok()
    since = (await bob.sync())["next_batch"]
    (await set_field(alice, "displayname", "Alice")).ok()
    for room_id in (first, second):
        content = (await state_event(alice, room_id, "m.room.member", alice.user_id)).ok()
        assert content == {"membership": "join", "displayname": "Alice"}
    assert (await state_event(bob, left, "m.room.member", alice.user_id)).ok()["membership"] == "leave"
    news = joined(await bob.sync(since), first)["timeline"]["events"]
    assert [(event["type"], event["content"].get("displayname")) for event in news] == [("m.room.member", "Alice")]
    (await set_field(alice, "org.example.x", 1)).ok()
    (await alice.request("DELETE", f"profile/{encode(alice.user_id)}/displayname")).ok()
    assert (await state_event(alice, first, "m.room.member", alice.user_id)).ok() == {"membership": "join"}


async def test_joining_and_inviting_carry_the_profile(alice: User, bob: User) -> None:
    (await set_field(bob, "displayname", "Bob")).ok()
    room_id = await alice.create_room(invite=[bob.user_id])
    invited = (await state_event(alice, room_id, "m.room.member", bob.user_id)).ok()
    assert (invited["membership"], invited["displayname"]) == ("invite", "Bob")
    await bob.join(room_id)
    assert (await state_event(alice, room_id, "m.room.member", bob.user_id)).ok()["displayname"] == "Bob"


async def test_changes_at_once_lose_nothing(alice: User) -> None:
    room_id = await alice.create_room()
    await asyncio.gather(*(set_field(alice, f"org.example.f{number}", number) for number in range(10)))
    profile = (await alice.request("GET", f"profile/{encode(alice.user_id)}")).ok()
    assert {f"org.example.f{number}": number for number in range(10)}.items() <= profile.items()
    await asyncio.gather(*(set_field(alice, "displayname", f"Alice {number}") for number in range(5)))
    name = (await alice.request("GET", f"profile/{encode(alice.user_id)}/displayname")).ok()["displayname"]
    assert (await state_event(alice, room_id, "m.room.member", alice.user_id)).ok()["displayname"] == name

"""Who can be invited, and by which requests: https://spec.matrix.org/v1.19/client-server-api/#invite-permission"""

from __future__ import annotations

from typing import Any

import pytest

from config.schema import RateLimit, RateLimits
from tests.client import Homeserver, User
from tests.client_api.support import encode, membership_of
from tests.conftest import StartServer

BY_EMAIL = {"id_server": "id.test", "id_access_token": "x", "medium": "email", "address": "bob@example.org"}


@pytest.fixture
async def alice(shared_homeserver: Homeserver) -> User:
    return await shared_homeserver.register()


@pytest.fixture
async def bob(shared_homeserver: Homeserver) -> User:
    return await shared_homeserver.register()


async def permit(user: User, content: dict[str, Any]) -> None:
    path = f"user/{encode(user.user_id)}/account_data/m.invite_permission_config"
    (await user.request("PUT", path, content)).ok()


async def invites(user: User, since: str | None = None) -> set[str]:
    return set((await user.sync(since))["rooms"].get("invite", {}))


async def test_who_blocks_invites_cannot_be_invited(alice: User, bob: User) -> None:
    await permit(bob, {"default_action": "block"})
    room_id = await alice.create_room()
    (await alice.in_room("POST", room_id, "invite", {"user_id": bob.user_id})).error(403, "M_INVITE_BLOCKED")
    state = f"state/m.room.member/{encode(bob.user_id)}"
    (await alice.in_room("PUT", room_id, state, {"membership": "invite"})).error(403, "M_INVITE_BLOCKED")
    rooms = (await alice.request("GET", "joined_rooms")).ok()
    (await alice.request("POST", "createRoom", {"invite": [bob.user_id]})).error(403, "M_INVITE_BLOCKED")
    assert (await alice.request("GET", "joined_rooms")).ok() == rooms
    assert await membership_of(alice, room_id, bob) is None
    (await alice.in_room("PUT", room_id, state, {"membership": "ban"})).ok()


@pytest.mark.parametrize("content", [{}, {"default_action": "allow"}, {"default_action": None}, {"default_action": []}])
async def test_all_other_settings_let_invites_through(alice: User, bob: User, content: dict[str, Any]) -> None:
    await permit(bob, {"default_action": "block"})
    await permit(bob, content)
    room_id = await alice.create_room(invite=[bob.user_id])
    assert await invites(bob) == {room_id}


async def test_earlier_invites_are_not_shown_while_they_are_blocked(alice: User, bob: User) -> None:
    since = (await bob.sync())["next_batch"]
    room_id = await alice.create_room(invite=[bob.user_id])
    await permit(bob, {"default_action": "block"})
    assert await invites(bob, since) == await invites(bob) == set()
    assert await membership_of(alice, room_id, bob) == "invite", "only /sync leaves them out"
    await permit(bob, {})
    assert await invites(bob) == {room_id}


async def test_nobody_is_invited_by_email(alice: User, bob: User) -> None:
    room_id = await alice.create_room()
    (await alice.in_room("POST", room_id, "invite", BY_EMAIL)).error(403, "M_SERVER_NOT_TRUSTED")
    (await bob.in_room("POST", room_id, "invite", BY_EMAIL)).error(403, "M_FORBIDDEN")
    for missing in BY_EMAIL:
        body = {name: value for name, value in BY_EMAIL.items() if name != missing}
        (await alice.in_room("POST", room_id, "invite", body)).error(400, "M_MISSING_PARAM")
    rooms = (await alice.request("GET", "joined_rooms")).ok()
    (await alice.request("POST", "createRoom", {"invite_3pid": [BY_EMAIL]})).error(403, "M_SERVER_NOT_TRUSTED")
    assert (await alice.request("GET", "joined_rooms")).ok() == rooms


@pytest.mark.parametrize("state_key", ["", "bob", "@bob", "!room:weft.test"])
async def test_members_are_users(alice: User, state_key: str) -> None:
    room_id = await alice.create_room()
    path = f"state/m.room.member/{encode(state_key)}"
    (await alice.in_room("PUT", room_id, path, {"membership": "invite"})).error(400, "M_INVALID_PARAM")


async def test_only_users_of_this_server_who_are_there_are_invited(alice: User) -> None:
    room_id = await alice.create_room()
    for user_id, status, errcode in (
        ("@nobody:weft.test", 404, "M_NOT_FOUND"),
        ("@bob:elsewhere.test", 403, "M_FORBIDDEN"),
    ):
        (await alice.in_room("POST", room_id, "invite", {"user_id": user_id})).error(status, errcode)
        path = f"state/m.room.member/{encode(user_id)}"
        (await alice.in_room("PUT", room_id, path, {"membership": "invite"})).error(status, errcode)


async def test_state_is_no_way_around_the_limit_of_invites(start_server: StartServer) -> None:
    limits = RateLimits(invite=RateLimit(0.001, 2), registration=None)
    async with start_server(rate_limits=limits) as homeserver:
        alice = await homeserver.register()
        users = [await homeserver.register() for _ in range(3)]
        room_id = await alice.create_room()
        answers = [
            await alice.in_room("PUT", room_id, f"state/m.room.member/{encode(user.user_id)}", {"membership": "invite"})
            for user in users
        ]
        assert [answer.status for answer in answers] == [200, 200, 429]

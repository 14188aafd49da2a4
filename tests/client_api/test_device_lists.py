"""https://spec.matrix.org/v1.19/client-server-api/#tracking-the-device-list-for-a-user"""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from tests.client import Answer, Homeserver, User
from tests.client_api.encryption import Device, Follower, follow, log_in, new_device, password_auth
from tests.client_api.support import make_room
from tests.conftest import StartServer


async def keys_changes(user: User, since: str | None, until: str | None) -> Answer:
    return await user.homeserver.request(
        "GET", "/_matrix/client/v3/keys/changes", token=user.token, **{"from": since, "to": until}
    )


async def expect_lists(follower: Follower, changed: list[User], left: list[User] = []) -> None:  # noqa: B006
    """What the next sync says, and that it says so once; /keys/changes says the same."""
    since = follower.token
    await follower.sync()
    expected = ([user.user_id for user in changed], [user.user_id for user in left])
    assert (set(follower.changed), set(follower.left)) == (set(expected[0]), set(expected[1]))
    assert (len(follower.changed), len(follower.left)) == (len(changed), len(left))
    answer = (await keys_changes(follower.user, since, follower.token)).ok()
    assert answer == {"changed": follower.changed, "left": follower.left}
    await follower.sync()
    assert (follower.changed, follower.left) == ([], [])


async def told(follower: Follower) -> list[str]:
    """Waits until a sync says that lists have changed: whose."""
    async with asyncio.timeout(20):
        while not follower.changed:
            await follower.sync(timeout=20_000)
    return follower.changed


async def test_new_keys_are_told_to_those_in_a_room_and_to_the_user(shared_homeserver: Homeserver) -> None:
    alice, bob, carol = [await shared_homeserver.register() for _ in range(3)]
    await make_room(bob, creator=alice)
    of_alice, of_bob, of_carol = [await follow(user) for user in (alice, bob, carol)]
    device = Device(alice)

    await device.upload(device_keys=device.keys)

    await expect_lists(of_bob, [alice])
    await expect_lists(of_alice, [alice])
    await expect_lists(of_carol, [])
    await device.upload(device_keys=device.keys, one_time_keys=device.one_time_keys(2))
    await expect_lists(of_bob, [])
    changed = Device(alice)
    await changed.upload(device_keys=changed.keys)
    await expect_lists(of_bob, [alice])


async def test_who_waits_is_woken(shared_homeserver: Homeserver) -> None:
    alice, bob = await shared_homeserver.register(), await shared_homeserver.register()
    await make_room(bob, creator=alice)
    follower, device = await follow(bob), Device(alice)
    waiting = asyncio.create_task(told(follower))
    await asyncio.sleep(0.05)
    await device.upload(device_keys=device.keys)
    assert await asyncio.wait_for(waiting, 10) == [alice.user_id]


async def test_who_waits_is_woken_for_a_room_that_is_not_in_memory(start_server: StartServer) -> None:
    async with start_server() as homeserver:
        alice, bob = await homeserver.register("alice"), await homeserver.register("bob")
        await make_room(bob, creator=alice)
        follower = await follow(bob)
    async with start_server() as homeserver:
        alice.homeserver = bob.homeserver = homeserver
        await follower.sync()
        waiting = asyncio.create_task(told(follower))
        await asyncio.sleep(0.05)
        device = Device(alice)
        await device.upload(device_keys=device.keys)
        assert await asyncio.wait_for(waiting, 10) == [alice.user_id]


@pytest.mark.parametrize("way", ["device", "devices", "logout", "logout_all", "password", "deactivate"])
async def test_every_way_in_which_a_device_ends_is_told(shared_homeserver: Homeserver, way: str) -> None:
    alice, bob = await new_device(shared_homeserver), await shared_homeserver.register()
    await make_room(bob, creator=alice.user)
    laptop = Device(await log_in(alice.user, "LAPTOP"))
    await laptop.upload(device_keys=laptop.keys)
    follower = await follow(bob)
    auth = {"auth": password_auth(alice.user)}

    match way:
        case "device":
            answer = await alice.user.request("DELETE", "devices/LAPTOP", auth)
        case "devices":
            answer = await alice.user.request("POST", "delete_devices", {"devices": ["LAPTOP"], **auth})
        case "logout":
            answer = await laptop.user.request("POST", "logout", {})
        case "logout_all":
            answer = await alice.user.request("POST", "logout/all", {})
        case "password":
            answer = await alice.user.request("POST", "account/password", {"new_password": "another one", **auth})
        case _:
            answer = await alice.user.request("POST", "account/deactivate", auth)
    answer.ok()

    await follower.sync()
    if way == "deactivate":  # which leaves the room, too
        assert alice.user.user_id in (*follower.changed, *follower.left)
    else:
        assert (follower.changed, follower.left) == ([alice.user.user_id], [])
    left = (await bob.request("POST", "keys/query", {"device_keys": {alice.user.user_id: []}})).ok()["device_keys"]
    gone = {"LAPTOP"} if way in ("device", "devices", "logout", "password") else {"LAPTOP", alice.user.device_id}
    assert left[alice.user.user_id].keys() == {"LAPTOP", alice.user.device_id} - gone


async def test_devices_without_keys_come_and_go_unnoticed(shared_homeserver: Homeserver) -> None:
    alice, bob = await new_device(shared_homeserver), await shared_homeserver.register()
    await make_room(bob, creator=alice.user)
    follower = await follow(bob)
    laptop = await log_in(alice.user, "LAPTOP")
    (await alice.user.request("PUT", "devices/LAPTOP", {"display_name": "Laptop"})).ok()
    (await laptop.request("POST", "logout", {})).ok()
    await expect_lists(follower, [])
    (await alice.user.request("PUT", f"devices/{alice.user.device_id}", {"display_name": "Phone"})).ok()
    await expect_lists(follower, [alice.user])  # others see the name with the keys


async def test_sharing_the_first_room_and_leaving_the_last_is_told(shared_homeserver: Homeserver) -> None:
    alice, bob, carol = [await shared_homeserver.register() for _ in range(3)]
    of_alice, of_bob = await follow(alice), await follow(bob)
    first = await make_room(creator=alice)
    await expect_lists(of_alice, [])

    await bob.join(first)
    await expect_lists(of_alice, [bob])
    await expect_lists(of_bob, [alice])
    second = await make_room(bob, creator=alice)
    await expect_lists(of_alice, [])
    await expect_lists(of_bob, [])

    await carol.join(first)
    await expect_lists(of_alice, [carol])
    (await bob.in_room("POST", first, "leave", {})).ok()
    await expect_lists(of_alice, [])
    await expect_lists(of_bob, [])  # came and is gone since: of Carol Bob never knew
    (await alice.in_room("POST", second, "kick", {"user_id": bob.user_id})).ok()
    await expect_lists(of_alice, [], [bob])
    await expect_lists(of_bob, [], [alice])
    (await alice.in_room("POST", second, "ban", {"user_id": bob.user_id})).ok()
    await expect_lists(of_alice, [])
    (await alice.in_room("POST", first, "leave", {})).ok()
    await expect_lists(of_alice, [], [carol])


async def test_an_invitation_shares_nothing(shared_homeserver: Homeserver) -> None:
    alice, bob = await new_device(shared_homeserver), await shared_homeserver.register()
    of_alice, of_bob = await follow(alice.user), await follow(bob)
    room_id = await alice.user.create_room(preset="private_chat", invite=[bob.user_id])
    again = Device(alice.user)
    await again.upload(device_keys=again.keys)
    await expect_lists(of_bob, [])
    await expect_lists(of_alice, [alice.user])
    (await bob.in_room("POST", room_id, "leave", {})).ok()
    await expect_lists(of_alice, [])
    await expect_lists(of_bob, [])


async def test_coming_back_in_between_is_no_news(shared_homeserver: Homeserver) -> None:
    alice, bob = await shared_homeserver.register(), await shared_homeserver.register()
    room_id = await make_room(bob, creator=alice)
    of_alice, of_bob = await follow(alice), await follow(bob)
    (await bob.in_room("POST", room_id, "leave", {})).ok()
    await bob.join(room_id)
    await expect_lists(of_alice, [])
    await expect_lists(of_bob, [])


async def test_tokens_from_before_a_restart_miss_nothing(start_server: StartServer) -> None:
    async with start_server() as homeserver:
        alice, bob, carol, dave = [await homeserver.register(name) for name in ("alice", "bob", "carol", "dave")]
        old = await make_room(bob, carol, creator=alice)
        await make_room(dave, creator=alice)
        follower = await follow(alice)
        device = Device(bob)
        await device.upload(device_keys=device.keys)
        (await carol.in_room("POST", old, "leave", {})).ok()
        (await dave.request("POST", "account/deactivate", {"auth": password_auth(dave)})).ok()
        erin = await homeserver.register("erin")
        await erin.join(old)
    async with start_server() as homeserver:
        alice.homeserver = homeserver
        await follower.sync()
        assert follower.changed == [bob.user_id, erin.user_id]
        assert follower.left == [carol.user_id, dave.user_id]
        await follower.sync()
        assert (follower.changed, follower.left) == ([], [])


async def test_a_change_that_nobody_has_announced_is_announced_after_the_start(
    start_server: StartServer, database_url: str
) -> None:
    async with start_server() as homeserver:
        alice, bob = await homeserver.register("alice"), await homeserver.register("bob")
        await make_room(bob, creator=alice)
        device = Device(alice)
        await device.upload(device_keys=device.keys)
        follower = await follow(bob)
    connection = await asyncpg.connect(database_url)  # as a server leaves it that dies between commit and announcement
    await connection.execute("UPDATE device_lists SET pending = true")
    await connection.close()
    async with start_server() as homeserver:
        bob.homeserver = homeserver
        await follower.sync()
        assert await told(follower) == [alice.user_id]


async def test_sessions_that_other_processes_end_are_announced(start_server: StartServer, database_url: str) -> None:
    async with start_server() as homeserver:
        alice, bob = await new_device(homeserver), await homeserver.register("bob")
        await make_room(bob, creator=alice.user)
        follower = await follow(bob)
        connection = await asyncpg.connect(database_url)
        async with connection.transaction():  # what `weft user reset-password` does
            await connection.execute("DELETE FROM devices WHERE user_id = $1", alice.user.user_id)
            await connection.execute("UPDATE device_lists SET pending = true")
            await connection.execute("SELECT pg_notify('sessions_ended', $1)", alice.user.user_id)
        await connection.close()
        assert await told(follower) == [alice.user.user_id]


async def test_an_initial_sync_has_no_lists(shared_homeserver: Homeserver) -> None:
    alice = await new_device(shared_homeserver)
    assert "device_lists" not in await alice.user.sync()


async def test_nonsense_is_refused(shared_homeserver: Homeserver) -> None:
    alice = await shared_homeserver.register()
    (await alice.request("GET", "keys/changes")).error(400, "M_MISSING_PARAM")
    (await keys_changes(alice, "s1", "x")).error(400, "M_INVALID_PARAM")
    (await keys_changes(alice, "1", "s1")).error(400, "M_INVALID_PARAM")

"""https://spec.matrix.org/v1.19/client-server-api/#device-management"""

from __future__ import annotations

import asyncio
from typing import Any

from tests.client import Homeserver, User
from tests.client_api.support import make_room
from tests.engine.waiting import eventually


async def log_in(user: User, device_id: str) -> User:
    """The user on another device."""
    body = {**password_auth(user), "device_id": device_id, "initial_device_display_name": f"Name of {device_id}"}
    answer = (await user.homeserver.request("POST", "/_matrix/client/v3/login", body)).ok()
    return User(user.homeserver, user.user_id, answer["access_token"], device_id)


def password_auth(user: User) -> dict[str, Any]:
    localpart = user.user_id[1:].partition(":")[0]
    return {
        "type": "m.login.password",
        "identifier": {"type": "m.id.user", "user": localpart},
        "password": f"password of {localpart}",
    }


async def test_devices_are_listed_with_what_is_known_of_them(shared_homeserver: Homeserver) -> None:
    alice = await shared_homeserver.register()
    await log_in(alice, "LAPTOP")

    own, laptop = (await alice.request("GET", "devices")).ok()["devices"]

    assert own["device_id"] == alice.device_id
    assert own["last_seen_ip"] == "127.0.0.1"
    assert own["last_seen_ts"] > 1_600_000_000_000
    assert laptop == {
        "device_id": "LAPTOP",
        "display_name": "Name of LAPTOP",
        "last_seen_ip": None,
        "last_seen_ts": None,
    }
    assert (await alice.request("GET", "devices/LAPTOP")).ok() == laptop


async def test_a_device_is_renamed_by_its_owner(shared_homeserver: Homeserver) -> None:
    alice, bob = await shared_homeserver.register(), await shared_homeserver.register()
    path = f"devices/{alice.device_id}"

    assert (await alice.request("PUT", path, {"display_name": "Phone"})).ok() == {}
    assert (await alice.request("PUT", path, {})).ok() == {}

    assert (await alice.request("GET", path)).ok()["display_name"] == "Phone"
    (await bob.request("PUT", path, {"display_name": "Mine"})).error(404, "M_NOT_FOUND")
    (await bob.request("GET", path)).error(404, "M_NOT_FOUND")
    (await alice.request("PUT", path, {"display_name": 1})).error(400, "M_BAD_JSON")
    (await alice.request("PUT", path, {"display_name": "x" * 300})).error(400, "M_INVALID_PARAM")


async def test_a_device_is_deleted_with_the_password(shared_homeserver: Homeserver) -> None:
    alice = await shared_homeserver.register()
    laptop = await log_in(alice, "LAPTOP")

    challenge = await alice.request("DELETE", "devices/LAPTOP")
    assert challenge.status == 401
    assert challenge.json["flows"] == [{"stages": ["m.login.password"]}]
    auth = {**password_auth(alice), "session": challenge.json["session"]}
    assert (await alice.request("DELETE", "devices/LAPTOP", {"auth": auth})).ok() == {}

    (await laptop.request("GET", "account/whoami")).error(401, "M_UNKNOWN_TOKEN")
    (await alice.request("GET", "devices/LAPTOP")).error(404, "M_NOT_FOUND")
    again = {"auth": password_auth(alice)}
    assert (await alice.request("DELETE", "devices/LAPTOP", again)).ok() == {}


async def test_the_password_of_another_user_deletes_nothing(shared_homeserver: Homeserver) -> None:
    alice, bob = await shared_homeserver.register(), await shared_homeserver.register()
    laptop = await log_in(alice, "LAPTOP")

    refused = await alice.request("DELETE", "devices/LAPTOP", {"auth": password_auth(bob)})
    refused.error(401, "M_FORBIDDEN")
    (await bob.request("DELETE", "devices/LAPTOP", {"auth": password_auth(bob)})).ok()

    (await laptop.request("GET", "account/whoami")).ok()


async def test_several_devices_are_deleted_at_once(shared_homeserver: Homeserver) -> None:
    alice = await shared_homeserver.register()
    gone = [await log_in(alice, device_id) for device_id in ("A", "B")]
    kept = await log_in(alice, "C")
    body = {"devices": ["A", "B", "NO SUCH DEVICE"]}

    assert (await alice.request("POST", "delete_devices", body)).status == 401
    (await alice.request("POST", "delete_devices", {})).error(400, "M_MISSING_PARAM")
    (await alice.request("POST", "delete_devices", {"devices": "A"})).error(400, "M_BAD_JSON")
    assert (await alice.request("POST", "delete_devices", {**body, "auth": password_auth(alice)})).ok() == {}

    for device in gone:
        (await device.request("GET", "account/whoami")).error(401, "M_UNKNOWN_TOKEN")
    (await kept.request("GET", "account/whoami")).ok()


async def test_a_device_that_is_deleted_while_it_waits_gets_nothing_any_more(shared_homeserver: Homeserver) -> None:
    alice, bob = await shared_homeserver.register(), await shared_homeserver.register()
    stolen = await log_in(alice, "STOLEN")
    room_id = await make_room(bob, creator=alice)
    since = (await stolen.sync())["next_batch"]
    waiting = asyncio.create_task(stolen.request("GET", "sync", since=since, timeout=20_000, set_presence="offline"))
    assert shared_homeserver.running is not None
    notifier = shared_homeserver.running.server.sync._notifier
    await eventually(lambda: notifier.waiting_users)
    (await alice.request("DELETE", "devices/STOLEN", {"auth": password_auth(alice)})).ok()
    await bob.send(room_id, "not for thieves")
    (await waiting).error(401, "M_UNKNOWN_TOKEN")

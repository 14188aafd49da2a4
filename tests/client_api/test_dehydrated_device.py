"""https://github.com/matrix-org/matrix-spec-proposals/pull/3814"""

from __future__ import annotations

from typing import Any

from homeserver.services.encryption.to_device import MAX_PER_SYNC
from tests.client import Answer, Homeserver, User
from tests.client_api.encryption import Device, claim, follow, log_in, new_device, password_auth, query
from tests.client_api.support import encode, make_room

PATH = "/_matrix/client/unstable/org.matrix.msc3814.v1/dehydrated_device"
DATA = {"algorithm": "org.matrix.msc3814.v2", "device_pickle": "x", "nonce": "y"}


def body_of(device: Device, **changes: Any) -> dict[str, Any]:
    return {
        "device_id": device.user.device_id,
        "device_data": DATA,
        "initial_device_display_name": "Dehydrated",
        "device_keys": {**device.keys, "dehydrated": True},
        "one_time_keys": device.one_time_keys(2),
        "fallback_keys": device.fallback_key(),
        **changes,
    }


def dehydrated(user: User, device_id: str = "curve/25519+key") -> Device:
    return Device(User(user.homeserver, user.user_id, "", device_id))


async def events(user: User, device_id: str, method: str, token: str | None) -> Answer:
    path = f"{PATH}/{encode(device_id)}/events"
    if method == "GET":
        return await user.homeserver.request(
            "GET", path, token=user.token, **({} if token is None else {"from": token})
        )
    return await user.request("POST", path, {} if token is None else {"next_batch": token})


async def test_a_device_is_kept_and_another_takes_its_place(shared_homeserver: Homeserver) -> None:
    alice, bob = await new_device(shared_homeserver), await shared_homeserver.register()
    await make_room(bob, creator=alice.user)
    follower = await follow(bob)
    (await alice.user.request("GET", PATH)).error(404, "M_NOT_FOUND")
    (await alice.user.request("DELETE", PATH)).error(404, "M_NOT_FOUND")

    first = dehydrated(alice.user)
    assert (await alice.user.request("PUT", PATH, body_of(first))).ok() == {"device_id": first.user.device_id}
    assert (await alice.user.request("GET", PATH)).ok() == {"device_id": first.user.device_id, "device_data": DATA}
    keys = (await query(bob, alice.user))["device_keys"][alice.user.user_id][first.user.device_id]
    assert keys["dehydrated"] is True
    assert keys["unsigned"] == {"device_display_name": "Dehydrated"}
    assert len((await claim(bob, first.user))[first.user.device_id]) == 1
    await follower.sync()
    assert follower.changed == [alice.user.user_id]

    second = dehydrated(alice.user, "SECOND")
    (await alice.user.request("PUT", PATH, body_of(second))).ok()
    again = dehydrated(alice.user, "SECOND")
    (await alice.user.request("PUT", PATH, body_of(again))).ok()
    devices = (await query(bob, alice.user))["device_keys"][alice.user.user_id]
    assert devices.keys() == {alice.user.device_id, "SECOND"}
    assert devices["SECOND"]["keys"] == again.keys["keys"]
    assert (await alice.user.request("DELETE", PATH)).ok() == {"device_id": "SECOND"}
    (await alice.user.request("GET", PATH)).error(404, "M_NOT_FOUND")
    await follower.sync()
    assert follower.changed == [alice.user.user_id]


async def test_its_messages_are_read_in_parts_and_stay(shared_homeserver: Homeserver) -> None:
    alice, bob = await shared_homeserver.register(), await shared_homeserver.register()
    device = dehydrated(alice)
    (await alice.request("PUT", PATH, body_of(device))).ok()
    count = MAX_PER_SYNC + 3
    for number in range(count):
        messages = {alice.user_id: {device.user.device_id: {"n": number}}}
        (await bob.request("PUT", f"sendToDevice/org.example/{number}", {"messages": messages})).ok()

    for _ in range(2):
        page = (await events(alice, device.user.device_id, "GET", None)).ok()
        rest = (await events(alice, device.user.device_id, "GET", page["next_batch"])).ok()
        assert "next_batch" not in rest
        assert [event["content"]["n"] for event in page["events"] + rest["events"]] == list(range(count))
    token, found = None, []
    while (page := (await events(alice, device.user.device_id, "POST", token)).ok())["events"]:
        token = page["next_batch"]
        found += page["events"]
    assert [event["content"]["n"] for event in found] == list(range(count))

    (await events(alice, "OTHER", "GET", None)).error(403, "M_FORBIDDEN")
    (await events(bob, device.user.device_id, "GET", None)).error(403, "M_FORBIDDEN")
    (await events(alice, device.user.device_id, "GET", "nonsense")).error(400, "M_INVALID_PARAM")


async def test_it_goes_as_other_devices_go(shared_homeserver: Homeserver) -> None:
    alice = await shared_homeserver.register()
    auth = {"auth": password_auth(alice)}
    (await alice.request("PUT", PATH, body_of(dehydrated(alice)))).ok()
    (await alice.request("DELETE", f"devices/{encode('curve/25519+key')}", auth)).ok()
    (await alice.request("GET", PATH)).error(404, "M_NOT_FOUND")
    (await alice.request("PUT", PATH, body_of(dehydrated(alice)))).ok()
    (await alice.request("POST", "logout/all", {})).ok()
    (await (await log_in(alice, "NEW")).request("GET", PATH)).error(404, "M_NOT_FOUND")


async def test_nonsense_is_refused(shared_homeserver: Homeserver) -> None:
    alice = await new_device(shared_homeserver)
    device = dehydrated(alice.user)
    for body, status, errcode in (
        ({}, 400, "M_MISSING_PARAM"),
        (body_of(device, device_id="OTHER"), 400, "M_INVALID_PARAM"),
        (body_of(device, device_id=""), 400, "M_INVALID_PARAM"),
        (body_of(device, device_id="\0"), 400, "M_INVALID_PARAM"),
        (body_of(device, device_data={}), 400, "M_INVALID_PARAM"),
        (body_of(device, device_data={"algorithm": "x", "n": 10**30}), 400, "M_BAD_JSON"),
        (body_of(device, device_data={"algorithm": "x" * 2_000_000}), 413, "M_TOO_LARGE"),
        (body_of(device, one_time_keys={"x": "y"}), 400, "M_INVALID_PARAM"),
        (body_of(alice), 400, "M_INVALID_PARAM"),
    ):
        (await alice.user.request("PUT", PATH, body)).error(status, errcode)
    (await alice.user.request("GET", PATH)).error(404, "M_NOT_FOUND")
    assert alice.user.device_id in (await query(alice.user, alice.user))["device_keys"][alice.user.user_id]

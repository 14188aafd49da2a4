"""https://spec.matrix.org/v1.19/client-server-api/#key-management-api"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from tests.client import Homeserver
from tests.client_api.encryption import Device, claim, follow, log_in, new_device, password_auth, query
from tests.client_api.support import make_room
from tests.conftest import StartServer

CLAIMS = 200


async def test_uploaded_keys_are_found_by_others_with_the_name_of_the_device(shared_homeserver: Homeserver) -> None:
    alice, bob = await new_device(shared_homeserver), await shared_homeserver.register()
    nameless = Device(await log_in(alice.user, "NAMELESS"))
    await nameless.upload(device_keys=nameless.keys)
    await alice.user.request("PUT", f"devices/{alice.user.device_id}", {"display_name": "Phone"})

    answer = await query(bob, alice.user, bob)

    assert answer["device_keys"] == {
        alice.user.user_id: {
            alice.user.device_id: {**alice.keys, "unsigned": {"device_display_name": "Phone"}},
            "NAMELESS": {**nameless.keys, "unsigned": {}},
        },
        bob.user_id: {},
    }
    one = {"device_keys": {alice.user.user_id: ["NAMELESS", "NO SUCH DEVICE"], "@nobody:weft.test": []}}
    answer = (await bob.request("POST", "keys/query", one)).ok()
    assert {user_id: set(devices) for user_id, devices in answer["device_keys"].items()} == {
        alice.user.user_id: {"NAMELESS"}
    }


async def test_keys_of_somebody_else_and_what_is_no_key_are_refused(shared_homeserver: Homeserver) -> None:
    alice, bob = await new_device(shared_homeserver), await new_device(shared_homeserver)
    wrong: list[dict[str, Any]] = [
        {"device_keys": bob.keys},
        {"device_keys": {**alice.keys, "device_id": "OTHER"}},
        {"device_keys": {**alice.keys, "algorithms": "m.olm"}},
        {"device_keys": {**alice.keys, "algorithms": [1]}},
        {"device_keys": {**alice.keys, "keys": {"ed25519:A": 1}}},
        {"device_keys": {**alice.keys, "signatures": {alice.user.user_id: "x"}}},
        {"device_keys": {**alice.keys, "padding": "x" * 70_000}},
        {"device_keys": {name: value for name, value in alice.keys.items() if name != "signatures"}},
        {"one_time_keys": {"signed_curve25519": {}}},
        {"one_time_keys": {"signed_curve25519:A": 1}},
        {"one_time_keys": {"signed_curve25519:A": {"key": "x"}}},
        {"one_time_keys": {"signed_curve25519:\0": "x"}},
        {"one_time_keys": {f"signed_curve25519:{'A' * 300}": "x"}},
        {"fallback_keys": {"signed_curve25519:A": "x", "signed_curve25519:B": "y"}},
    ]
    for body in wrong:
        good = alice.one_time_keys(1)
        body["one_time_keys"] = {**good, **body.get("one_time_keys", {})}
        (await alice.user.request("POST", "keys/upload", body)).error(400, "M_INVALID_PARAM")
    for malformed in ({"device_keys": []}, {"one_time_keys": "x"}, {"fallback_keys": [1]}):
        (await alice.user.request("POST", "keys/upload", malformed)).error(400, "M_BAD_JSON")
    assert await alice.upload() == {"signed_curve25519": 0}
    assert (await query(bob.user, alice.user))["device_keys"][alice.user.user_id].keys() == {alice.user.device_id}


async def test_the_same_one_time_key_may_come_again_and_no_other_by_its_id(shared_homeserver: Homeserver) -> None:
    alice = await new_device(shared_homeserver)
    keys = alice.one_time_keys(3)
    assert await alice.upload(one_time_keys=keys) == {"signed_curve25519": 3}
    assert await alice.upload(one_time_keys=keys) == {"signed_curve25519": 3}

    other = dict(zip(keys, alice.one_time_keys(3).values(), strict=True))
    fresh = alice.one_time_keys(1)
    refused = await alice.user.request("POST", "keys/upload", {"one_time_keys": {**fresh, **other}})
    refused.error(400, "M_INVALID_PARAM")

    assert await alice.upload() == {"signed_curve25519": 3}
    given = [(await claim(alice.user, alice.user))[alice.user.device_id] for _ in range(3)]
    assert {key_id: key for one in given for key_id, key in one.items()} == keys


async def test_keys_are_given_out_in_the_order_of_their_uploads(shared_homeserver: Homeserver) -> None:
    alice, bob = await new_device(shared_homeserver), await shared_homeserver.register()
    uploads = [alice.one_time_keys(2) for _ in range(3)]
    for keys in reversed(uploads):
        await alice.upload(one_time_keys=keys)

    given = [next(iter((await claim(bob, alice.user))[alice.user.device_id])) for _ in range(6)]

    assert [set(given[at : at + 2]) for at in (0, 2, 4)] == [set(keys) for keys in reversed(uploads)]
    assert await claim(bob, alice.user) == {}


async def test_a_key_that_was_given_out_is_not_brought_back_by_an_upload_sent_again(
    shared_homeserver: Homeserver,
) -> None:
    alice, bob = await new_device(shared_homeserver), await shared_homeserver.register()
    keys = alice.one_time_keys(2)
    await alice.upload(one_time_keys=keys)
    first = (await claim(bob, alice.user))[alice.user.device_id]

    assert await alice.upload(one_time_keys=keys) == {"signed_curve25519": 1}

    second = (await claim(bob, alice.user))[alice.user.device_id]
    assert {**first, **second} == keys
    assert await claim(bob, alice.user) == {}


async def test_other_identity_keys_take_what_the_old_ones_signed_with_them(shared_homeserver: Homeserver) -> None:
    """A client that has lost its keys and logs in as the same device: nobody could use what it signed before."""
    before, bob = await new_device(shared_homeserver, one_time_keys=2), await shared_homeserver.register()
    await before.upload(fallback_keys=before.fallback_key())
    device = Device(before.user)
    fallback, one_time = device.fallback_key(), device.one_time_keys(1)
    counts = await device.upload(device_keys=device.keys, one_time_keys=one_time, fallback_keys=fallback)
    assert counts == {"signed_curve25519": 1}
    for keys in (one_time, fallback):
        assert (await claim(bob, device.user))[device.user.device_id] == keys
    named = device.sign({**device.keys, "algorithms": ["m.olm.v1.curve25519-aes-sha2"]})
    await device.upload(device_keys=named)
    assert (await claim(bob, device.user))[device.user.device_id] == fallback


async def test_two_hundred_claims_at_once_get_no_key_twice(shared_homeserver: Homeserver) -> None:
    alice = await new_device(shared_homeserver, one_time_keys=CLAIMS // 2)
    second = Device(await log_in(alice.user, "SECOND"))
    fallback = second.fallback_key()
    await second.upload(device_keys=second.keys, one_time_keys=second.one_time_keys(50), fallback_keys=fallback)
    claimers = [await shared_homeserver.register() for _ in range(8)]

    answers = await asyncio.gather(*(claim(claimers[number % 8], alice.user, second.user) for number in range(CLAIMS)))

    first_keys = Counter(key_id for answer in answers for key_id in answer.get(alice.user.device_id, {}))
    second_keys = Counter(key_id for answer in answers for key_id in answer["SECOND"])
    [fallback_id] = fallback
    assert set(first_keys.values()) == {1}
    assert len(first_keys) == CLAIMS // 2
    assert second_keys.pop(fallback_id) == CLAIMS - 50
    assert set(second_keys.values()) == {1}
    assert len(second_keys) == 50
    assert await alice.upload() == {"signed_curve25519": 0}


async def test_fallback_keys_stay_and_are_told_once_they_are_used(shared_homeserver: Homeserver) -> None:
    alice, bob = await new_device(shared_homeserver, one_time_keys=1), await shared_homeserver.register()
    device = await follow(alice.user)
    assert (device.counts, device.unused_fallback) == ({"signed_curve25519": 1}, [])
    fallback = alice.fallback_key()
    await alice.upload(fallback_keys=fallback)
    await device.sync()
    assert (device.counts, device.unused_fallback) == ({"signed_curve25519": 1}, ["signed_curve25519"])

    assert (await claim(bob, alice.user))[alice.user.device_id].keys().isdisjoint(fallback)
    await device.sync()
    assert (device.counts, device.unused_fallback) == ({"signed_curve25519": 0}, ["signed_curve25519"])
    for _ in range(2):
        assert (await claim(bob, alice.user))[alice.user.device_id] == fallback
        await device.sync()
        assert device.unused_fallback == []

    await alice.upload(fallback_keys=fallback)  # the same again is not a new one
    await device.sync()
    assert device.unused_fallback == []
    replacement = alice.fallback_key()
    await alice.upload(fallback_keys=replacement)
    await device.sync()
    assert device.unused_fallback == ["signed_curve25519"]
    assert (await claim(bob, alice.user))[alice.user.device_id] == replacement


async def test_algorithms_are_counted_apart(shared_homeserver: Homeserver) -> None:
    alice = await new_device(shared_homeserver, one_time_keys=2)
    counts = await alice.upload(one_time_keys={"curve25519:A": "x", **alice.one_time_keys(3, algorithm="other")})
    assert counts == {"signed_curve25519": 2, "curve25519": 1, "other": 3}
    assert (await claim(alice.user, alice.user, algorithm="curve25519")) == {
        alice.user.device_id: {"curve25519:A": "x"}
    }
    assert (await follow(alice.user)).counts == {"signed_curve25519": 2, "other": 3}
    assert await claim(alice.user, alice.user, algorithm="unknown") == {}


async def test_servers_that_cannot_be_asked_are_named(shared_homeserver: Homeserver) -> None:
    alice = await new_device(shared_homeserver, one_time_keys=1)
    remote = "@bob:elsewhere.test"
    answer = await alice.user.request("POST", "keys/query", {"device_keys": {remote: [], alice.user.user_id: []}})
    assert answer.ok()["failures"].keys() == {"elsewhere.test"}
    assert answer.json["device_keys"].keys() == {alice.user.user_id}
    wanted = {remote: {"A": "signed_curve25519"}, alice.user.user_id: {alice.user.device_id: "signed_curve25519"}}
    answer = await alice.user.request("POST", "keys/claim", {"one_time_keys": wanted})
    assert answer.ok()["failures"].keys() == {"elsewhere.test"}
    assert answer.json["one_time_keys"].keys() == {alice.user.user_id}


@pytest.mark.parametrize(
    ("path", "body", "error"),
    [
        ("keys/query", {}, "M_MISSING_PARAM"),
        ("keys/query", {"device_keys": []}, "M_BAD_JSON"),
        ("keys/query", {"device_keys": {"@a:b": "A"}}, "M_BAD_JSON"),
        ("keys/query", {"device_keys": {"@a:b": []}, "timeout": -1}, "M_BAD_JSON"),
        ("keys/query", {"device_keys": {"nobody": []}}, "M_INVALID_PARAM"),
        ("keys/query", {"device_keys": {"@a\0:weft.test": []}}, "M_INVALID_PARAM"),
        ("keys/claim", {}, "M_MISSING_PARAM"),
        ("keys/claim", {"one_time_keys": {"@a:b": ["A"]}}, "M_BAD_JSON"),
        ("keys/claim", {"one_time_keys": {"@a:b": {"A": 1}}}, "M_BAD_JSON"),
        ("keys/claim", {"one_time_keys": {"nobody": {}}}, "M_INVALID_PARAM"),
    ],
)
async def test_nonsense_is_refused(shared_homeserver: Homeserver, path: str, body: dict[str, Any], error: str) -> None:
    alice = await shared_homeserver.register()
    (await alice.request("POST", path, body)).error(400, error)


async def test_nul_characters_find_nothing(shared_homeserver: Homeserver) -> None:
    alice = await new_device(shared_homeserver)
    user_id = alice.user.user_id
    assert (await alice.user.request("POST", "keys/query", {"device_keys": {user_id: ["\0"]}})).ok()
    wanted = {user_id: {"\0": "signed_curve25519", alice.user.device_id: "\0"}}
    assert (await alice.user.request("POST", "keys/claim", {"one_time_keys": wanted})).ok()["one_time_keys"] == {}


async def test_keys_survive_a_restart(start_server: StartServer) -> None:
    async with start_server() as homeserver:
        alice = await new_device(homeserver, one_time_keys=3)
        given = (await claim(alice.user, alice.user))[alice.user.device_id]
    async with start_server() as homeserver:
        alice.user.homeserver = homeserver
        assert alice.user.device_id in (await query(alice.user, alice.user))["device_keys"][alice.user.user_id]
        assert (await follow(alice.user)).counts == {"signed_curve25519": 2}
        again = (await claim(alice.user, alice.user))[alice.user.device_id]
        assert given.keys().isdisjoint(again)


async def test_a_device_that_is_gone_has_no_keys(shared_homeserver: Homeserver) -> None:
    alice, bob = await new_device(shared_homeserver), await shared_homeserver.register()
    await make_room(bob, creator=alice.user)
    laptop = Device(await log_in(alice.user, "LAPTOP"))
    await laptop.upload(device_keys=laptop.keys, one_time_keys=laptop.one_time_keys(3))

    body = {"auth": password_auth(alice.user)}
    (await alice.user.request("DELETE", "devices/LAPTOP", body)).ok()

    assert (await query(bob, alice.user))["device_keys"][alice.user.user_id].keys() == {alice.user.device_id}
    assert await claim(bob, laptop.user) == {}
    again = Device(await log_in(alice.user, "LAPTOP"))
    assert await again.upload() == {"signed_curve25519": 0}

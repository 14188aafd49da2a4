"""https://spec.matrix.org/v1.19/client-server-api/#cross-signing"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.client import Answer, Homeserver, User
from tests.client_api.encryption import (
    Device,
    follow,
    log_in,
    new_device,
    new_signing_key,
    password_auth,
    query,
    sign_as,
)
from tests.client_api.support import make_room


class Identity:
    """A user's three keys, in private."""

    def __init__(self, user: User) -> None:
        self.user = user
        self.private = {usage: new_signing_key("k") for usage in ("master", "self_signing", "user_signing")}

    def public(self, usage: str) -> str:
        return self.private[usage].public_key_base64

    def key(self, usage: str) -> dict[str, Any]:
        """A public key as it is uploaded."""
        public = self.public(usage)
        key = {"user_id": self.user.user_id, "usage": [usage], "keys": {f"ed25519:{public}": public}}
        return key if usage == "master" else self.sign(key, "master")

    def sign(self, value: dict[str, Any], usage: str) -> dict[str, Any]:
        """The object with a signature by one of the keys."""
        return sign_as(self.user.user_id, f"ed25519:{self.public(usage)}", self.private[usage], value)

    def keys(self, *usages: str) -> dict[str, Any]:
        """The body of an upload."""
        return {f"{usage}_key": self.key(usage) for usage in usages or self.private}


async def upload(user: User, keys: dict[str, Any], *, auth: bool = False) -> Answer:
    body = {**keys, "auth": password_auth(user)} if auth else keys
    return await user.request("POST", "keys/device_signing/upload", body)


async def new_identity(user: User) -> Identity:
    identity = Identity(user)
    (await upload(user, identity.keys())).ok()
    return identity


async def upload_signatures(user: User, signed: dict[str, Any]) -> dict[str, Any]:
    answer = (await user.request("POST", "keys/signatures/upload", signed)).ok()
    failures: dict[str, Any] = answer["failures"]
    return failures


def errcodes(failures: dict[str, Any]) -> dict[tuple[str, str], str]:
    return {(user, key): error["errcode"] for user, keys in failures.items() for key, error in keys.items()}


async def test_the_first_set_needs_no_password_and_another_does(shared_homeserver: Homeserver) -> None:
    alice = await shared_homeserver.register()
    first, second = Identity(alice), Identity(alice)
    (await upload(alice, first.keys())).ok()
    (await upload(alice, first.keys())).ok()
    (await upload(alice, first.keys("master"))).ok()

    challenge = await upload(alice, second.keys())
    assert challenge.status == 401
    assert challenge.json["flows"] == [{"stages": ["m.login.password"]}]
    assert (await query(alice, alice))["master_keys"][alice.user_id] == first.key("master")
    (await upload(alice, first.keys("master") | second.keys("self_signing"))).error(400, "M_INVALID_SIGNATURE")
    (await upload(alice, second.keys(), auth=True)).ok()

    answer = await query(alice, alice)
    for usage in ("master", "self_signing", "user_signing"):
        assert answer[f"{usage}_keys"] == {alice.user_id: second.key(usage)}


async def test_of_two_first_sets_at_once_one_is_the_first(shared_homeserver: Homeserver) -> None:
    alice = await shared_homeserver.register()
    answers = await asyncio.gather(*(upload(alice, Identity(alice).keys()) for _ in range(4)))
    assert sorted(answer.status for answer in answers) == [200, 401, 401, 401]


async def test_a_new_master_key_ends_what_the_old_one_has_signed(shared_homeserver: Homeserver) -> None:
    alice = await new_device(shared_homeserver)
    old = await new_identity(alice.user)
    signed = old.sign(alice.keys, "self_signing")
    assert await upload_signatures(alice.user, {alice.user.user_id: {alice.user.device_id: signed}}) == {}

    new = Identity(alice.user)
    (await upload(alice.user, new.keys("master"), auth=True)).ok()

    answer = await query(alice.user, alice.user)
    assert answer["master_keys"] == {alice.user.user_id: new.key("master")}
    assert (answer["self_signing_keys"], answer["user_signing_keys"]) == ({}, {})
    device = answer["device_keys"][alice.user.user_id][alice.user.device_id]
    assert device["signatures"] == alice.keys["signatures"]


async def test_others_see_all_but_the_user_signing_key(shared_homeserver: Homeserver) -> None:
    alice, bob = await shared_homeserver.register(), await shared_homeserver.register()
    identity = await new_identity(alice)
    answer = await query(bob, alice)
    assert answer["master_keys"] == {alice.user_id: identity.key("master")}
    assert answer["self_signing_keys"] == {alice.user_id: identity.key("self_signing")}
    assert answer["user_signing_keys"] == {}


async def test_keys_that_nobody_may_upload_are_refused(shared_homeserver: Homeserver) -> None:
    alice, bob = await shared_homeserver.register(), await shared_homeserver.register()
    own, others = Identity(alice), Identity(bob)
    master, public = own.key("master"), own.public("master")
    forged = own.key("self_signing")
    forged["signatures"][alice.user_id] = others.key("self_signing")["signatures"][bob.user_id]
    for keys, errcode in (
        (own.keys("self_signing"), "M_MISSING_PARAM"),
        ({}, "M_MISSING_PARAM"),
        (others.keys(), "M_INVALID_PARAM"),
        ({"master_key": {**master, "usage": ["self_signing"]}}, "M_INVALID_PARAM"),
        ({"master_key": {**master, "usage": "master"}}, "M_INVALID_PARAM"),
        ({"master_key": {**master, "keys": {}}}, "M_INVALID_PARAM"),
        ({"master_key": {**master, "keys": {f"ed25519:{public}": public, "ed25519:A": "A"}}}, "M_INVALID_PARAM"),
        ({"master_key": {**master, "keys": {"ed25519:A": public}}}, "M_INVALID_PARAM"),
        ({"master_key": {**master, "keys": {"ed25519:A": "A"}}}, "M_INVALID_PARAM"),
        ({"master_key": {**master, "signatures": {alice.user_id: "x"}}}, "M_INVALID_PARAM"),
        ({"master_key": {**master, "note": "x" * 70_000}}, "M_INVALID_PARAM"),
        ({"master_key": master, "self_signing_key": forged}, "M_INVALID_SIGNATURE"),
        ({"master_key": []}, "M_BAD_JSON"),
    ):
        (await upload(alice, keys)).error(400, errcode)
    assert (await query(alice, alice))["master_keys"] == {}


async def test_devices_and_keys_do_not_share_names(shared_homeserver: Homeserver) -> None:
    alice = await shared_homeserver.register()
    identity = Identity(alice)
    await log_in(alice, identity.public("self_signing"))
    (await upload(alice, identity.keys())).error(403, "M_FORBIDDEN")
    other = await new_identity(alice)
    body = {**password_auth(alice), "device_id": other.public("master")}
    (await shared_homeserver.request("POST", "/_matrix/client/v3/login", body)).error(400, "M_INVALID_PARAM")


async def test_signatures_are_shown_to_whom_they_concern(shared_homeserver: Homeserver) -> None:
    alice, bob = await new_device(shared_homeserver), await new_device(shared_homeserver)
    carol = await shared_homeserver.register()
    of_alice, of_bob = await new_identity(alice.user), await new_identity(bob.user)
    a, b = alice.user.user_id, bob.user.user_id
    own_device = of_alice.sign(alice.keys, "self_signing")
    own_master = alice.sign(of_alice.key("master"))
    bobs_master = of_alice.sign(of_bob.key("master"), "user_signing")
    signed = {
        a: {alice.user.device_id: own_device, of_alice.public("master"): own_master},
        b: {of_bob.public("master"): bobs_master},
    }
    assert await upload_signatures(alice.user, signed) == {}
    assert await upload_signatures(alice.user, signed) == {}

    seen = {user.user_id: await query(user, alice.user, bob.user) for user in (alice.user, bob.user, carol)}

    for answer in seen.values():
        assert answer["device_keys"][a][alice.user.device_id]["signatures"] == own_device["signatures"]
        assert answer["master_keys"][a] == own_master
    assert seen[a]["master_keys"][b] == bobs_master
    assert seen[b]["master_keys"][b] == seen[carol.user_id]["master_keys"][b] == of_bob.key("master")


async def test_signatures_that_do_not_hold_fail_one_by_one(shared_homeserver: Homeserver) -> None:
    alice, bob = await new_device(shared_homeserver), await new_device(shared_homeserver)
    of_alice, of_bob = await new_identity(alice.user), await new_identity(bob.user)
    a, b = alice.user.user_id, bob.user.user_id
    second = Device(await log_in(alice.user, "SECOND"))
    await second.upload(device_keys=second.keys)
    third = Device(await log_in(alice.user, "THIRD"))
    await third.upload(device_keys=third.keys)
    forged = of_alice.sign(third.keys, "self_signing")
    forged["signatures"][a][f"ed25519:{of_alice.public('self_signing')}"] = "A" * 86
    signed = {
        a: {
            alice.user.device_id: of_alice.sign(alice.keys, "self_signing"),
            "SECOND": of_alice.sign({**second.keys, "algorithms": []}, "self_signing"),
            "THIRD": forged,
            "NO SUCH DEVICE": of_alice.sign(third.keys, "self_signing"),
            of_alice.public("master"): of_alice.sign(of_alice.key("master"), "self_signing"),
            of_alice.public("self_signing"): alice.sign(of_alice.key("self_signing")),
        },
        b: {
            bob.user.device_id: of_alice.sign(bob.keys, "user_signing"),
            of_bob.public("master"): of_alice.sign(of_bob.key("master"), "self_signing"),
        },
        "@nobody:elsewhere.test": {"A": of_alice.sign({}, "user_signing")},
    }

    failures = errcodes(await upload_signatures(alice.user, signed))

    assert failures == {
        (a, "SECOND"): "M_INVALID_SIGNATURE",
        (a, "THIRD"): "M_INVALID_SIGNATURE",
        (a, "NO SUCH DEVICE"): "M_NOT_FOUND",
        (a, of_alice.public("master")): "M_INVALID_SIGNATURE",
        (a, of_alice.public("self_signing")): "M_NOT_FOUND",
        (b, bob.user.device_id): "M_NOT_FOUND",
        (b, of_bob.public("master")): "M_INVALID_SIGNATURE",
        ("@nobody:elsewhere.test", "A"): "M_NOT_FOUND",
    }
    device = (await query(bob.user, alice.user))["device_keys"][a][alice.user.device_id]
    assert f"ed25519:{of_alice.public('self_signing')}" in device["signatures"][a]
    for body in ([], {a: []}, {a: {"A": []}}):
        (await alice.user.request("POST", "keys/signatures/upload", body)).error(400, "M_BAD_JSON")
    (await alice.user.request("POST", "keys/signatures/upload", {"nobody": {}})).error(400, "M_INVALID_PARAM")


async def test_changes_are_told(shared_homeserver: Homeserver) -> None:
    alice, bob = await new_device(shared_homeserver), await new_device(shared_homeserver)
    a, b = alice.user.user_id, bob.user.user_id
    await make_room(bob.user, creator=alice.user)
    second = await log_in(alice.user, "SECOND")
    followers = [await follow(user) for user in (alice.user, second, bob.user)]

    async def told() -> list[list[str]]:
        for follower in followers:
            await follower.sync()
        return [follower.changed for follower in followers]

    of_alice = await new_identity(alice.user)
    assert await told() == [[a], [a], [a]]
    (await upload(alice.user, of_alice.keys())).ok()
    assert await told() == [[], [], []]
    of_bob = await new_identity(bob.user)
    assert await told() == [[b], [b], [b]]
    await upload_signatures(alice.user, {a: {alice.user.device_id: of_alice.sign(alice.keys, "self_signing")}})
    assert await told() == [[a], [a], [a]]
    signed = of_alice.sign(of_bob.key("master"), "user_signing")
    await upload_signatures(alice.user, {b: {of_bob.public("master"): signed}})
    assert await told() == [[b], [b], []], "whom Alice has verified is nobody else's business"
    await upload_signatures(alice.user, {b: {of_bob.public("master"): signed}})
    assert await told() == [[], [], []]


async def test_a_closed_account_has_no_keys(shared_homeserver: Homeserver) -> None:
    alice, bob = await new_device(shared_homeserver), await shared_homeserver.register()
    await new_identity(alice.user)
    (await alice.user.request("POST", "account/deactivate", {"auth": password_auth(alice.user)})).ok()
    answer = await query(bob, alice.user)
    assert answer["device_keys"] == {alice.user.user_id: {}}
    assert (answer["master_keys"], answer["self_signing_keys"]) == ({}, {})


@pytest.mark.parametrize("again", [False, True])
async def test_other_identity_keys_take_the_signatures_of_the_old_ones_with_them(
    shared_homeserver: Homeserver, again: bool
) -> None:
    alice = await new_device(shared_homeserver)
    identity = await new_identity(alice.user)
    signed = identity.sign(alice.keys, "self_signing")
    await upload_signatures(alice.user, {alice.user.user_id: {alice.user.device_id: signed}})
    changed = alice if again else Device(alice.user)

    await changed.upload(device_keys=changed.keys)

    device = (await query(alice.user, alice.user))["device_keys"][alice.user.user_id][alice.user.device_id]
    assert device["signatures"] == (signed if again else changed.keys)["signatures"]

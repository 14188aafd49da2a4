"""Key claims and device lists against models in the words of the specification, by steps of hypothesis."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from config.schema import Caches
from tests.client import Homeserver, User
from tests.client_api.encryption import Device, Follower, claim, follow, new_device
from tests.conftest import StartServer
from tests.engine.seeds import seeded_random

IN_HYPOTHESIS = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
async def device(shared_homeserver: Homeserver) -> Device:
    return await new_device(shared_homeserver)


CLAIM_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("upload"), st.integers(1, 3)), st.sampled_from(("again", "fallback", "claim", "claim"))
    ),
    max_size=20,
)


class Keys:
    """What a device has to give: uploads in order, keys that were given, the fallback key and whether it was."""

    def __init__(self) -> None:
        self.uploads: list[dict[str, Any]] = []
        self.given: set[str] = set()
        self.last: dict[str, Any] = {}
        self.fallback: dict[str, Any] = {}
        self.fallback_is_used = False

    @property
    def count(self) -> int:
        return sum(map(len, self.uploads))

    def check_claimed(self, claimed: dict[str, Any]) -> None:
        """https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keysclaim"""
        self.uploads = [upload for upload in self.uploads if upload]
        if not self.uploads:
            assert claimed == self.fallback
            self.fallback_is_used = bool(self.fallback)
            return
        [(key_id, key)] = claimed.items()
        assert self.uploads[0].pop(key_id) == key
        assert key_id not in self.given
        self.given.add(key_id)


@settings(max_examples=40, suppress_health_check=IN_HYPOTHESIS)
@given(steps=CLAIM_STEPS)
async def test_claims_give_the_oldest_key_once_and_else_the_fallback(device: Device, steps: list[Any]) -> None:
    algorithm, model, user = f"algorithm{next(_numbers)}", Keys(), device.user
    for step in steps:
        if step == "claim":
            model.check_claimed((await claim(user, user, algorithm=algorithm)).get(user.device_id, {}))
        elif step == "fallback":
            model.fallback, model.fallback_is_used = device.fallback_key(algorithm=algorithm), False
            await device.upload(fallback_keys=model.fallback)
        elif step == "again":
            counts = await device.upload(one_time_keys=model.last)
            assert counts.get(algorithm, 0) == model.count
        else:
            model.last = device.one_time_keys(step[1], algorithm=algorithm)
            model.uploads.append(dict(model.last))
            counts = await device.upload(one_time_keys=model.last)
            assert counts[algorithm] == model.count
        answer = await user.sync()
        assert answer["device_one_time_keys_count"].get(algorithm, 0) == model.count
        is_unused = bool(model.fallback) and not model.fallback_is_used
        assert (algorithm in answer["device_unused_fallback_key_types"]) == is_unused


USERS, ROOMS = 4, 3
LIST_STEPS = st.lists(
    st.tuples(
        st.sampled_from(("join", "join", "leave", "kick", "invite", "keys", "sync", "sync")),
        st.integers(0, 3),
        st.integers(0, 2),
    ),
    min_size=10,
    max_size=40,
)


class World:
    """Users who come and go in rooms of a host, who stays; who is where, and what each knew at their last sync."""

    def __init__(self, host: User, devices: list[Device], rooms: list[str]) -> None:
        self.host = host
        self.devices = devices
        self.rooms = rooms
        self.joined = {room_id: {host.user_id} for room_id in rooms}
        self.versions = {user.user_id: 0 for user in (host, *(device.user for device in devices))}
        self.followers: list[Follower] = []
        self.shared: list[set[str]] = []
        self.known: list[dict[str, int]] = []

    def sharing(self, user_id: str) -> set[str]:
        """Who shares a room with a user."""
        return {other for members in self.joined.values() if user_id in members for other in members} - {user_id}

    async def step(self, kind: str, number: int, room: int) -> None:
        """Does something, on the server and in the model."""
        user, room_id = self.devices[number].user, self.rooms[room]
        members = self.joined[room_id]
        match kind:
            case "join":
                await user.join(room_id)
                members.add(user.user_id)
            case "leave":  # or decline an invitation, or try to leave a room they are not in
                answer = await user.in_room("POST", room_id, "leave", {})
                assert answer.status == 200 or user.user_id not in members
                members.discard(user.user_id)
            case "kick" if user.user_id in members:
                (await self.host.in_room("POST", room_id, "kick", {"user_id": user.user_id})).ok()
                members.discard(user.user_id)
            case "invite" if user.user_id not in members:
                await self.host.in_room("POST", room_id, "invite", {"user_id": user.user_id})
            case "keys":
                changed = Device(user)
                await changed.upload(device_keys=changed.keys)
                self.versions[user.user_id] += 1
            case "sync":
                await self.check_sync(number)

    async def check_sync(self, number: int, *, is_exact: bool = True) -> None:
        """A sync says whose keys have changed or are new to the user, and who is gone, and of nobody else.

        https://spec.matrix.org/v1.19/client-server-api/#e2e-extensions-to-sync
        """
        user_id = self.devices[number].user.user_id
        now, then = self.sharing(user_id), self.shared[number]
        changed = {other for other in now & then if self.versions[other] != self.known[number][other]}
        changed |= now - then
        changed |= {user_id} if self.versions[user_id] != self.known[number][user_id] else set()
        follower = self.followers[number]
        await follower.sync()
        if is_exact:
            assert (set(follower.changed), set(follower.left)) == (changed, then - now)
        else:
            assert changed <= set(follower.changed) <= now | {user_id}
            assert then - now <= set(follower.left)
            assert now.isdisjoint(follower.left)
        self.note(number)

    def note(self, number: int) -> None:
        """What a user knows by now."""
        self.shared[number] = self.sharing(self.devices[number].user.user_id)
        self.known[number] = dict(self.versions)

    async def start(self) -> None:
        """Everybody out, and everybody knows it."""
        for number, device in enumerate(self.devices):
            for room in range(len(self.rooms)):
                await self.step("leave", number, room)
            if len(self.followers) <= number:
                self.followers.append(await follow(device.user))
                self.shared.append(set())
                self.known.append({})
            await self.followers[number].sync()
            self.note(number)


async def new_world(homeserver: Homeserver, *, rooms: int) -> World:
    host = await homeserver.register()
    devices = [await new_device(homeserver) for _ in range(USERS)]
    return World(host, devices, [await host.create_room(preset="public_chat") for _ in range(rooms)])


@pytest.fixture(scope="module")
async def world(shared_homeserver: Homeserver) -> World:
    return await new_world(shared_homeserver, rooms=ROOMS)


@settings(max_examples=60, suppress_health_check=IN_HYPOTHESIS)
@given(steps=LIST_STEPS)
async def test_device_lists_tell_what_has_changed_and_nothing_else(
    world: World, steps: list[tuple[str, int, int]]
) -> None:
    await world.start()
    for step in steps:
        await world.step(*step)
    for number in range(USERS):
        await world.check_sync(number)
        await world.followers[number].sync()
        assert (world.followers[number].changed, world.followers[number].left) == ([], [])


async def test_device_lists_hold_over_restarts_and_where_rooms_are_not_in_memory(start_server: StartServer) -> None:
    rng = seeded_random()
    caches = Caches(rooms=16)  # of 40, and the host is in all of them
    kinds = ("join",) * 8 + ("leave",) * 6 + ("kick",) * 2 + ("keys", "sync")
    world = None
    for _ in range(3):
        async with start_server(caches=caches) as homeserver:
            if world is None:
                world = await new_world(homeserver, rooms=40)
                await world.start()
            for user in (world.host, *(device.user for device in world.devices)):
                user.homeserver = homeserver
            for number in range(USERS):  # what memory knows nothing of is told by the database, and a little more
                await world.check_sync(number, is_exact=False)
            for _ in range(150):
                kind, number = rng.choice(kinds), rng.randrange(USERS)
                user_id = world.devices[number].user.user_id
                inside = [at for at, room_id in enumerate(world.rooms) if user_id in world.joined[room_id]]
                is_going = kind in ("leave", "kick") and inside
                await world.step(kind, number, rng.choice(inside) if is_going else rng.randrange(40))

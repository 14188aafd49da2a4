"""However a history is cut into syncs, they tell the same events, once each and in order, and the same state."""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from config.schema import Caches, Config
from tests.client import Homeserver, User
from tests.conftest import make_config, started
from tests.engine.follower import Follower, page_back, read_state
from tests.engine.integrity import check_database
from tests.engine.seeds import seeded_random

ROOMS = 20  # more than the smallest cache of rooms holds
WRITERS = 3
FOLLOWERS = 4
ROUNDS = 3
STEPS = 50

COLD = Caches(rooms=16, events=16, snapshots=16, tokens=16, users=16)


class History:
    """Random things that happen in rooms. The followers are in all of them from the beginning, and stay."""

    def __init__(self, rng: random.Random, writers: list[User], followers: list[Follower], rooms: list[str]) -> None:
        self.rng = rng
        self.writers = writers
        self.followers = followers
        self.rooms = rooms
        self.sent: dict[str, list[str]] = {room_id: [] for room_id in rooms}
        self.state: dict[str, list[str]] = {room_id: [] for room_id in rooms}
        self.redacted: set[str] = set()

    async def step(self) -> None:
        """One thing that happens."""
        room_id = self.rooms[min(int(self.rng.expovariate(0.3)), len(self.rooms) - 1)]
        user = self.rng.choice(self.writers)
        happening = self.rng.choice(
            (self._message, self._message, self._burst, self._state, self._redact, self._member)
        )
        await happening(user, room_id)

    async def _message(self, user: User, room_id: str) -> None:
        self.sent[room_id].append(await user.send(room_id, f"secret {self.rng.random()}"))

    async def _burst(self, user: User, room_id: str) -> None:
        for _ in range(self.rng.randint(1, 25)):
            await self._message(user, room_id)

    async def _state(self, user: User, room_id: str) -> None:
        content = {"value": self.rng.random() > 0.5, "secret": str(self.rng.random())}
        event_id = await user.set_state(room_id, "weft.test", content, str(self.rng.randint(0, 1)))
        self.state[room_id].append(event_id)
        self.sent[room_id].append(event_id)

    async def _redact(self, user: User, room_id: str) -> None:
        candidates = self.rng.choice((self.sent[room_id][-15:], self.state[room_id][-3:]))
        if not candidates:
            return
        event_id = self.rng.choice(candidates)
        path = f"redact/{quote(event_id, safe='')}/{self.rng.getrandbits(64)}"
        (await self.writers[0].in_room("PUT", room_id, path, {})).ok()
        self.redacted.add(event_id)

    async def _member(self, user: User, room_id: str) -> None:
        if user is not self.writers[0]:
            (await user.in_room("POST", room_id, "leave", {})).ok()
            await user.join(room_id)

    async def check(self) -> None:
        """What each follower was told is what the room has; what was redacted is shown by no answer any more."""
        for follower in self.followers:
            await follower.follow(timeline_limit=self.rng.choice((1, 10)))
        for room_id in self.rooms:
            events = (await page_back(self.writers[0], room_id, limit=self.rng.choice((7, 100))))[::-1]
            state = await read_state(self.writers[0], room_id)
            for follower in self.followers:
                assert follower.event_ids(room_id) == [event["event_id"] for event in events]
                assert follower.state[room_id] == state
            self._check_redacted(events)
        for limit in (5, 15, 30):
            initial = await self.writers[0].sync(filter=f'{{"room":{{"timeline":{{"limit":{limit}}}}}}}')
            for room in initial["rooms"]["join"].values():
                self._check_redacted(room["timeline"]["events"] + room.get("state", {}).get("events", []))

    def _check_redacted(self, events: list[dict[str, Any]]) -> None:
        for event in events:
            if event["event_id"] in self.redacted:
                assert not event["content"], f"{event['event_id']} was redacted"
            replaced = event["unsigned"].get("replaces_state")
            if replaced in self.redacted:
                assert not event["unsigned"]["prev_content"], f"{replaced} was redacted"


async def begin(rng: random.Random, homeserver: Homeserver) -> History:
    writers = [await homeserver.register(f"writer{n}") for n in range(WRITERS)]
    readers = [await homeserver.register(f"reader{n}") for n in range(FOLLOWERS)]
    power = {"events_default": 0, "state_default": 0}
    rooms = [
        await writers[0].create_room(preset="public_chat", power_level_content_override=power) for _ in range(ROOMS)
    ]
    for room_id in rooms:
        for user in (*writers[1:], *readers):
            await user.join(room_id)
    followers = [Follower(user, state_after=n % 2 == 1) for n, user in enumerate(readers)]
    for follower in followers:
        await follower.follow(timeline_limit=rng.choice((1, 5, 50)))
    return History(rng, writers, followers, rooms)


async def live(history: History, rng: random.Random) -> None:
    """Things happen, while each follower syncs at times and with limits of its own."""
    done = asyncio.Event()

    async def follow(follower: Follower, limits: tuple[int, ...], timeout: int) -> None:
        while not done.is_set():
            await follower.follow(timeline_limit=rng.choice(limits), timeout=timeout)

    # The first two follow all the time, the third now and then, the last one only after each restart.
    following = [
        asyncio.create_task(follow(history.followers[0], (1, 2, 3), 50)),
        asyncio.create_task(follow(history.followers[1], (1, 20, 500), 0)),
    ]
    try:
        for _ in range(STEPS):
            await history.step()
            if rng.random() < 0.1:
                await history.followers[2].follow(timeline_limit=rng.choice((1, 10, 100)))
    finally:
        done.set()
    await asyncio.wait_for(asyncio.gather(*following), 20)


@pytest.mark.parametrize("caches", [Caches(), COLD], ids=["warm", "cold"])
async def test_every_cut_of_a_history_tells_the_same(database_url: str, tmp_path: Path, caches: Caches) -> None:
    rng = seeded_random()
    config: Config = replace(make_config(tmp_path), caches=caches)
    history: History | None = None
    for _ in range(ROUNDS):
        async with AsyncExitStack() as stack:
            homeserver = await stack.enter_async_context(started(config, database_url))
            if history is None:
                history = await begin(rng, homeserver)
            for user in (*history.writers, *(follower.user for follower in history.followers)):
                user.homeserver = homeserver
            await live(history, rng)
            await history.check()
    await check_database(database_url)

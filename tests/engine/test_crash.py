"""`kill -9` at any moment loses nothing that was acknowledged, and leaves nothing half-written."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from storage.embedded import EmbeddedPostgres
from tests.client import Homeserver, User
from tests.engine.follower import Follower, page_back, read_state
from tests.engine.integrity import check_database
from tests.engine.process import ServerProcess, kill_postgres, write_config
from tests.engine.seeds import seeded_random
from tests.engine.waiting import eventually

SENDERS = 6
JOINERS = 40
ROUNDS = 2
# What a client notices of a server that dies.
GONE = (aiohttp.ClientError, ConnectionError, asyncio.TimeoutError)


class Load:
    """Clients that work at a server until it dies, and what each was told.

    `acknowledged` and `attempted` map transaction IDs to the room and, where there was an answer, the event ID.
    """

    def __init__(self, users: list[User], joiners: list[User], rooms: list[str]) -> None:
        self.users = users
        self.joiners = joiners
        self.rooms = rooms
        self.attempted: dict[tuple[int, str], str] = {}
        self.acknowledged: dict[tuple[int, str], str] = {}
        self.state: dict[str, int] = {}
        self.tried_state: dict[str, int] = {}
        self.joined: set[str] = set()
        self.created: list[str] = []
        self.follower = Follower(users[0])
        self._numbers: Counter[int] = Counter()

    async def run(self) -> None:
        """Works until the server is gone."""
        work: list[Coroutine[Any, Any, None]] = [self._until_gone(self._follow)]
        for index in range(len(self.users)):
            work.append(self._until_gone(lambda index=index: self._send(index)))  # type: ignore[misc]
        work += [self._until_gone(self._set_state), self._until_gone(self._create), self._join_all()]
        await asyncio.gather(*work)

    async def _until_gone(self, step: Callable[[], Awaitable[None]]) -> None:
        try:
            while True:
                await step()
        except GONE:
            return

    async def _send(self, index: int) -> None:
        self._numbers[index] += 1
        key = (index, f"{index}-{self._numbers[index]}")
        self.attempted[key] = self.rooms[self._numbers[index] % len(self.rooms)]
        event_id = await self.send_again(key)
        if event_id is not None:
            self.acknowledged[key] = event_id

    async def send_again(self, key: tuple[int, str]) -> str | None:
        """Sends a transaction, for the first time or again: the event ID, None if it was refused."""
        index, txn_id = key
        path = f"send/m.room.message/{txn_id}"
        content = {"msgtype": "m.text", "body": txn_id}
        answer = await self.users[index].in_room("PUT", self.attempted[key], path, content)
        return answer.json["event_id"] if answer.status == 200 else None

    async def _set_state(self) -> None:
        number = max(self.tried_state.values(), default=0) + 1
        state_key = f"key{number % 5}"
        self.tried_state[state_key] = number
        path = f"state/weft.test/{state_key}"
        answer = await self.users[1].in_room("PUT", self.rooms[0], path, {"number": number})
        if answer.status == 200:
            self.state[state_key] = number

    async def _create(self) -> None:
        initial_state = [{"type": "weft.test", "state_key": str(n), "content": {}} for n in range(5)]
        body = {"preset": "public_chat", "name": "complete", "initial_state": initial_state}
        answer = await self.users[2].request("POST", "createRoom", body)
        if answer.status == 200:
            self.created.append(answer.json["room_id"])

    async def _join_all(self) -> None:
        try:
            while len(self.joined) < len(self.joiners):
                user = next(user for user in self.joiners if user.user_id not in self.joined)
                if (await user.in_room("POST", self.rooms[0], "join", {})).status == 200:
                    self.joined.add(user.user_id)
        except GONE:
            return

    async def _follow(self) -> None:
        await self.follower.follow(timeline_limit=20, timeout=1000)

    async def check(self) -> None:
        """Everything acknowledged is there, once; what was tried again got its first answer."""
        for key in self.attempted:
            event_id = await self.send_again(key)
            assert event_id is not None
            assert event_id == self.acknowledged.setdefault(key, event_id), f"{key} was sent twice"
        await self.follower.follow(timeline_limit=10)
        for room_id in self.rooms:
            events = (await page_back(self.users[0], room_id))[::-1]
            event_ids = [event["event_id"] for event in events]
            assert self.follower.event_ids(room_id) == event_ids
            bodies = Counter(event["content"].get("body") for event in events if event["type"] == "m.room.message")
            sent = [txn_id for (_, txn_id), room in self.attempted.items() if room == room_id]
            assert bodies == Counter(sent)
            assert self.follower.state[room_id] == await read_state(self.users[0], room_id)
            expected = {event_id for key, event_id in self.acknowledged.items() if self.attempted[key] == room_id}
            assert expected <= set(event_ids)
        await self._check_state()

    async def _check_state(self) -> None:
        for state_key, number in self.state.items():
            path = f"state/weft.test/{state_key}"
            stored = (await self.users[1].in_room("GET", self.rooms[0], path)).ok()["number"]
            assert number <= stored <= self.tried_state[state_key]
        joined = (await self.users[0].in_room("GET", self.rooms[0], "joined_members")).ok()["joined"]
        assert self.joined <= set(joined)
        rooms = (await self.users[2].sync())["rooms"]["join"].keys()
        assert set(self.created) <= set(rooms)
        for room_id in rooms - set(self.rooms):  # acknowledged or not, a room is whole
            keys = (await read_state(self.users[2], room_id)).keys()
            assert {("weft.test", str(n)) for n in range(5)} | {("m.room.name", "")} <= keys


@pytest.fixture
async def stack(tmp_path: Path) -> AsyncIterator[AsyncExitStack]:
    """Ends what a test started; at the very end the PostgreSQL that killed servers leave running."""
    async with AsyncExitStack() as stack:
        yield stack
    with EmbeddedPostgres(tmp_path / "data" / "postgres"):
        pass


async def start(config: Path, stack: AsyncExitStack) -> tuple[ServerProcess, Homeserver]:
    server = await ServerProcess.start(config)
    stack.push_async_callback(server.kill)
    return server, await stack.enter_async_context(Homeserver(server.base_url))


async def prepare(homeserver: Homeserver) -> Load:
    users = [await homeserver.register(f"sender{n}") for n in range(SENDERS)]
    joiners = [await homeserver.register(f"joiner{n}") for n in range(JOINERS)]
    rooms = [await users[0].create_room(preset="public_chat") for _ in range(3)]
    for user in users[1:]:
        for room_id in rooms:
            await user.join(room_id)
    load = Load(users, joiners, rooms)
    await load.follower.follow(timeline_limit=100)
    return load


async def kill_under_load(load: Load, rng: random.Random, kill: Callable[[], Awaitable[None]]) -> None:
    work = asyncio.create_task(load.run())
    before = len(load.acknowledged)
    await eventually(lambda: len(load.acknowledged) >= before + 30)  # the server works
    await asyncio.sleep(rng.uniform(0, 0.4))  # the random moment
    await kill()
    await asyncio.wait_for(work, 20)
    assert len(load.acknowledged) >= before + 30


async def test_nothing_acknowledged_is_lost(tmp_path: Path, stack: AsyncExitStack) -> None:
    """The server dies, then the server and PostgreSQL with it; each time it starts again on the same data."""
    rng = seeded_random()
    config, data_dir = write_config(tmp_path), tmp_path / "data"
    server, homeserver = await start(config, stack)
    load = await prepare(homeserver)
    for number in range(2 * ROUNDS):

        async def kill(server: ServerProcess = server, with_postgres: bool = number % 2 == 1) -> None:
            if with_postgres:
                kill_postgres(data_dir)
                await asyncio.sleep(rng.uniform(0, 0.1))  # the server may see it die
            await server.kill()

        await kill_under_load(load, rng, kill)
        server, homeserver = await start(config, stack)
        for user in (*load.users, *load.joiners):
            user.homeserver = homeserver
        await load.check()
    server.terminate()
    assert await server.wait() == 0
    with EmbeddedPostgres(data_dir / "postgres") as postgres:
        assert await check_database(postgres.url()) > len(load.acknowledged)

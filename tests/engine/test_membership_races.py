"""People come and go while a room is busy and they sync: each is told what happened while they were there, once."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from pathlib import Path

import asyncpg
import pytest

from config.schema import Caches
from tests.client import User
from tests.conftest import make_config, started
from tests.engine.follower import Follower, page_back, read_state
from tests.engine.integrity import check_database
from tests.engine.seeds import seeded_random

ROOMS = 18  # more than the smallest cache of rooms holds
VISITORS = 16
WRITERS = 4


async def write(user: User, rooms: list[str], rng: random.Random, stop: asyncio.Event) -> None:
    """Sends into any of the rooms until told to stop."""
    while not stop.is_set():
        await user.send(rng.choice([*rooms[:3], rng.choice(rooms)]), "hello")


class Visitor:
    """Someone who syncs all the time, joins a busy room, and leaves it again."""

    def __init__(self, user: User, rng: random.Random) -> None:
        self.follower = Follower(user)
        self.user = user
        self.rng = rng
        self.has_left = asyncio.Event()

    async def sync(self) -> None:
        """Follows until the leaving was told."""
        limit = self.rng.choice((1, 5, 50))
        while not self.has_left.is_set():
            await self.follower.follow(timeline_limit=limit, timeout=20)
        await self.follower.follow(timeline_limit=limit)

    async def visit(self, room_id: str) -> None:
        """Comes, stays for a while, goes."""
        await asyncio.sleep(self.rng.uniform(0, 0.1))  # they do not come all at once
        await self.user.join(room_id)
        for _ in range(self.rng.randint(1, 5)):
            await self.user.send(room_id, "I am here")
        (await self.user.in_room("POST", room_id, "leave", {})).ok()
        self.has_left.set()


async def check(visitor: Visitor, room_id: str, host: User) -> None:
    """The visitor was told all from the first event they saw up to their leaving, without a gap or a repeat."""
    told = visitor.follower.event_ids(room_id)
    assert len(told) == len(set(told)), "something was told twice"
    events = [event["event_id"] for event in (await page_back(host, room_id))[::-1]]
    first = events.index(told[0])
    assert told == events[first : first + len(told)]
    last = visitor.follower.timelines[room_id][-1]
    assert (last["type"], last.get("state_key")) == ("m.room.member", visitor.user.user_id)
    assert last["content"]["membership"] == "leave"


@pytest.mark.parametrize("caches", [Caches(), Caches(rooms=16, events=16, users=16)], ids=["warm", "cold"])
async def test_comers_and_goers_are_told_what_they_saw(database_url: str, tmp_path: Path, caches: Caches) -> None:
    rng = seeded_random()
    async with started(replace(make_config(tmp_path), caches=caches), database_url) as homeserver:
        writers = [await homeserver.register() for _ in range(WRITERS)]
        rooms = [await writers[0].create_room(preset="public_chat") for _ in range(ROOMS)]
        for room_id in rooms:
            for user in writers[1:]:
                await user.join(room_id)
        stop = asyncio.Event()
        writing = [asyncio.create_task(write(user, rooms, rng, stop)) for user in writers]
        visitors = [Visitor(await homeserver.register(), rng) for _ in range(VISITORS)]
        for visitor in visitors:
            await visitor.follower.follow(timeline_limit=10)
        chosen = [rooms[number % 3] for number in range(VISITORS)]
        await asyncio.wait_for(
            asyncio.gather(
                *(visitor.sync() for visitor in visitors),
                *(visitor.visit(room_id) for visitor, room_id in zip(visitors, chosen, strict=True)),
            ),
            40,
        )
        stop.set()
        await asyncio.gather(*writing)
        for visitor, room_id in zip(visitors, chosen, strict=True):
            await check(visitor, room_id, writers[0])
    await check_database(database_url)


async def test_who_comes_or_goes_while_a_sync_reads_is_told_so_once(database_url: str, tmp_path: Path) -> None:
    """The answer is for a moment; memberships that change while it is being made belong to the next one."""
    async with started(make_config(tmp_path), database_url) as homeserver:
        alice, bob = await homeserver.register(), await homeserver.register()
        elsewhere, left, joined = [await alice.create_room(preset="public_chat") for _ in range(3)]
        await bob.join(elsewhere)
        await bob.join(left)
        follower = Follower(bob)
        await follower.follow(timeline_limit=50)
    connection = await asyncpg.connect(database_url)
    async with started(make_config(tmp_path), database_url) as homeserver:
        alice.homeserver = bob.homeserver = homeserver
        await alice.send(elsewhere, "there is something to answer")
        async with connection.transaction():
            await connection.execute("LOCK TABLE receipts")  # a sync by an old token asks them what changed
            syncing = asyncio.create_task(follower.follow(timeline_limit=1))
            while not await connection.fetchval("SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)"):
                pass
            await alice.send(left, "goodbye")
            (await bob.in_room("POST", left, "leave", {})).ok()
            await bob.join(joined)
        await syncing
        await follower.follow(timeline_limit=10)
        await follower.follow(timeline_limit=10)
        for room_id in (left, joined):
            events = [event["event_id"] for event in (await page_back(alice, room_id))[::-1]]
            assert follower.event_ids(room_id) == events
            assert follower.state[room_id] == await read_state(alice, room_id)
    await connection.close()


async def test_what_is_written_while_it_is_first_read_is_not_forgotten(database_url: str, tmp_path: Path) -> None:
    """Account data and receipts that are set while a cold cache reads them are there afterwards."""
    rng = seeded_random()
    async with started(replace(make_config(tmp_path), caches=Caches(rooms=16, users=16)), database_url) as homeserver:
        users = [await homeserver.register() for _ in range(20)]
        rooms = [await users[0].create_room(preset="public_chat") for _ in range(20)]
        for room_id, user in zip(rooms, users, strict=True):
            await asyncio.gather(*(other.join(room_id) for other in (user, users[0])))
        for number in range(6):
            event_ids = [await users[0].send(room_id, str(number)) for room_id in rooms]
            steps = [
                step(user, room_id, event_id, number)
                for user, room_id, event_id in zip(users, rooms, event_ids, strict=True)
                for step in (set_data, set_receipt, read)
            ]
            rng.shuffle(steps)
            await asyncio.gather(*steps)
            for user, room_id, event_id in zip(users, rooms, event_ids, strict=True):
                answer = (await user.request("GET", f"user/{user.user_id}/account_data/weft.test")).ok()
                assert answer == {"number": number}
                room = (await user.sync())["rooms"]["join"][room_id]
                receipts = [e["content"] for e in room["ephemeral"]["events"] if e["type"] == "m.receipt"]
                assert user.user_id in receipts[0][event_id]["m.read"]


async def set_data(user: User, _room_id: str, _event_id: str, number: int) -> None:
    (await user.request("PUT", f"user/{user.user_id}/account_data/weft.test", {"number": number})).ok()


async def set_receipt(user: User, room_id: str, event_id: str, _number: int) -> None:
    (await user.in_room("POST", room_id, f"receipt/m.read/{event_id}", {})).ok()


async def read(user: User, _room_id: str, _event_id: str, _number: int) -> None:
    await user.sync()

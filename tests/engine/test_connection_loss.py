"""PostgreSQL cuts connections while the server works: it says no more than it knows, and recovers by itself."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import asyncpg
import pytest

from homeserver.main import running
from homeserver.services.stream import Stream
from storage.database import StorageError
from tests.client import Homeserver, User
from tests.conftest import make_config, started
from tests.engine.follower import Follower, page_back, read_state
from tests.engine.integrity import check_database
from tests.engine.seeds import seeded_random
from tests.engine.waiting import eventually

SENDERS = 8
CUTS = 12

WRITERS = """
SELECT pg_terminate_backend(pid) FROM pg_locks JOIN pg_stat_activity USING (pid)
WHERE locktype = 'advisory' AND datname = current_database() AND pid <> pg_backend_pid()
"""
EVERYBODY = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()
"""


class Sender:
    """Sends message after message, each until it is acknowledged, with one transaction ID."""

    def __init__(self, user: User, room_id: str) -> None:
        self.user = user
        self.room_id = room_id
        self.acknowledged: dict[str, str] = {}
        self.errors: Counter[int] = Counter()
        self.stopping = False

    async def run(self) -> None:
        while not self.stopping:
            txn_id = f"{self.user.user_id}-{len(self.acknowledged)}"
            content = {"msgtype": "m.text", "body": txn_id}
            answer = await self.user.in_room("PUT", self.room_id, f"send/m.room.message/{txn_id}", content)
            if answer.status == 200:
                self.acknowledged[txn_id] = answer.json["event_id"]
            else:
                self.errors[answer.status] += 1

    def check(self, events: dict[str, str]) -> None:
        """`events` are the messages that the room has: body -> event ID."""
        sent = {body: event_id for body, event_id in events.items() if body.startswith(f"{self.user.user_id}-")}
        assert sent == self.acknowledged


async def set_states(user: User, room_id: str, done: list[int], stop: asyncio.Event) -> None:
    """Sets state of ever new keys; `done` are those acknowledged."""
    number = 0
    while not stop.is_set():
        number += 1
        answer = await user.in_room("PUT", room_id, f"state/weft.test/{number}", {"number": number})
        if answer.status == 200:
            done.append(number)


async def cut(url: str, rng: random.Random, senders: list[Sender]) -> None:
    """Ends connections of the server at random moments; each time it has to go on working."""
    admin = await asyncpg.connect(url)
    try:
        for _ in range(CUTS):
            before = [len(sender.acknowledged) for sender in senders]
            await admin.execute(rng.choice((WRITERS, EVERYBODY)))
            await eventually(
                lambda before=before: all(
                    len(sender.acknowledged) > count + 2 for sender, count in zip(senders, before, strict=True)
                )
            )
            await asyncio.sleep(rng.uniform(0, 0.02))  # another moment of a batch
    finally:
        await admin.close()


async def test_cut_connections_lose_and_repeat_nothing(homeserver: Homeserver, database_url: str) -> None:
    rng = seeded_random()
    users = [await homeserver.register() for _ in range(SENDERS)]
    rooms = [await users[0].create_room(preset="public_chat") for _ in range(3)]
    for user in users[1:]:
        for room_id in rooms:
            await user.join(room_id)
    follower = Follower(users[0])
    await follower.follow(timeline_limit=50)
    senders = [Sender(user, rooms[index % 3]) for index, user in enumerate(users)]
    states: list[int] = []
    stop = asyncio.Event()
    work = [asyncio.create_task(sender.run()) for sender in senders]
    work.append(asyncio.create_task(set_states(users[0], rooms[0], states, stop)))
    await cut(database_url, rng, senders)
    stop.set()
    for sender in senders:
        sender.stopping = True
    await asyncio.wait_for(asyncio.gather(*work), 20)

    await follower.follow(timeline_limit=50)
    for room_id in rooms:
        events = (await page_back(users[0], room_id))[::-1]
        messages = [event for event in events if event["type"] == "m.room.message"]
        bodies = {event["content"]["body"]: event["event_id"] for event in messages}
        assert len(bodies) == len(messages), "a message was sent twice"
        assert follower.event_ids(room_id) == [event["event_id"] for event in events]
        state = await read_state(users[0], room_id)
        assert follower.state[room_id] == state
        for sender in senders:
            if sender.room_id == room_id:
                sender.check(bodies)
    assert {("weft.test", str(number)) for number in states} <= (await read_state(users[0], rooms[0])).keys()
    await check_database(database_url)


async def test_background_work_outlives_a_lost_database(homeserver: Homeserver, database_url: str) -> None:
    """What is written now and then fails without its connections, and works again afterwards."""
    assert homeserver.running is not None
    sessions = homeserver.running.server.sessions
    admin = await asyncpg.connect(database_url)
    alice = await homeserver.register()
    await alice.create_room()
    name = await admin.fetchval("SELECT current_database()")
    other = await asyncpg.connect(database_url.replace(name, "postgres"))
    await other.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
    await admin.execute(EVERYBODY)
    await sessions.write_seen()
    answer = await homeserver.request("GET", "/ready")
    assert answer.status == 503
    sending = asyncio.create_task(alice.create_room(name="made when it can be"))
    await other.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')
    await other.close()
    room_id = await asyncio.wait_for(sending, 20)
    assert room_id in (await alice.sync())["rooms"]["join"]
    sessions.seen(await sessions.access_session(alice.token), "127.0.0.9")
    await sessions.write_seen()
    assert await admin.fetchval("SELECT last_seen_ip FROM devices") == "127.0.0.9"
    await admin.close()


async def test_a_commit_whose_answer_is_lost_is_not_taken_for_a_failure(
    homeserver: Homeserver, database_url: str
) -> None:
    """The connection breaks after the commit, before its answer: each kind of write is found to be there."""
    assert homeserver.running is not None
    stream: Stream = homeserver.running.server.stream
    alice = await homeserver.register()
    room_id = await alice.create_room()
    follower = Follower(alice)
    await follower.follow(timeline_limit=50)
    commit = stream._repository.commit

    async def commit_and_break(connection: asyncpg.Connection, *args: object) -> None:
        stream._repository.commit = commit  # type: ignore[method-assign]
        await commit(connection, *args)  # type: ignore[arg-type]
        raise asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation")

    def break_next() -> None:
        stream._repository.commit = commit_and_break  # type: ignore[method-assign,assignment]

    break_next()
    event_id = await alice.send(room_id, "hello", txn_id="1")
    assert await alice.send(room_id, "hello", txn_id="1") == event_id
    break_next()
    (await alice.in_room("POST", room_id, f"receipt/m.read/{event_id}", {})).ok()
    break_next()
    path = f"user/{alice.user_id}/account_data/weft.test"
    (await alice.request("PUT", path, {"kept": True})).ok()
    break_next()
    await alice.set_state(room_id, "m.room.topic", {"topic": "kept"})
    break_next()
    alias = "%23kept%3Aweft.test"
    (await alice.request("PUT", f"directory/room/{alias}", {"room_id": room_id})).ok()
    break_next()
    other = await alice.create_room(name="kept")

    await follower.follow(timeline_limit=50)
    assert event_id in follower.event_ids(room_id)
    assert other in follower.timelines
    assert (await alice.request("GET", path)).ok() == {"kept": True}
    assert (await alice.request("GET", f"directory/room/{alias}")).ok()["room_id"] == room_id
    assert len(await page_back(alice, room_id)) == len(follower.event_ids(room_id))
    await check_database(database_url)


async def test_a_second_server_on_a_database_is_refused(
    homeserver: Homeserver, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("storage.database.WRITER_LOCK_TIMEOUT_MS", 100)
    with pytest.raises(StorageError, match="another Weft process is running on this database"):
        async with running(make_config(tmp_path / "second"), database_url):
            pytest.fail("it runs")
    user = await homeserver.register()
    assert await user.create_room()  # the first one is not troubled


async def test_a_server_of_another_name_is_refused(database_url: str, tmp_path: Path) -> None:
    config = make_config(tmp_path)
    async with started(config, database_url):
        pass
    other = replace(config, server_name="other.test")
    with pytest.raises(StorageError, match=r"belongs to the server weft\.test, not other\.test"):
        async with running(other, database_url):
            pytest.fail("it runs")
    async with started(config, database_url) as homeserver:
        await homeserver.register()


async def test_a_server_that_was_overtaken_does_not_write_again(database_url: str, tmp_path: Path) -> None:
    """It loses its lock, another one takes over and stops: the first one's positions are of the past."""
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(started(make_config(tmp_path), database_url))
        assert first.running is not None
        alice = await first.register()
        room_id = await alice.create_room()
        first.running.server.database.drop_writer()
        async with started(make_config(tmp_path), database_url) as second:
            user = User(second, alice.user_id, alice.token, alice.device_id)
            event_id = await user.send(room_id, "from the second")
        answer = await alice.in_room("PUT", room_id, "send/m.room.message/1", {"msgtype": "m.text", "body": "old"})
        assert answer.status >= 500
        assert first.running.writer.done()
        with pytest.raises(StorageError, match="another Weft process has written to this database meanwhile"):
            await stack.aclose()
    async with started(make_config(tmp_path), database_url) as third:
        user = User(third, alice.user_id, alice.token, alice.device_id)
        events = await page_back(user, room_id)
        assert events[0]["event_id"] == event_id
    await check_database(database_url)

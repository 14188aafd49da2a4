"""SIGTERM: who waits is answered, what is in flight ends, and the process with it."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import aiohttp

from tests.client import Homeserver, User
from tests.conftest import make_config, started
from tests.engine.follower import page_back
from tests.engine.integrity import check_database
from tests.engine.process import server_process, write_config
from tests.engine.waiting import eventually

SYNCS = 20
SENDERS = 8
QUICKLY_S = 5.0


class Sender:
    """Sends until the server refuses or is gone; keeps what was acknowledged."""

    def __init__(self, user: User, room_id: str) -> None:
        self.user = user
        self.room_id = room_id
        self.acknowledged: dict[str, str] = {}
        self.refused: list[int] = []

    async def run(self) -> None:
        number = 0
        while not self.refused:
            number += 1
            txn_id = f"{self.user.user_id}-{number}"
            content = {"msgtype": "m.text", "body": txn_id}
            try:
                answer = await self.user.in_room("PUT", self.room_id, f"send/m.room.message/{txn_id}", content)
            except (aiohttp.ClientError, ConnectionError):
                return
            if answer.status == 200:
                self.acknowledged[txn_id] = answer.json["event_id"]
            else:
                self.refused.append(answer.status)


async def test_a_server_that_is_told_to_stop_ends_what_it_began(database_url: str, tmp_path: Path) -> None:
    config = write_config(tmp_path, database_url=database_url)
    async with server_process(config) as server, Homeserver(server.base_url) as homeserver:
        users = [await homeserver.register() for _ in range(SENDERS)]
        busy, quiet = [await users[0].create_room(preset="public_chat") for _ in range(2)]
        for user in users[1:]:
            await user.join(busy)
        watcher = await homeserver.register()
        await watcher.join(quiet)
        since = (await watcher.sync())["next_batch"]

        waiting = [asyncio.create_task(watcher.sync(since, timeout=60_000)) for _ in range(SYNCS)]
        senders = [Sender(user, busy) for user in users]
        sending = [asyncio.create_task(sender.run()) for sender in senders]
        await eventually(lambda: all(len(sender.acknowledged) > 3 for sender in senders))
        assert not any(sync.done() for sync in waiting)

        began = time.monotonic()
        server.terminate()
        answers: list[dict[str, Any]] = await asyncio.wait_for(asyncio.gather(*waiting), QUICKLY_S)
        assert all("next_batch" in answer and not answer.get("rooms") for answer in answers)
        await asyncio.wait_for(asyncio.gather(*sending), QUICKLY_S)
        assert await server.wait() == 0
        assert time.monotonic() - began < QUICKLY_S

    assert {status for sender in senders for status in sender.refused} <= {503}
    await check_database(database_url)
    async with started(make_config(tmp_path), database_url) as again:
        reader = User(again, users[0].user_id, users[0].token, users[0].device_id)
        stored = {event["event_id"] for event in await page_back(reader, busy)}
        assert {event_id for sender in senders for event_id in sender.acknowledged.values()} <= stored


async def test_an_idle_server_stops_at_once(database_url: str, tmp_path: Path) -> None:
    config = write_config(tmp_path, database_url=database_url)
    async with server_process(config) as server, Homeserver(server.base_url) as homeserver:
        await homeserver.register()  # its connection stays open
        began = time.monotonic()
        server.terminate()
        assert await server.wait() == 0
        assert time.monotonic() - began < QUICKLY_S

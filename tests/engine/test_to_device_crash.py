"""Messages from device to device arrive exactly once, in order, however often the server is killed."""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp

from tests.client import Homeserver, User
from tests.client_api.encryption import Follower, follow, log_in, new_device
from tests.engine.process import ServerProcess, write_config
from tests.engine.seeds import seeded_random
from tests.engine.waiting import eventually

SENDERS = 4
KILLS = 3
GONE = (aiohttp.ClientError, ConnectionError, asyncio.TimeoutError)


class Sender:
    """Sends numbered messages to every device of a user, one after another; each again until it was acknowledged."""

    def __init__(self, user: User, to: str) -> None:
        self.user = user
        self.to = to
        self.acknowledged = 0

    async def run(self) -> None:
        """Sends until the server is gone."""
        try:
            while True:
                await self.send()
        except GONE:
            return

    async def send(self) -> None:
        """Sends the next message, or again the one that no answer came for."""
        number = self.acknowledged
        content = {"sender": self.user.user_id, "number": number}
        body = {"messages": {self.to: {"*": content}}}
        (await self.user.request("PUT", f"sendToDevice/org.example/{number}", body)).ok()
        self.acknowledged += 1


async def receive(follower: Follower) -> None:
    """Syncs until the server is gone. What a lost answer had in it comes with the next."""
    try:
        while True:
            await follower.sync(timeout=1000)
    except GONE:
        return


def check_received(follower: Follower, senders: list[Sender]) -> None:
    for sender in senders:
        numbers = [
            message["content"]["number"] for message in follower.messages if message["sender"] == sender.user.user_id
        ]
        assert numbers == list(range(sender.acknowledged)), "lost, twice, or out of order"


async def test_messages_arrive_once_over_kills(tmp_path: Path, database_url: str) -> None:
    rng: random.Random = seeded_random()
    config = write_config(tmp_path, database_url=database_url)
    async with AsyncExitStack() as stack:

        async def start() -> tuple[ServerProcess, Homeserver]:
            server = await ServerProcess.start(config)
            stack.push_async_callback(server.kill)
            return server, await stack.enter_async_context(Homeserver(server.base_url))

        server, homeserver = await start()
        bob = (await new_device(homeserver)).user
        users = [bob, await log_in(bob, "LAPTOP")]
        followers = [await follow(user) for user in users]
        senders = [Sender(await homeserver.register(), bob.user_id) for _ in range(SENDERS)]
        for _ in range(KILLS):
            work = asyncio.gather(*(sender.run() for sender in senders), *(map(receive, followers)))
            before = sum(sender.acknowledged for sender in senders)
            await eventually(lambda before=before: sum(s.acknowledged for s in senders) >= before + 40)
            await asyncio.sleep(rng.uniform(0, 0.3))  # the random moment
            await server.kill()
            await asyncio.wait_for(work, 20)
            server, homeserver = await start()
            for user in (*users, *(sender.user for sender in senders)):
                user.homeserver = homeserver
        for sender in senders:
            await sender.send()  # the one that may have been cut off
        for follower in followers:
            while (await follower.sync())["to_device"]["events"]:
                pass
            check_received(follower, senders)

"""A bot beside a homeserver, and people who talk to it."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from appservices.summary_bot.clock import now_ms
from appservices.summary_bot.config import Config, parse_config
from appservices.summary_bot.main import Bot, running
from tests.client import Homeserver, User
from tests.summary_bot.homeservers import DOMAIN, Server
from tests.summary_bot.switchboard import Switchboard

BOT = f"@summary:{DOMAIN}"
ENCRYPTION_KEY = "for tests: so many characters, and not one of them by chance"
WAIT_S = 20.0

_numbers = itertools.count(1)

Event = dict[str, Any]


class MovableClock:
    """The time, and a test's own addition to it."""

    def __init__(self) -> None:
        self.ahead_ms = 0

    def __call__(self) -> int:
        return now_ms() + self.ahead_ms


@dataclass(frozen=True, slots=True)
class RunningBot:
    """A bot beside a homeserver, and its clock."""

    bot: Bot
    clock: MovableClock

    async def until_idle(self) -> None:
        """Waits until the bot has nothing to do."""
        async with asyncio.timeout(WAIT_S):
            while True:
                if not await self.bot.jobs.count():
                    return
                await asyncio.sleep(0.02)

    async def until_read(self, room_id: str, user_id: str, event_id: str) -> None:
        """Waits until the bot has heard that somebody has read up to an event."""
        async with asyncio.timeout(WAIT_S):
            while True:
                reading = await self.bot.settings.load_reading(room_id, user_id)
                if reading is not None and reading.event_id == event_id:
                    return
                await asyncio.sleep(0.02)


@dataclass(frozen=True, slots=True)
class Site:
    """A homeserver, a client for it, and what leads to the bot."""

    server: Server
    homeserver: Homeserver
    switchboard: Switchboard
    registration: Path
    database_url: str

    def config(self, **options: Any) -> Config:
        """A configuration for a bot here, with a schema of its own."""
        raw = {
            "homeserver": {"url": self.server.base_url, "domain": DOMAIN},
            "database": {"url": self.database_url, "schema": f"bot_{next(_numbers)}"},
            "appservice": {"registration": str(self.registration), "port": 0},
        }
        return parse_config(raw | options, Path("/"))

    @asynccontextmanager
    async def bot(self, **options: Any) -> AsyncIterator[RunningBot]:
        """A bot that runs, with more options."""
        clock = MovableClock()
        async with running(self.config(**options), clock=clock) as bot:
            self.switchboard.bot_url = f"http://127.0.0.1:{bot.port}"
            try:
                async with asyncio.timeout(WAIT_S):
                    await bot.introduced.wait()
                yield RunningBot(bot, clock)
            finally:
                self.switchboard.bot_url = None

    async def person(self) -> Person:
        """Somebody new."""
        user = await self.homeserver.register(f"person{next(_numbers)}")
        return Person(user)


class Person:
    """A user, and what they have seen so far."""

    def __init__(self, user: User) -> None:
        self.user = user
        self.user_id = user.user_id
        self.rooms: dict[str, list[Event]] = {}
        self.invites: set[str] = set()
        self._since: str | None = None

    async def look(self, timeout_ms: int = 0) -> None:
        """One sync. Invitations of the bot are followed."""
        answer = await self.user.sync(self._since, timeout=timeout_ms)
        self._since = answer["next_batch"]
        rooms = answer.get("rooms", {})
        for room_id, room in rooms.get("join", {}).items():
            self.rooms.setdefault(room_id, []).extend(room["timeline"]["events"])
        for room_id in rooms.get("invite", {}):
            await self.user.join(room_id)

    async def wait(self, is_it: Callable[[str, Event], bool]) -> tuple[str, Event]:
        """The first event, new or seen before, that is it: (room, event)."""
        async with asyncio.timeout(WAIT_S):
            while True:
                for room_id, events in self.rooms.items():
                    for event in events:
                        if is_it(room_id, event):
                            return room_id, event
                await self.look(2000)

    async def wait_answer(
        self, *words: str, room_id: str | None = None, without: str | None = None, sender: str = BOT
    ) -> Event:
        """The bot's message that has all these words, in a room or in any."""
        _, event = await self.wait(
            lambda where, event: (
                event["sender"] == sender
                and event["type"] == "m.room.message"
                and (room_id is None or where == room_id)
                and where != without
                and all(word in event["content"].get("body", "") for word in words)
            )
        )
        return event

    async def room_with_bot(self, *others: Person, enable: bool = True, **options: Any) -> str:
        """A room that the bot is in, and turned on."""
        options.setdefault("preset", "public_chat")
        room_id = await self.user.create_room(invite=[BOT], **options)
        await self.wait_answer("Hello", room_id=room_id)
        for other in others:
            await other.user.join(room_id)
        if enable:
            await self.user.send(room_id, "!enable")
            await self.wait_answer("I am on", room_id=room_id)
        return room_id


def is_answer(event: Event) -> bool:
    """Whether an event is a message of the bot."""
    return bool(event["sender"] == BOT and event["type"] == "m.room.message" and event["content"].get("body"))

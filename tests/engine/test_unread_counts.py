"""Unread counts, kept as differences of running counts, against a recount of the whole room by the definition."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from config.schema import Caches
from tests.client import Homeserver, User
from tests.conftest import make_config, started
from tests.engine.integrity import check_database
from tests.engine.seeds import seeded_random

MEMBERS = 4
STEPS = 80
ROUNDS = 3


@dataclass
class Told:
    """An event that may count, in the order of the room."""

    event_id: str
    sender: str
    notifies: bool
    highlights_all: bool = False
    mentions: frozenset[str] = frozenset()
    redacted: bool = False


@dataclass
class Model:
    """The room as the specification describes counts: a list of events, and how far each member has read.

    https://spec.matrix.org/v1.19/client-server-api/#receiving-notifications
    """

    events: list[Told] = field(default_factory=list)
    joined_at: dict[str, int] = field(default_factory=dict)
    read: dict[tuple[str, str], int] = field(default_factory=dict)

    def counts(self, user_id: str) -> tuple[int, int]:
        """(notification_count, highlight_count) of a joined member."""
        read_up_to = max(
            self.joined_at[user_id], *(self.read.get((user_id, type), 0) for type in ("m.read", "m.read.private"))
        )
        notifications = highlights = 0
        for told in self.events[read_up_to:]:
            if told.sender == user_id or told.redacted:
                continue
            is_mentioned = user_id in told.mentions
            notifications += told.notifies or is_mentioned
            highlights += is_mentioned or told.highlights_all
        return notifications, highlights


class Walk:
    """Random steps of the members of one room, done on the server and in the model."""

    def __init__(self, rng: random.Random, users: list[User], room_id: str, model: Model) -> None:
        self.rng = rng
        self.users = users
        self.room_id = room_id
        self.model = model
        self.steps: list[str] = []

    @property
    def joined(self) -> list[User]:
        return [user for user in self.users if user.user_id in self.model.joined_at]

    async def step(self) -> None:
        """One random step."""
        user = self.rng.choice(self.joined)
        steps = (self.message, self.mention, self.at_room, self.notice, self.edit, self.reaction, self.state)
        steps += (self.message, self.mention, self.at_room, self.redact, self.redact, self.receipt, self.leave_or_join)
        chosen = self.rng.choice(steps)
        self.steps.append(f"{user.user_id} {chosen.__name__}")
        await chosen(user)

    async def _send(self, user: User, content: dict[str, Any], told: Told, type: str = "m.room.message") -> None:
        told.event_id = await user.send(self.room_id, content, type=type)
        self.model.events.append(told)

    async def message(self, user: User) -> None:
        await self._send(user, {"msgtype": "m.text", "body": "hello"}, Told("", user.user_id, True))

    async def mention(self, user: User) -> None:
        named = frozenset(other.user_id for other in self.rng.sample(self.users, self.rng.randint(1, MEMBERS)))
        msgtype = self.rng.choice(("m.text", "m.notice"))
        content = {"msgtype": msgtype, "body": "you", "m.mentions": {"user_ids": sorted(named)}}
        told = Told("", user.user_id, True, mentions=named)
        if msgtype == "m.notice":  # the rule that suppresses notices comes before that for mentions
            told = Told("", user.user_id, False)
        await self._send(user, content, told)

    async def at_room(self, user: User) -> None:
        user = self.rng.choice((user, self.users[0]))
        content = {"msgtype": "m.text", "body": "all", "m.mentions": {"room": True}}
        is_allowed = user is self.users[0]  # it takes power level 50
        await self._send(user, content, Told("", user.user_id, True, highlights_all=is_allowed))

    async def notice(self, user: User) -> None:
        await self._send(user, {"msgtype": "m.notice", "body": "beep"}, Told("", user.user_id, False))

    async def edit(self, user: User) -> None:
        if not self.model.events:
            return
        target = self.rng.choice(self.model.events).event_id
        body = {"msgtype": "m.text", "body": "better"}
        content = {**body, "m.new_content": body, "m.relates_to": {"rel_type": "m.replace", "event_id": target}}
        await self._send(user, content, Told("", user.user_id, False))

    async def reaction(self, user: User) -> None:
        if not self.model.events:
            return
        target = self.rng.choice(self.model.events).event_id
        content = {"m.relates_to": {"rel_type": "m.annotation", "event_id": target, "key": str(self.rng.random())}}
        await self._send(user, content, Told("", user.user_id, False), "m.reaction")

    async def state(self, _user: User) -> None:
        topic = {"topic": str(self.rng.random())}
        event_id = await self.users[0].set_state(self.room_id, "m.room.topic", topic)
        self.model.events.append(Told(event_id, self.users[0].user_id, False))

    async def redact(self, _user: User) -> None:
        if not self.model.events:
            return
        target = self.rng.choice(self.model.events[-20:])
        path = f"redact/{quote(target.event_id, safe='')}/{self.rng.getrandbits(64)}"
        event_id = (await self.users[0].in_room("PUT", self.room_id, path, {})).ok()["event_id"]
        target.redacted = True
        self.model.events.append(Told(event_id, self.users[0].user_id, False))

    async def receipt(self, user: User) -> None:
        if not self.model.events:
            return
        index = self.rng.randrange(max(0, len(self.model.events) - 15), len(self.model.events))
        type = self.rng.choice(("m.read", "m.read.private"))
        event_id = quote(self.model.events[index].event_id, safe="")
        (await user.in_room("POST", self.room_id, f"receipt/{type}/{event_id}", {})).ok()
        key = (user.user_id, type)
        self.model.read[key] = max(self.model.read.get(key, 0), index + 1)

    async def leave_or_join(self, _user: User) -> None:
        user = self.rng.choice(self.users[1:])
        is_joined = user.user_id in self.model.joined_at
        (await user.in_room("POST", self.room_id, "leave" if is_joined else "join", {})).ok()
        path = f"state/m.room.member/{quote(user.user_id, safe='')}"
        member = (await self.users[0].in_room("GET", self.room_id, path, format="event")).ok()
        self.model.events.append(Told(member["event_id"], user.user_id, False))
        if is_joined:
            del self.model.joined_at[user.user_id]
        else:
            self.model.joined_at[user.user_id] = len(self.model.events)

    async def check(self) -> None:
        """Every member's counts in an initial /sync are those of the model."""
        for user in self.joined:
            unread = (await user.sync())["rooms"]["join"][self.room_id]["unread_notifications"]
            counts = unread["notification_count"], unread["highlight_count"]
            assert counts == self.model.counts(user.user_id), (user.user_id, self.steps)


async def walk(rng: random.Random, homeserver: Homeserver) -> Walk:
    users = [await homeserver.register(f"walker{n}") for n in range(MEMBERS)]
    room_id = await users[0].create_room(preset="public_chat")
    model = Model()
    model.joined_at[users[0].user_id] = 0
    return Walk(rng, users, room_id, model)


@pytest.mark.parametrize("caches", [Caches(), Caches(rooms=16, events=16, users=16)], ids=["warm", "cold"])
async def test_counts_are_those_of_a_recount(database_url: str, tmp_path: Path, caches: Caches) -> None:
    """Also across restarts, after which everything is counted from the database."""
    rng = seeded_random()
    config = replace(make_config(tmp_path), caches=caches)
    walking: Walk | None = None
    for _ in range(ROUNDS):
        async with started(config, database_url) as homeserver:
            if walking is None:
                walking = await walk(rng, homeserver)
            for user in walking.users:
                user.homeserver = homeserver
            await walking.check()
            for number in range(STEPS):
                await walking.step()
                if number % 5 == 0:
                    await walking.check()
            await walking.check()
    await check_database(database_url)

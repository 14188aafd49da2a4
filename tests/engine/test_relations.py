"""Whatever relates to what, and is taken back: what is served with an event is what a recount of the room gives."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from config.schema import Caches, Config
from tests.client import User
from tests.conftest import make_config, started
from tests.engine.follower import Event, page_back
from tests.engine.integrity import check_database
from tests.engine.seeds import seeded_random

ROUNDS = 3
STEPS = 60
AT_ONCE = 4

COLD = Caches(rooms=16, events=16, snapshots=16, tokens=16, users=16)


class Conversation:
    """Random edits, threads, references, annotations and redactions in one room."""

    def __init__(self, rng: random.Random, users: list[User], room_id: str) -> None:
        self.rng = rng
        self.users = users
        self.room_id = room_id
        self.sent: list[tuple[User, str]] = []
        self.redacted: set[str] = set()

    async def step(self) -> None:
        """One thing that is said, read or taken back."""
        user = self.rng.choice(self.users)
        if not self.sent or self.rng.random() < 0.15:
            self.sent.append((user, await user.send(self.room_id, "message")))
            return
        author, event_id = self.rng.choice(self.sent[-25:])
        match self.rng.choice(("m.replace", "m.replace", "m.thread", "m.reference", "m.annotation", "redact", "read")):
            case "redact":
                path = f"redact/{quote(event_id, safe='')}/{self.rng.getrandbits(64)}"
                (await self.users[0].in_room("PUT", self.room_id, path, {})).ok()
                self.redacted.add(event_id)
            case "read":
                await user.in_room("GET", self.room_id, f"event/{quote(event_id, safe='')}")
            case rel_type:
                await self._relate(author if self.rng.random() < 0.8 else user, rel_type, event_id)

    async def _relate(self, user: User, rel_type: str, event_id: str) -> None:
        content = {
            "msgtype": "m.text",
            "body": "related",
            "m.new_content": {"msgtype": "m.text", "body": "new"},
            "m.relates_to": {"rel_type": rel_type, "event_id": event_id, "key": str(self.rng.random())},
        }
        path = f"send/m.room.message/{self.rng.getrandbits(64)}"
        answer = await user.in_room("PUT", self.room_id, path, content)
        if answer.status == 400:  # there is no thread in a thread
            assert (rel_type, answer.json["errcode"]) == ("m.thread", "M_UNKNOWN")
        else:
            self.sent.append((user, answer.ok()["event_id"]))

    async def check_aggregations(self) -> None:
        """Compares what each user is served with a recount."""
        for user in self.users:
            events = (await page_back(user, self.room_id, limit=self.rng.choice((7, 1000))))[::-1]
            assert len({event["event_id"] for event in events}) == len(events)
            for event in events:
                served = event["unsigned"].get("m.relations", {})
                assert summed_up(served) == recounted(user.user_id, event, events), event["event_id"]


def relation(event: Event) -> tuple[str | None, str | None]:
    relates_to = event["content"].get("m.relates_to", {})
    return relates_to.get("rel_type"), relates_to.get("event_id")


def summed_up(relations: dict[str, Any]) -> dict[str, Any]:
    """Served aggregations in the form of a recount."""
    found: dict[str, Any] = {}
    if (edit := relations.get("m.replace")) is not None:
        found["edit"] = edit["event_id"]
    if (thread := relations.get("m.thread")) is not None:
        latest = thread["latest_event"]["event_id"]
        found["thread"] = (thread["count"], latest, thread["current_user_participated"])
    if (references := relations.get("m.reference")) is not None:
        found["references"] = [event["event_id"] for event in references["chunk"]]
    return found


def recounted(user_id: str, parent: Event, events: list[Event]) -> dict[str, Any]:
    """What should be served with an event, from all events of the room in their order."""
    if "state_key" in parent:
        return {}
    found: dict[str, Any] = {}
    children = [(relation(event)[0], event) for event in events if relation(event)[1] == parent["event_id"]]
    edits = [e for rel, e in children if rel == "m.replace" and e["sender"] == parent["sender"]]
    if edits and relation(parent)[0] != "m.replace" and "redacted_because" not in parent["unsigned"]:
        found["edit"] = max(edits, key=lambda e: (e["origin_server_ts"], e["event_id"]))["event_id"]
    thread = [event for rel, event in children if rel == "m.thread"]
    if thread and relation(parent)[0] is None:
        participated = user_id in {parent["sender"], *(event["sender"] for event in thread)}
        found["thread"] = (len(thread), thread[-1]["event_id"], participated)
    if references := [event["event_id"] for rel, event in children if rel == "m.reference"]:
        found["references"] = references
    return found


@pytest.mark.parametrize("caches", [Caches(), COLD], ids=["warm", "cold"])
async def test_aggregations_are_what_a_recount_gives(database_url: str, tmp_path: Path, caches: Caches) -> None:
    rng = seeded_random()
    config: Config = replace(make_config(tmp_path), caches=caches)
    conversation: Conversation | None = None
    for _ in range(ROUNDS):
        async with started(config, database_url) as homeserver:
            if conversation is None:
                users = [await homeserver.register(f"user{n}") for n in range(3)]
                room_id = await users[0].create_room(preset="public_chat")
                for user in users[1:]:
                    await user.join(room_id)
                conversation = Conversation(rng, users, room_id)
            for user in conversation.users:
                user.homeserver = homeserver
            for _ in range(STEPS // AT_ONCE):
                await asyncio.gather(*(conversation.step() for _ in range(AT_ONCE)))
            await conversation.check_aggregations()
    await check_database(database_url)

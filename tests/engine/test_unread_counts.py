"""Unread counts, kept as differences of running counts, against a recount of the whole room by the definition."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
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
BY_THREAD = '{"room":{"timeline":{"unread_thread_notifications":true}}}'


Counts = tuple[int, int]
RULES = ("muted", "mentions_only", "master", "keyword", "quiet_sender", "loud", "silent", "sound")


@dataclass
class Told:
    """An event that may count, in the order of the room, and what it does to whom."""

    event_id: str
    sender: str
    kind: str
    mentions: frozenset[str] = frozenset()
    has_keyword: bool = False
    thread: str | None = None
    relates: bool = False
    redacted: bool = False
    outcomes: dict[str, Counts] = field(default_factory=dict)


@dataclass
class Model:
    """The room as the specification describes counts: a list of events, and how far each member has read.

    https://spec.matrix.org/v1.19/client-server-api/#receiving-notifications
    """

    events: list[Told] = field(default_factory=list)
    joined_at: dict[str, int] = field(default_factory=dict)
    read: dict[tuple[str, str, str], int] = field(default_factory=dict)
    rules: dict[str, set[str]] = field(default_factory=dict)
    ignored: dict[str, set[str]] = field(default_factory=dict)

    def add(self, told: Told) -> None:
        """Takes in an event, and what it does to each member by the rules of this moment.

        Who sends a message has read what is before it in its thread.
        """
        told.outcomes = {user_id: self._outcome(user_id, told) for user_id in self.joined_at}
        self.events.append(told)
        if told.kind in ("message", "at_room", "encrypted"):
            self.read[told.sender, "m.read", told.thread or "main"] = len(self.events)

    def _outcome(self, user_id: str, told: Told) -> Counts:
        """https://spec.matrix.org/v1.19/client-server-api/#predefined-rules, and RULES as `Walk.rule` makes them."""
        own = self.rules.get(user_id, set())
        if told.sender == user_id or own & {"master", "muted"} or told.kind not in ("message", "at_room", "encrypted"):
            return 0, 0
        if user_id in told.mentions or told.kind == "at_room" or (told.has_keyword and "keyword" in own):
            return 1, 1
        if "mentions_only" in own or ("quiet_sender" in own and told.sender.startswith("@walker0:")):
            return 0, 0
        if len(self.joined_at) == 2:  # the rule for a room of two comes before that for messages
            return 1, 0
        if told.kind == "encrypted":
            return 1, 0
        if "silent" in own:
            return 0, 0
        return 1, int("loud" in own)

    def counts(self, user_id: str) -> dict[str, Counts]:
        """Thread ("" for the main timeline) -> (notification_count, highlight_count) of a joined member."""

        def read(thread: str) -> int:
            return max(self.read.get((user_id, type, thread), 0) for type in ("m.read", "m.read.private"))

        whole = max(self.joined_at[user_id], read(""))
        counts: dict[str, Counts] = {"": (0, 0)}
        for index, told in enumerate(self.events):
            if index < max(whole, read(told.thread or "main")) or told.redacted:
                continue
            if told.sender in self.ignored.get(user_id, ()):
                continue
            notify, highlight = told.outcomes.get(user_id, (0, 0))
            before = counts.get(told.thread or "", (0, 0))
            counts[told.thread or ""] = before[0] + notify, before[1] + highlight
        return {thread: count for thread, count in counts.items() if not thread or any(count)}


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
        steps: tuple[Callable[[User], Awaitable[None]], ...]
        steps = (self.message, self.mention, self.at_room, self.notice, self.edit, self.reaction, self.state)
        steps += (self.message, self.mention, self.at_room, self.redact, self.redact, self.receipt, self.leave_or_join)
        steps += (self.message, self.in_thread, self.in_thread, self.in_thread, self.reference, self.rule, self.receipt)
        steps += (self.encrypted, self.ignore, self.mark_unread)
        chosen = self.rng.choice(steps)
        self.steps.append(f"{user.user_id} {chosen.__name__}")
        await chosen(user)

    async def _send(self, user: User, content: dict[str, Any], told: Told, type: str = "m.room.message") -> None:
        told.event_id = await user.send(self.room_id, content, type=type)
        self.model.add(told)

    def _mentions(self) -> frozenset[str]:
        return frozenset(other.user_id for other in self.rng.sample(self.users, self.rng.randint(1, MEMBERS)))

    async def message(self, user: User) -> None:
        has_keyword = self.rng.random() < 0.5
        content = {"msgtype": "m.text", "body": "a cake" if has_keyword else "hello"}
        await self._send(user, content, Told("", user.user_id, "message", has_keyword=has_keyword))

    async def mention(self, user: User) -> None:
        named = self._mentions()
        msgtype = self.rng.choice(("m.text", "m.notice"))
        content = {"msgtype": msgtype, "body": "you", "m.mentions": {"user_ids": sorted(named)}}
        # The rule that suppresses notices comes before that for mentions.
        kind = "notice" if msgtype == "m.notice" else "message"
        await self._send(user, content, Told("", user.user_id, kind, mentions=named))

    async def at_room(self, user: User) -> None:
        user = self.rng.choice((user, self.users[0]))
        content = {"msgtype": "m.text", "body": "all", "m.mentions": {"room": True}}
        is_allowed = user is self.users[0]  # it takes power level 50
        await self._send(user, content, Told("", user.user_id, "at_room" if is_allowed else "message"))

    async def notice(self, user: User) -> None:
        await self._send(user, {"msgtype": "m.notice", "body": "beep"}, Told("", user.user_id, "notice"))

    async def encrypted(self, user: User) -> None:
        content = {"algorithm": "m.megolm.v1.aes-sha2", "ciphertext": "cake"}
        await self._send(user, content, Told("", user.user_id, "encrypted"), "m.room.encrypted")

    async def ignore(self, user: User) -> None:
        """Ignores somebody, or no more: what they have sent before counts accordingly."""
        ignored = self.model.ignored.setdefault(user.user_id, set())
        ignored.symmetric_difference_update({self.rng.choice([u.user_id for u in self.users if u is not user])})
        path = f"user/{quote(user.user_id, safe='')}/account_data/m.ignored_user_list"
        (await user.request("PUT", path, {"ignored_users": {user_id: {} for user_id in ignored}})).ok()

    async def mark_unread(self, user: User) -> None:
        """Which is for clients to show, and changes no count."""
        path = f"user/{quote(user.user_id, safe='')}/rooms/{quote(self.room_id, safe='')}/account_data/m.marked_unread"
        (await user.request("PUT", path, {"unread": self.rng.random() < 0.5})).ok()

    async def in_thread(self, user: User) -> None:
        roots = [told for told in self.model.events[-30:] if not told.relates and told.kind != "state"]
        if not roots:
            return
        root = self.rng.choice(roots[:3]).event_id
        named = self._mentions() if self.rng.random() < 0.3 else frozenset()
        content = {
            "msgtype": "m.text",
            "body": "hello",
            "m.mentions": {"user_ids": sorted(named)},
            "m.relates_to": {"rel_type": "m.thread", "event_id": root},
        }
        await self._send(user, content, Told("", user.user_id, "message", named, thread=root, relates=True))

    async def _relating(self, user: User, kind: str, relation: dict[str, Any], content: dict[str, Any]) -> None:
        """Something that relates to another event, and is where that is."""
        if not self.model.events:
            return
        target = self.rng.choice(self.model.events[-20:])
        content = {**content, "m.relates_to": {**relation, "event_id": target.event_id}}
        told = Told("", user.user_id, kind, thread=target.thread, relates=True)
        await self._send(user, content, told, "m.reaction" if kind == "reaction" else "m.room.message")

    async def reference(self, user: User) -> None:
        await self._relating(user, "message", {"rel_type": "m.reference"}, {"msgtype": "m.text", "body": "as there"})

    async def edit(self, user: User) -> None:
        body = {"msgtype": "m.text", "body": "better"}
        await self._relating(user, "edit", {"rel_type": "m.replace"}, {**body, "m.new_content": body})

    async def reaction(self, user: User) -> None:
        relation = {"rel_type": "m.annotation", "key": str(self.rng.random())}
        await self._relating(user, "reaction", relation, {})

    async def rule(self, user: User) -> None:
        """Changes one of a member's push rules."""
        rule = self.rng.choice(RULES)
        own = self.model.rules.setdefault(user.user_id, set())
        is_on = rule not in own
        own.symmetric_difference_update({rule})
        room_id = quote(self.room_id, safe="")
        loud: list[object] = ["notify", {"set_tweak": "highlight"}]
        in_room = [{"kind": "event_match", "key": "room_id", "pattern": self.room_id}]
        if rule in ("master", "silent"):
            path = "override/.m.rule.master" if rule == "master" else "underride/.m.rule.message"
            enabled = is_on if rule == "master" else not is_on
            body: dict[str, Any] | None = {"enabled": enabled}
            method, path = "PUT", f"{path}/enabled"
        elif rule in ("loud", "sound"):
            kind = "underride/.m.rule.message" if rule == "loud" else "underride/.m.rule.call"
            method, path, body = "PUT", f"{kind}/actions", {"actions": loud if is_on else ["notify"]}
        else:
            made: dict[str, tuple[str, dict[str, Any]]] = {
                "muted": (f"override/{room_id}", {"conditions": in_room, "actions": []}),
                "mentions_only": (f"room/{room_id}", {"actions": ["dont_notify"]}),
                "keyword": ("content/cake", {"pattern": "CAKE", "actions": loud}),
                "quiet_sender": (f"sender/{quote(self.users[0].user_id, safe='')}", {"actions": []}),
            }
            path, new_rule = made[rule]
            method, body = ("PUT", new_rule) if is_on else ("DELETE", None)
        (await user.request(method, f"pushrules/global/{path}", body)).ok()

    async def state(self, _user: User) -> None:
        topic = {"topic": str(self.rng.random())}
        event_id = await self.users[0].set_state(self.room_id, "m.room.topic", topic)
        self.model.events.append(Told(event_id, self.users[0].user_id, "state"))

    async def redact(self, _user: User) -> None:
        if not self.model.events:
            return
        target = self.rng.choice(self.model.events[-20:])
        path = f"redact/{quote(target.event_id, safe='')}/{self.rng.getrandbits(64)}"
        event_id = (await self.users[0].in_room("PUT", self.room_id, path, {})).ok()["event_id"]
        target.redacted = True
        self.model.events.append(Told(event_id, self.users[0].user_id, "state"))

    async def receipt(self, user: User) -> None:
        if not self.model.events:
            return
        index = self.rng.randrange(max(0, len(self.model.events) - 15), len(self.model.events))
        type = self.rng.choice(("m.read", "m.read.private"))
        told = self.model.events[index]
        event_id = quote(told.event_id, safe="")
        thread = self.rng.choice(("", told.thread or "main"))
        body = {"thread_id": thread} if thread else {}
        (await user.in_room("POST", self.room_id, f"receipt/{type}/{event_id}", body)).ok()
        key = (user.user_id, type, thread)
        self.model.read[key] = max(self.model.read.get(key, 0), index + 1)

    async def leave_or_join(self, _user: User) -> None:
        user = self.rng.choice(self.users[1:])
        is_joined = user.user_id in self.model.joined_at
        (await user.in_room("POST", self.room_id, "leave" if is_joined else "join", {})).ok()
        path = f"state/m.room.member/{quote(user.user_id, safe='')}"
        member = (await self.users[0].in_room("GET", self.room_id, path, format="event")).ok()
        self.model.events.append(Told(member["event_id"], user.user_id, "state"))
        if is_joined:
            del self.model.joined_at[user.user_id]
        else:
            self.model.joined_at[user.user_id] = len(self.model.events)

    async def check(self) -> None:
        """Every member's counts in an initial /sync are those of the model."""
        for user in self.joined:
            expected = self.model.counts(user.user_id)
            whole = tuple(map(sum, zip(*expected.values(), strict=True)))
            section = (await user.sync())["rooms"]["join"][self.room_id]
            assert _counts(section["unread_notifications"]) == whole, (user.user_id, self.steps)
            section = (await user.sync(filter=BY_THREAD))["rooms"]["join"][self.room_id]
            threads = section.get("unread_thread_notifications", {})
            told = {thread: _counts(counts) for thread, counts in threads.items()}
            assert {"": _counts(section["unread_notifications"]), **told} == expected, (user.user_id, self.steps)


def _counts(unread: dict[str, int]) -> Counts:
    return unread["notification_count"], unread["highlight_count"]


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

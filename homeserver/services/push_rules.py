"""Users' push rules: read, changed, and known to the rooms whose events they count (docs/adr/0007).

https://spec.matrix.org/v1.19/client-server-api/#push-rules
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import orjson

from homeserver.metrics import Metrics
from homeserver.services.account_data import MAX_CONTENT_BYTES, AccountData
from homeserver.services.counting_modes import CountingModes
from homeserver.services.errors import BadJson, MatrixError, TooLarge
from homeserver.services.rooms.room import Room
from homeserver.services.rooms.threads import RoomThreads
from homeserver.services.stream import Stream
from matrix.push_rules import UserRules
from matrix.push_rules.editing import Ruleset, own_part, whole_ruleset
from storage.stream import Writes
from storage.unread import CountingModeRow, UnreadRepository
from storage.user_data import GLOBAL, AccountDataRow

MAX_RULES = 1_000
PUSH_RULES = "m.push_rules"


@dataclass(slots=True)
class KnownUser:
    """A user's rules as the next event finds them, and how their events were counted so far."""

    rules: UserRules
    modes: CountingModes


class PushRules:
    """Reads and changes push rules. `rooms` gives the rooms in memory, which a change has to reach."""

    def __init__(
        self,
        repository: UnreadRepository,
        account_data: AccountData,
        stream: Stream,
        metrics: Metrics,
        *,
        max_users: int,
    ) -> None:
        self._repository = repository
        self._account_data = account_data
        self._stream = stream
        self._max_users = max_users
        self._users: OrderedDict[str, KnownUser] = OrderedDict()
        self._figures = metrics.cache("push_rules", lambda: len(self._users))
        self._changing = asyncio.Lock()
        self._changes = 0
        self.rooms: Callable[[], Iterable[Room]] = tuple

    async def ruleset(self, user_id: str) -> Ruleset:
        """A user's whole rule set: {kind: rules}."""
        content = await self._account_data.get(user_id, GLOBAL, PUSH_RULES)
        assert content is not None, "there are predefined rules"
        ruleset: Ruleset = orjson.loads(content)["global"]
        return ruleset

    def known(self, user_id: str) -> KnownUser | None:
        """A user's rules, if they are in memory."""
        user = self._users.get(user_id)
        if user is not None:
            self._users.move_to_end(user_id)
            self._figures.hits += 1
        return user

    def known_rules(self, user_id: str) -> UserRules | None:
        """The same without their past."""
        user = self.known(user_id)
        return user.rules if user is not None else None

    async def load(self, user_id: str) -> KnownUser:
        """A user's rules, from memory or from the database."""
        while (user := self.known(user_id)) is None:
            self._figures.misses += 1
            seen = await self._settled()
            read = await self._read(user_id)
            if self._is_settled(seen):
                self._keep(user_id, read)
        return user

    async def _settled(self) -> int:
        """Waits until no change is under way; what is read from then on holds while `_is_settled`."""
        while self._changing.locked():
            async with self._changing:
                pass
        return self._changes

    def _is_settled(self, seen: int) -> bool:
        return self._changes == seen

    async def _read(self, user_id: str) -> KnownUser:
        rules = UserRules(await self.ruleset(user_id))
        return KnownUser(rules, CountingModes(await self._repository.load_counting_modes(user_id)))

    def _keep(self, user_id: str, user: KnownUser) -> None:
        self._users[user_id] = user
        self._users.move_to_end(user_id)
        if len(self._users) > self._max_users:
            self._users.popitem(last=False)

    async def index(self, room: Room) -> None:
        """Tells a room that is being loaded of its threads, and which of its members have rules of their own."""
        room.threads = RoomThreads(await self._repository.load_threads(room.room), position=room.last_position)
        while True:
            seen = await self._settled()
            contents = await self._repository.load_push_rules_of_room(room.room)
            if self._is_settled(seen):
                break
        for user_id, content in contents.items():
            if not user_id.endswith(room.domain):
                continue
            user = self._users.get(user_id)
            rules = user.rules if user else UserRules(whole_ruleset(orjson.loads(content)["global"], user_id))
            room.rule_groups.set(user_id, rules.in_room(room.room_id))

    async def change(self, user_id: str, edit: Callable[[Ruleset], Ruleset]) -> None:
        """Changes a user's rules; returns when that is durable. Raises what `edit` raises, BadJson, TooLarge.

        One change at a time: the next one builds on what is published. Events made from now on are counted by it.
        """
        async with self._changing:
            before = await self.ruleset(user_id)
            ruleset = edit(before)
            if ruleset == before:
                return
            content = _encode(ruleset)
            stored = _encode(own_part(ruleset, user_id))
            user = self.known(user_id) or await self._read(user_id)
            rules = UserRules(ruleset)
            position = self._stream.next_position()
            self._changes += 1
            writes = Writes()
            writes.account_data.append(AccountDataRow(user_id, GLOBAL, PUSH_RULES, stored, position))
            changes = user.modes.changes_to(rules.general_is_own, rules.own_by_room)
            modes = [CountingModeRow(user_id, room_id, position, is_own) for room_id, is_own in changes.items()]
            writes.counting_modes.extend(modes)
            rooms = [room for room in self.rooms() if room.tip_membership(user_id) == "join"]
            for room in rooms:
                room.rule_groups.set(user_id, rules.in_room(room.room_id))
            changed = KnownUser(rules, user.modes)
            self._keep(user_id, changed)

            def publish() -> None:
                changed.modes.add(modes)
                self._account_data.publish(AccountDataRow(user_id, GLOBAL, PUSH_RULES, content, position))
                for room in rooms:
                    room.unread.pop(user_id, None)
                    room.changed_position = max(room.changed_position, position)

            def undo() -> None:
                self._changes += 1
                self._users.pop(user_id, None)
                for room in rooms:
                    room.stale = True

            await self._stream.submit(position, writes, publish, undo)


def _encode(ruleset: dict[str, list[dict[str, Any]]]) -> bytes:
    if sum(map(len, ruleset.values())) > MAX_RULES:
        raise MatrixError(400, "M_LIMIT_EXCEEDED", f"More than {MAX_RULES} push rules")
    try:
        encoded = orjson.dumps({"global": ruleset})
    except orjson.JSONEncodeError:
        raise BadJson("A number is too large") from None
    if len(encoded) > MAX_CONTENT_BYTES:
        raise TooLarge("The push rules are too large")
    return encoded

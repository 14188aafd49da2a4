"""Account data: what a client keeps for its user, globally or per room, synced between their devices.

https://spec.matrix.org/v1.19/client-server-api/#client-config
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from homeserver.metrics import Metrics
from homeserver.services.errors import BadJson, InvalidParam, MatrixError, TooLarge
from homeserver.services.notifier import Notifier
from homeserver.services.stream import Stream
from matrix.push_rules.editing import whole_ruleset
from storage.stream import Writes
from storage.user_data import GLOBAL, AccountDataRow, UserDataRepository

MAX_TYPE_CHARS = 255
MAX_CONTENT_BYTES = 65_536 * 4
MAX_ENTRIES = 10_000
IGNORED = (GLOBAL, "m.ignored_user_list")
INVITE_PERMISSION = (GLOBAL, "m.invite_permission_config")
TAGS = "m.tag"
MAX_TAG_BYTES = 255
PUSH_RULES = (GLOBAL, "m.push_rules")
SERVER_MANAGED = frozenset({"m.fully_read", "m.push_rules"})

Entries = dict[tuple[int, str], AccountDataRow]


@dataclass(slots=True)
class _User:
    """A user's data: (room number or GLOBAL, type) -> row, the newest position among them, and whom they ignore."""

    entries: Entries
    last_position: int
    ignored: frozenset[str] = frozenset()


class AccountData:
    """Reads (a user's data is loaded whole, in a bounded cache) and writes account data."""

    def __init__(
        self, repository: UserDataRepository, stream: Stream, notifier: Notifier, metrics: Metrics, *, max_users: int
    ) -> None:
        self._repository = repository
        self._stream = stream
        self._notifier = notifier
        self._max_users = max_users
        self._users: OrderedDict[str, _User] = OrderedDict()
        self._loading: dict[str, asyncio.Task[_User]] = {}
        self._meanwhile: dict[str, list[AccountDataRow]] = {}
        self.on_ignored: Callable[[str, int], None] = lambda _user_id, _position: None
        self._figures = metrics.cache("account_data", lambda: len(self._users))

    async def _user(self, user_id: str) -> _User:
        user = self._users.get(user_id)
        if user is not None:
            self._users.move_to_end(user_id)
            self._figures.hits += 1
            return user
        task = self._loading.get(user_id)
        if task is None:
            self._figures.misses += 1
            task = self._loading[user_id] = asyncio.create_task(self._load(user_id))
            task.add_done_callback(lambda _: self._loading.pop(user_id, None))
        return await asyncio.shield(task)

    async def _load(self, user_id: str) -> _User:
        meanwhile = self._meanwhile[user_id] = []
        try:
            rows = await self._repository.load_account_data(user_id)
        finally:
            del self._meanwhile[user_id]
        entries = {(row.room, row.type): row for row in (*rows, *meanwhile)}
        entries[PUSH_RULES] = _with_predefined_rules(user_id, entries.get(PUSH_RULES))
        newest = max(row.position for row in entries.values())
        user = self._users[user_id] = _User(entries, newest, _ignored_by(user_id, entries.get(IGNORED)))
        if len(self._users) > self._max_users:
            self._users.popitem(last=False)
        return user

    async def get(self, user_id: str, room: int, type: str) -> bytes | None:
        """The JSON of one piece of data."""
        row = (await self._user(user_id)).entries.get((room, type))
        return None if row is None else row.content

    async def put(self, user_id: str, room: int, type: str, content: dict[str, Any]) -> None:
        """Replaces one piece of data. Raises M_BAD_JSON for what the server manages itself (405), TooLarge."""
        if type in SERVER_MANAGED:
            raise MatrixError(405, "M_BAD_JSON", f"{type} is set by an endpoint of its own")
        if type == TAGS and room != GLOBAL:
            _check_tags(content)
        await self.put_unchecked(user_id, room, type, content)

    async def put_unchecked(self, user_id: str, room: int, type: str, content: dict[str, Any]) -> None:
        """The same for the server itself. Raises BadJson, InvalidParam, TooLarge."""
        try:
            encoded = orjson.dumps(content)
        except orjson.JSONEncodeError:
            raise BadJson("A number is too large") from None
        if len(type) > MAX_TYPE_CHARS:
            raise InvalidParam("The type is too long")
        if len(encoded) > MAX_CONTENT_BYTES:
            raise TooLarge("The account data is too large")
        entries = (await self._user(user_id)).entries
        if len(entries) >= MAX_ENTRIES and (room, type) not in entries:
            raise MatrixError(400, "M_LIMIT_EXCEEDED", "Too much account data")
        position = self._stream.next_position()
        row = AccountDataRow(user_id, room, type, encoded, position)
        writes = Writes()
        writes.account_data.append(row)
        await self._stream.submit(position, writes, lambda: self.publish(row))

    def publish(self, row: AccountDataRow) -> None:
        """Shows a piece of data, now durable, to readers."""
        if (user := self._users.get(row.user_id)) is not None:
            user.entries[row.room, row.type] = row
            user.last_position = row.position
            if (row.room, row.type) == IGNORED:
                user.ignored = _ignored_by(row.user_id, row)
        elif (meanwhile := self._meanwhile.get(row.user_id)) is not None:
            meanwhile.append(row)
        if (row.room, row.type) == IGNORED:
            self.on_ignored(row.user_id, row.position)
        self._notifier.mark_users((row.user_id,))

    async def ignored_users(self, user_id: str) -> frozenset[str]:
        """Whom a user does not want to hear of. https://spec.matrix.org/v1.19/client-server-api/#ignoring-users"""
        return (await self._user(user_id)).ignored

    async def blocks_invites(self, user_id: str) -> bool:
        """Whether a user wants no invites at all. https://spec.matrix.org/v1.19/client-server-api/#invite-permission"""
        row = (await self._user(user_id)).entries.get(INVITE_PERMISSION)
        return row is not None and orjson.loads(row.content).get("default_action") == "block"

    async def changed(self, user_id: str, after: int, up_to: int) -> Sequence[AccountDataRow]:
        """What changed in the positions after < p <= up_to; with `after` 0 all there is."""
        user = await self._user(user_id)
        if after and user.last_position <= after:
            return ()
        return [row for row in user.entries.values() if (row.position > after or not after) and row.position <= up_to]


def _ignored_by(user_id: str, row: AccountDataRow | None) -> frozenset[str]:
    """The users of an m.ignored_user_list. Clients write what they like into it; nobody can ignore themselves."""
    ignored = orjson.loads(row.content).get("ignored_users") if row is not None else None
    return frozenset(ignored) - {user_id} if isinstance(ignored, dict) else frozenset()


def _check_tags(content: dict[str, Any]) -> None:
    """Holds a room's m.tag to its form, whichever endpoint it comes by. Raises BadJson, InvalidParam.

    https://spec.matrix.org/v1.19/client-server-api/#mtag
    """
    tags = content.get("tags", {})
    if not isinstance(tags, dict):
        raise BadJson("tags must be an object")
    for name, tag in tags.items():
        if len(name.encode()) > MAX_TAG_BYTES:
            raise InvalidParam(f"The name of a tag can have {MAX_TAG_BYTES} bytes")
        if not isinstance(tag, dict):
            raise BadJson("A tag must be an object")
        order = tag.get("order", 0)
        if isinstance(order, bool) or not isinstance(order, int | float):
            raise BadJson("order must be a number")
        if not 0 <= order <= 1:
            raise InvalidParam("order must be between 0 and 1")


def _with_predefined_rules(user_id: str, row: AccountDataRow | None) -> AccountDataRow:
    """A user's m.push_rules from what is stored of them, which is what they have changed."""
    own = orjson.loads(row.content)["global"] if row is not None else {}
    content = orjson.dumps({"global": whole_ruleset(own, user_id)})
    return AccountDataRow(user_id, *PUSH_RULES, content, row.position if row is not None else 0)

"""What users' push rules say of events. https://spec.matrix.org/v1.19/client-server-api/#push-rules"""

from __future__ import annotations

import orjson

from homeserver.services.account_data import PUSH_RULES, AccountData
from homeserver.services.rooms.event_cache import EventCache
from homeserver.services.rooms.room import Room
from matrix.push_rules import Outcome, PushingRules, Recipient, pushing_rules
from storage.events import StoredEvent


class UsersRules:
    """A bounded memory of rules that are ready to be evaluated."""

    def __init__(self, account_data: AccountData, events: EventCache, *, max_users: int) -> None:
        self._account_data = account_data
        self._events = events
        self._max_users = max_users
        self._rules: dict[str, tuple[bytes, PushingRules]] = {}

    async def load(self, user_id: str) -> PushingRules:
        """A user's rules as they are now."""
        content = await self._account_data.get(user_id, *PUSH_RULES)
        assert content is not None, "there are predefined rules"
        known = self._rules.get(user_id)
        if known is None or known[0] is not content:
            known = (content, pushing_rules(orjson.loads(content)["global"], user_id))
            self._rules[user_id] = known
            if len(self._rules) > self._max_users:
                del self._rules[next(iter(self._rules))]
        return known[1]

    async def outcome(self, user_id: str, room: Room, event: StoredEvent) -> Outcome:
        """What a user's rules say of an event."""
        rules = await self.load(user_id)
        return rules.evaluate(event.pdu.json, await self.recipient(room, user_id), room.power_context(event.pdu.sender))

    async def recipient(self, room: Room, user_id: str) -> Recipient:
        """A user as the rules know them: with their name in the room."""
        return Recipient(user_id, await self._display_name(room, user_id))

    async def _display_name(self, room: Room, user_id: str) -> str | None:
        position = room.state.get(("m.room.member", user_id))
        if position is None:
            return None
        name = (await self._events.load([position]))[position].pdu.content.get("displayname")
        return name if isinstance(name, str) else None

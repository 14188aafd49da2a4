"""What has notified a user: found when it is asked for, from the events and the user's rules as they are now.

https://spec.matrix.org/v1.19/client-server-api/#listing-notifications
"""

from __future__ import annotations

from typing import Any

from homeserver.clock import Clock
from homeserver.services.accounts.sessions import Requester
from homeserver.services.client_events import ClientEvents, client_json
from homeserver.services.push_rules import PushRules
from homeserver.services.receipts import Receipts
from homeserver.services.rooms.access import Access, Reader
from homeserver.services.rooms.event_cache import EventCache
from homeserver.services.rooms.user_rooms import UserRoom, UserRooms
from matrix.push_rules import Outcome, Recipient, RuleSet, compile_ruleset, evaluate
from storage.events import StoredEvent
from storage.unread import MAIN, UnreadRepository

MAX_ROOMS = 1_000
"""Only the rooms that a user joined last are looked through."""
CHUNK_EVENTS = 100
MAX_CHUNKS = 5
"""How often more events are read for one page: it may be empty and still not be the last."""


class Notifications:
    """Lists notifications, newest first."""

    def __init__(
        self,
        repository: UnreadRepository,
        access: Access,
        events: EventCache,
        client_events: ClientEvents,
        user_rooms: UserRooms,
        push_rules: PushRules,
        receipts: Receipts,
        clock: Clock,
    ) -> None:
        self._repository = repository
        self._access = access
        self._events = events
        self._client_events = client_events
        self._user_rooms = user_rooms
        self._push_rules = push_rules
        self._receipts = receipts
        self._clock = clock

    async def page(
        self, requester: Requester, *, before: int, limit: int, only_highlights: bool
    ) -> tuple[list[dict[str, Any]], int | None]:
        """Up to `limit` notifications of events before a position, and where the next page begins (None: nowhere)."""
        user_id = requester.user_id
        joined = [room for room in (await self._user_rooms.load(user_id)).values() if room.membership == "join"]
        rooms = {room.room: room for room in sorted(joined, key=lambda room: -room.position)[:MAX_ROOMS]}
        rules = compile_ruleset(await self._push_rules.ruleset(user_id))
        after = {number: room.position for number, room in rooms.items()}
        found: list[dict[str, Any]] = []
        for _ in range(MAX_CHUNKS):
            positions = await self._repository.load_notifications(user_id, after, before=before, limit=CHUNK_EVENTS)
            events = await self._events.load(positions)
            for position in positions:
                if len(found) == limit:
                    return found, before
                before = position
                shown = await self._shown(requester, rules, rooms, events[position], only_highlights=only_highlights)
                if shown is not None:
                    found.append(shown)
            if len(positions) < CHUNK_EVENTS:
                return found, None
        return found, before

    async def _shown(
        self,
        requester: Requester,
        rules: RuleSet,
        rooms: dict[int, UserRoom],
        event: StoredEvent,
        *,
        only_highlights: bool,
    ) -> dict[str, Any] | None:
        """A notification, if the event is one for this user."""
        reader = await self._access.access_readable_room(requester.user_id, rooms[event.room].room_id)
        outcome = await self._outcome(reader, rules, event)
        if not outcome.notify or (only_highlights and not outcome.highlight):
            return None
        if not await self._access.visible_events(reader, [event]):
            return None
        await self._client_events.prepare([event])
        client_event = client_json(
            event, now_ms=self._clock(), device=requester.device, membership="join", with_room_id=False
        )
        return {
            "actions": outcome.actions,
            "event": client_event,
            "read": await self._is_read(reader, event),
            "room_id": reader.room.room_id,
            "ts": event.pdu.origin_server_ts,
        }

    async def _outcome(self, reader: Reader, rules: RuleSet, event: StoredEvent) -> Outcome:
        name = None
        if (position := reader.room.state.get(("m.room.member", reader.user_id))) is not None:
            name = (await self._events.load([position]))[position].pdu.content.get("displayname")
        recipient = Recipient(reader.user_id, name if isinstance(name, str) else None)
        return evaluate(rules, event.pdu.json, recipient, reader.room.power_context(event.pdu.sender))

    async def _is_read(self, reader: Reader, event: StoredEvent) -> bool:
        read = await self._receipts.read_up_to(reader.room, reader.user_id)
        threads = await self._repository.load_threads_of_events(reader.room.room, [event.position])
        return event.position <= read.of_thread(threads.get(event.position, MAIN))

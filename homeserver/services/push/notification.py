"""What a push says, in the form of the push gateway API.

https://spec.matrix.org/v1.19/push-gateway-api/#post_matrixpushv1notify
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import orjson

from homeserver.services.account_data import AccountData
from homeserver.services.errors import Forbidden
from homeserver.services.push.pushers import Item, Pusher, UserPushers
from homeserver.services.push.totals import UnreadTotals
from homeserver.services.receipts import Receipts
from homeserver.services.rooms.access import Access
from homeserver.services.rooms.event_cache import EventCache
from homeserver.services.rooms.registry import RoomRegistry
from homeserver.services.rooms.room import Room, StateKey
from homeserver.services.rooms.user_rooms import UserRooms
from storage.events import StoredEvent
from storage.unread import MAIN, UnreadRepository

EVENT_ID_ONLY = "event_id_only"
URGENT_TYPES = frozenset({"m.room.encrypted", "m.call.invite"})


class Composed(NamedTuple):
    """A push ready to be sent: JSON, and the number of unread messages that it tells (None: it tells none)."""

    body: bytes
    unread: int | None


class Notifications:
    """Writes pushes, as things are when they are sent: what was read or redacted meanwhile is not pushed."""

    def __init__(
        self,
        access: Access,
        events: EventCache,
        receipts: Receipts,
        unread: UnreadRepository,
        totals: UnreadTotals,
        registry: RoomRegistry,
        user_rooms: UserRooms,
        account_data: AccountData,
    ) -> None:
        self._registry = registry
        self._user_rooms = user_rooms
        self._account_data = account_data
        self._access = access
        self._events = events
        self._receipts = receipts
        self._unread = unread
        self._totals = totals

    async def of_event(self, user: UserPushers, pusher: Pusher, item: Item) -> Composed | None:
        """A push about an event; None if there is nothing to notify of any more."""
        event = (await self._events.load([item.position])).get(item.position)
        if event is None or event.redacted_by is not None:
            return None
        notified = await self.access_notified_event(user.user_id, item.room_id, event)
        if notified is None:
            return None
        room, event = notified
        count = await self._totals.total(user) if pusher.wants_counts else None
        notification: dict[str, Any] = {"event_id": event.event_id, "room_id": room.room_id}
        if pusher.data.get("format") != EVENT_ID_ONLY:
            notification |= await self._details(user.user_id, room, event)
        is_urgent = event.pdu.type in URGENT_TYPES or "sound" in item.tweaks or item.tweaks.get("highlight") is True
        notification["prio"] = "high" if is_urgent else "low"
        if count is not None:
            notification["counts"] = {"unread": count} if count else {}
        notification["devices"] = [_device(pusher, item.tweaks)]
        return Composed(orjson.dumps({"notification": notification}), count)

    async def of_count(self, user: UserPushers, pusher: Pusher) -> Composed | None:
        """A push that tells nothing but the count; None if the pusher has told it, or does not want to know.

        Where the count is all there is to say it is told even if it is 0: gateways take what is absent for unchanged.
        """
        if not pusher.wants_counts:
            return None
        count = await self._totals.total(user)
        if count == pusher.told_count:
            return None
        notification = {"prio": "low", "counts": {"unread": count}, "devices": [_device(pusher, {})]}
        return Composed(orjson.dumps({"notification": notification}), count)

    async def access_notified_event(
        self, user_id: str, room_id: str, event: StoredEvent
    ) -> tuple[Room, StoredEvent] | None:
        """The room of an event that the user is to be notified of, and the event as they are shown it.

        None if they may not see it or have read it.
        """
        try:
            reader = await self._access.access_readable_room(user_id, room_id)
        except Forbidden:
            return await self._access_invited_room(user_id, room_id, event)
        if reader.membership != "join":
            return await self._access_invited_room(user_id, room_id, event)
        visible = await self._access.visible_events(reader, [event])
        if not visible:
            return None
        room = reader.room
        read = await self._receipts.read_up_to(room, user_id)
        if event.position <= read.position:
            return None
        if read.threads:
            threads = await self._unread.load_threads_of_events(room.room, [event.position])
            if event.position <= read.of_thread(threads.get(event.position, MAIN)):
                return None
        return room, visible[0]

    async def _access_invited_room(
        self, user_id: str, room_id: str, event: StoredEvent
    ) -> tuple[Room, StoredEvent] | None:
        """The same, if the event is the invite that the user still has."""
        if event.pdu.type != "m.room.member" or event.pdu.state_key != user_id:
            return None
        own = (await self._user_rooms.load(user_id)).get(room_id)
        if own is None or own.membership != "invite" or own.position != event.position:
            return None
        if event.pdu.sender in await self._account_data.ignored_users(user_id):
            return None
        room = await self._registry.load(room_id)
        return room or self._registry.stub(event.room, room_id, event.pdu.room_version), event

    async def _content(
        self, room: Room, told: Mapping[StateKey, Mapping[str, Any]], key: StateKey
    ) -> Mapping[str, Any]:
        """The content of a state event; {} where there is none."""
        if (position := room.state.get(key)) is None:
            return told.get(key, {})
        return (await self._events.load([position]))[position].pdu.content

    async def _details(self, user_id: str, room: Room, event: StoredEvent) -> dict[str, Any]:
        """What the specification has of an event beside its ID."""
        pdu = event.pdu
        details: dict[str, Any] = {"type": pdu.type, "sender": pdu.sender, "content": pdu.content}
        told = stripped_state(event)
        for name, key, field in (
            ("sender_display_name", ("m.room.member", pdu.sender), "displayname"),
            ("room_name", ("m.room.name", ""), "name"),
            ("room_alias", ("m.room.canonical_alias", ""), "alias"),
        ):
            details[name] = (await self._content(room, told, key)).get(field)
        if pdu.type == "m.room.member" and pdu.state_key is not None:
            details["user_is_target"] = pdu.state_key == user_id
        is_text = ("sender_display_name", "room_name", "room_alias")
        return {name: value for name, value in details.items() if name not in is_text or isinstance(value, str)}


def stripped_state(event: StoredEvent) -> dict[StateKey, Mapping[str, Any]]:
    """What an invitation of another server tells of the state of its room: key -> content."""
    unsigned = event.pdu.json.get("unsigned")
    told = unsigned.get("invite_room_state") if isinstance(unsigned, dict) else None
    return {
        (one["type"], one["state_key"]): one["content"]
        for one in (told if isinstance(told, list) else ())
        if isinstance(one, dict)
        and isinstance(one.get("type"), str)
        and isinstance(one.get("state_key"), str)
        and isinstance(one.get("content"), dict)
    }


def _device(pusher: Pusher, tweaks: dict[str, Any]) -> dict[str, Any]:
    row = pusher.row
    return {
        "app_id": row.app_id,
        "pushkey": row.pushkey,
        "pushkey_ts": row.set_ts // 1000,
        "data": {name: value for name, value in pusher.data.items() if name != "url"},
        "tweaks": tweaks,
    }

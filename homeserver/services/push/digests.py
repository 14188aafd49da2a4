"""What a mail tells a user of: the newest of what notified them in each room, and was not read.

Nothing of what is encrypted, redacted, erased, ignored, or hidden from the user gets into a mail.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple
from urllib.parse import quote, urlencode

from homeserver.services.aggregations import Aggregations
from homeserver.services.email.writing import one_line
from homeserver.services.errors import Forbidden
from homeserver.services.push.notification import Notifications, stripped_state
from homeserver.services.push.rules import UsersRules
from homeserver.services.receipts import Receipts
from homeserver.services.rooms.access import Access
from homeserver.services.rooms.erasure import is_erased
from homeserver.services.rooms.event_cache import EventCache
from homeserver.services.rooms.registry import RoomRegistry
from homeserver.services.rooms.room import Room
from homeserver.services.rooms.user_rooms import UserRoom, UserRooms
from homeserver.services.sync.summary import heroes_of
from storage.email_pushers import MailedRoom
from storage.events import StoredEvent
from storage.unread import UnreadRepository

MAX_ROOMS_READ: Final = 1_000
"""Only the rooms that a user joined last are looked through."""
MAX_EVENTS: Final = 300
"""How many of the newest events are looked at."""
MAX_ROOMS: Final = 20
MAX_MESSAGES: Final = 5
MAX_NAME_CHARS: Final = 80
MAX_TEXT_CHARS: Final = 500
FAR_AWAY: Final = 2**62

MESSAGES: Final = {
    "m.emote": "emote",
    "m.image": "image",
    "m.file": "file",
    "m.audio": "audio",
    "m.video": "video",
}
"""The kinds of message that a mail knows from others, by `msgtype`."""
TEXTS: Final = {
    "text": "{body}",
    "emote": "* {body}",
    "image": "Sends a picture: {body}",
    "file": "Sends a file: {body}",
    "audio": "Sends a recording: {body}",
    "video": "Sends a video: {body}",
    "sticker": "A sticker: {body}",
    "encrypted": "An encrypted message",
    "invite": "Invites you to this room",
    "call": "Calls you",
    "other": "Something new ({type})",
}
"""What each kind of event is called in English."""


class Message(NamedTuple):
    """What somebody wrote, on one line each.

    `text` and `time` are in English; templates in other languages have `kind`, a key of TEXTS, `body`, what of it is
    the sender's own words, and `sent_at`, in UTC.
    """

    sender: str
    text: str
    time: str
    kind: str
    body: str
    sent_at: datetime


class RoomName(NamedTuple):
    """A room's name, in English where it has none of its own: then it is made of `members`, some, and `others`."""

    name: str
    members: Sequence[str] = ()
    others: int = 0


@dataclass(frozen=True, slots=True)
class RoomDigest:
    """What a room has. `newest` is the position of its newest event, `before` what was told of it last, in vain.

    `members` and `others` are as in RoomName.
    """

    room: int
    newest: int
    before: MailedRoom | None
    name: str
    members: Sequence[str]
    others: int
    link: str
    is_invite: bool
    messages: list[Message]
    more: int


@dataclass(frozen=True, slots=True)
class Digest:
    """What there is to be told, the rooms with the newest events first; when (ms) rooms that wait may be told of."""

    rooms: list[RoomDigest]
    next_due_ts: int | None

    def values(self) -> dict[str, Any]:
        """What a template is given."""
        return {
            "rooms": self.rooms[:MAX_ROOMS],
            "more_rooms": max(0, len(self.rooms) - MAX_ROOMS),
            "count": sum(len(room.messages) + room.more for room in self.rooms),
        }


class Digests:
    """Composes mails."""

    def __init__(
        self,
        notifications: Notifications,
        rules: UsersRules,
        unread: UnreadRepository,
        receipts: Receipts,
        registry: RoomRegistry,
        user_rooms: UserRooms,
        events: EventCache,
        access: Access,
        aggregations: Aggregations,
        *,
        server_name: str,
    ) -> None:
        self._notifications = notifications
        self._rules = rules
        self._unread = unread
        self._receipts = receipts
        self._registry = registry
        self._user_rooms = user_rooms
        self._events = events
        self._access = access
        self._aggregations = aggregations
        self._server_name = server_name

    async def compose(self, user_id: str, after: int, told: Mapping[int, MailedRoom], now: int) -> Digest:
        """What a user is to be told of what came after a position, and after what they were told of each room."""
        own_rooms = await self._own_rooms(user_id)
        in_vain = {room.room: room for room in told.values() if not await self._has_read(own_rooms, user_id, room)}
        waits = {number: room.mailed_ts + room.interval_ms for number, room in in_vain.items()}
        # Rooms that wait are not looked at: a loud one would leave no place for others.
        waiting = {number: ts for number, ts in waits.items() if ts > now}
        own_rooms = {number: own for number, own in own_rooms.items() if number not in waiting}
        known = {number: max(after, told[number].up_to if number in told else 0) for number in own_rooms}
        begin = {number: max(known[number], own.position) for number, own in own_rooms.items()}
        positions = await self._unread.load_notifications(user_id, begin, before=FAR_AWAY, limit=MAX_EVENTS)
        # Invitations count for nothing in their room, so that the database does not know them for notifications.
        invited = [own for own in own_rooms.values() if own.membership == "invite"]
        positions += [own.position for own in invited if own.position > known[own.room]]
        positions.sort(reverse=True)
        loaded = await self._events.load(positions)
        rooms: list[RoomDigest] = []
        by_room: dict[int, list[StoredEvent]] = {}
        for position in positions:
            by_room.setdefault(loaded[position].room, []).append(loaded[position])
        for number, events in by_room.items():
            before = in_vain.get(number)
            shown = await self._unread_of(user_id, own_rooms[number].room_id, events)
            if not shown:
                continue
            room, newest = shown[0][0], shown[0][1].position
            rooms.append(await self._room_digest(user_id, room, [event for _, event in shown], newest, before, now))
        return Digest(rooms, min(waiting.values(), default=None))

    async def _own_rooms(self, user_id: str) -> dict[int, UserRoom]:
        rooms = (await self._user_rooms.load(user_id)).values()
        inside = [room for room in rooms if room.membership in ("join", "invite")]
        return {room.room: room for room in sorted(inside, key=lambda room: -room.position)[:MAX_ROOMS_READ]}

    async def _unread_of(
        self, user_id: str, room_id: str, events: Sequence[StoredEvent]
    ) -> list[tuple[Room, StoredEvent]]:
        """Those of a room's events that notify the user, as they may see them and have not yet."""
        found = []
        for event in events:
            if event.redacted_by is not None:
                continue
            notified = await self._notifications.access_notified_event(user_id, room_id, event)
            if notified is None:
                continue
            room, shown = notified
            # Who was in the room goes on seeing what erased accounts wrote in it, but no copy of it is made any more.
            if is_erased(event, room.erased):
                continue
            if (await self._rules.outcome(user_id, room, event)).notify and shown.pdu.content:
                found.append((room, shown))
        return found

    async def _has_read(self, own_rooms: Mapping[int, UserRoom], user_id: str, told: MailedRoom) -> bool:
        """Whether a user has read what they were told of last, or has left."""
        own = own_rooms.get(told.room)
        if own is None:
            return True
        room = await self._registry.load(own.room_id) if own.membership == "join" else None
        if room is None:
            return False
        read = await self._receipts.read_up_to(room, user_id)
        return max(read.position, *read.threads.values(), 0) >= told.up_to

    async def _room_digest(
        self,
        user_id: str,
        room: Room,
        events: Sequence[StoredEvent],
        newest: int,
        before: MailedRoom | None,
        now: int,
    ) -> RoomDigest:
        told = events[:MAX_MESSAGES][::-1]
        via = urlencode({"via": self._server_name})
        link = f"https://matrix.to/#/{quote(room.room_id, safe='!:')}/{quote(told[0].event_id, safe='$')}?{via}"
        name = await self._room_name(room, user_id, told[-1])
        edited = await self._edited(room, user_id, told)
        return RoomDigest(
            room=room.room,
            newest=newest,
            before=before,
            name=name.name,
            members=name.members,
            others=name.others,
            link=link,
            is_invite=_is_invite(told[-1]),
            messages=[await self._message(room, event, edited.get(event.position), now) for event in told],
            more=len(events) - len(told),
        )

    async def _edited(self, room: Room, user_id: str, events: Sequence[StoredEvent]) -> dict[int, Mapping[str, Any]]:
        """Position -> the content that an event has been given by its sender since, of those that were edited.

        https://spec.matrix.org/v1.19/client-server-api/#event-replacements
        """
        try:
            reader = await self._access.access_readable_room(user_id, room.room_id)
        except Forbidden:
            return {}  # a room of which the user has but the invitation
        bundles = await self._aggregations.bundles(reader, events)
        edits = {position: bundle.edit for position, bundle in bundles.items() if bundle.edit is not None}
        loaded = await self._events.load(edits.values())
        contents = {position: loaded[edit].pdu.content.get("m.new_content") for position, edit in edits.items()}
        return {position: content for position, content in contents.items() if isinstance(content, dict)}

    async def _message(self, room: Room, event: StoredEvent, edited: Mapping[str, Any] | None, now: int) -> Message:
        # Other servers write what they like for a time.
        sent_at = datetime.fromtimestamp(min(max(event.pdu.origin_server_ts, 0), now) / 1000, UTC)
        sender = await self._member_name(room, event.pdu.sender, event)
        content = event.pdu.content if edited is None else edited
        kind = kind_of(event, content)
        body = one_line(body_of(content, kind), MAX_TEXT_CHARS)
        shown = TEXTS["text" if kind == "other" and body else kind]
        text = one_line(shown.format(body=body, type=event.pdu.type), MAX_TEXT_CHARS)
        return Message(sender, text, f"{sent_at:%d %B, %H:%M} UTC", kind, body, sent_at)

    async def _member_name(self, room: Room, user_id: str, event: StoredEvent) -> str:
        """A member's name in the room, by what is known of it or `event` tells, or their ID."""
        name = stripped_state(event).get(("m.room.member", user_id), {}).get("displayname")
        if (position := room.state.get(("m.room.member", user_id))) is not None:
            loaded = await self._events.load([position])
            name = loaded[position].pdu.content.get("displayname") if position in loaded else None
        return (one_line(name, MAX_NAME_CHARS) if isinstance(name, str) else "") or user_id

    async def _room_name(self, room: Room, user_id: str, newest: StoredEvent) -> RoomName:
        """https://spec.matrix.org/v1.19/client-server-api/#calculating-the-display-name-for-a-room"""
        stripped = stripped_state(newest)
        for key, field in ((("m.room.name", ""), "name"), (("m.room.canonical_alias", ""), "alias")):
            event = room.pinned.get(key)
            name = (event.pdu.content if event is not None else stripped.get(key, {})).get(field)
            if isinstance(name, str) and (name := one_line(name, MAX_NAME_CHARS)):
                return RoomName(name)
        heroes = [await self._member_name(room, hero, newest) for hero in heroes_of(room, user_id)]
        if not room.state:  # of which no more is known than who invites
            heroes = [await self._member_name(room, newest.pdu.sender, newest)]
        if not heroes:
            return RoomName("Empty room")
        others = 0 if not room.state else room.joined_count + room.invited_count - 1 - len(heroes)
        if others > 0:
            name = f"{', '.join(heroes)} and {others} others"
        else:
            name = heroes[0] if len(heroes) == 1 else f"{', '.join(heroes[:-1])} and {heroes[-1]}"
        return RoomName(name, heroes, max(others, 0))


def kind_of(event: StoredEvent, content: Mapping[str, Any]) -> str:
    """What an event is to a mail, with the content that it has by now: a key of TEXTS."""
    match event.pdu.type:
        case "m.room.encrypted":
            return "encrypted"
        case "m.room.member" if _is_invite(event):
            return "invite"
        case "m.sticker":
            return "sticker"
        case "m.call.invite":
            return "call"
        case "m.room.message":
            msgtype = content.get("msgtype")
            return MESSAGES.get(msgtype, "text") if isinstance(msgtype, str) else "text"
        case _:
            return "other"


def body_of(content: Mapping[str, Any], kind: str) -> str:
    """The words of who wrote an event, where it is of a kind that has any and they are not encrypted."""
    body = content.get("body")
    return body if isinstance(body, str) and kind not in ("encrypted", "invite", "call") else ""


def _is_invite(event: StoredEvent) -> bool:
    return event.pdu.type == "m.room.member" and event.pdu.content.get("membership") == "invite"

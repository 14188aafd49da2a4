"""From a question's scope to the messages that it is about.

1. The state now: who is in the room, who may see what.
2. Pages of events, newest first, until the scope's beginning or the bound.
3. Events that the asker (or, for an answer in the room, any member) may not see are dropped.
4. The rest becomes messages; those who opted out, and those whom the asker ignores, are not in them.
5. The scope picks from these.

The state is read before the events, so that no change falls between the two. Nothing is kept: the next question reads
anew, and sees what has been redacted since.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from appservices.summary_bot.answers.model import Coverage
from appservices.summary_bot.answers.render import Place
from appservices.summary_bot.clock import MINUTE_MS
from appservices.summary_bot.commands.model import Scope
from appservices.summary_bot.commands.parse import PREFIXES, address
from appservices.summary_bot.encryption.plaintexts import is_sealed
from appservices.summary_bot.events import Message, RawEvent, build_messages, is_event
from appservices.summary_bot.matrix.client import MatrixClient, MatrixFailure
from appservices.summary_bot.ranges import LAST_DAY, Range, select
from appservices.summary_bot.storage.settings import Reading, SettingsRepository
from appservices.summary_bot.visibility import DEFAULT_VISIBILITY, Now, visible_to, visible_to_all

PAUSE_MS = 10 * MINUTE_MS
"""Whoever reads on after a pause this long has come back: what is new to them begins before it."""

MAX_EVENTS_PER_MESSAGE = 4
"""How many events are read for each message that may be: reactions and edits come on top of messages."""


class Opener(Protocol):
    """What decrypts."""

    async def is_encrypted(self, room_id: str) -> bool:
        """Whether a room is encrypted. Raises MatrixFailure."""

    async def open_events(self, room_id: str, events: Sequence[RawEvent]) -> list[RawEvent]:
        """The events, each that can be read in the place of its encrypted form."""

    async def open_event(self, room_id: str, event: RawEvent) -> RawEvent:
        """The event, as it reads if it can be read."""


class HistoryRefused(Exception):
    """Why nothing is read: `line` names what is said about it."""

    def __init__(self, line: str) -> None:
        super().__init__(line)
        self.line = line


@dataclass(frozen=True, slots=True)
class Transcript:
    """Messages, oldest first, and what is known about them."""

    place: Place
    messages: Sequence[Message]
    names: Mapping[str, str]
    coverage: Coverage
    notes: tuple[str, ...] = ()
    """Lines to say about it."""
    encrypted: bool = False
    """Whether it is from an encrypted room: then nothing of it may go where it is not encrypted."""


@dataclass(slots=True)
class _Raw:
    """Events, oldest first, and whether they reach to the beginning of what was asked for."""

    events: list[RawEvent] = field(default_factory=list)
    complete: bool = False


class HistoryReader:
    """Reads history by the client API, as the bot's user."""

    def __init__(
        self,
        client: MatrixClient,
        settings: SettingsRepository,
        opener: Opener | None,
        *,
        names: Sequence[str],
        max_messages: int,
        permalink_base: str,
    ) -> None:
        """`opener`: None refuses encrypted rooms. `names`: how the bot is addressed."""
        self._client = client
        self._settings = settings
        self._opener = opener
        self._names = names
        self._max_messages = max_messages
        self._permalink_base = permalink_base

    async def read(
        self,
        room_id: str,
        asker: str,
        scope: Scope,
        *,
        now: int,
        thread: str | None = None,
        ignored: Sequence[str] = (),
        unread_after: str | None = None,
    ) -> Transcript:
        """What a question is about. Raises HistoryRefused and MatrixFailure.

        `thread`: the root of the thread that was asked in. `ignored`: whom the asker ignores. `unread_after`: where
        the asker left off, where the question came with it.
        """
        names = await self.check_member(room_id, asker)
        encrypted = await self.is_encrypted(room_id)
        visibility = await self._client.load_state(room_id, "m.room.history_visibility")
        state = Now(str((visibility or {}).get("history_visibility", DEFAULT_VISIBILITY)), frozenset(names))
        asked, marker, notes = await self._resolve(room_id, asker, scope, thread, unread_after, now)
        raw = await self._fetch(room_id, asked, now, marker, encrypted=encrypted)
        for_all = scope.here
        seen = visible_to_all(raw.events, state) if for_all else visible_to(raw.events, state, asker)
        events = [event for event, may in zip(raw.events, seen, strict=True) if may]
        left_out = await self._left_out(events, ignored)
        messages = build_messages(events, without=frozenset(left_out | {self._client.user_id}))
        messages = [message for message in messages if not self._is_command(message)]
        if marker is None or scope.thread:
            messages = list(select(messages, asked, now=now)) if asked.kind != "unread" else messages
        messages = _pick(messages, scope, thread)
        total = len(messages)
        messages = messages[-self._max_messages :]
        coverage = Coverage(
            covered=len(messages),
            total=total,
            first_ts=messages[0].ts if messages else 0,
            last_ts=messages[-1].ts if messages else 0,
            complete=raw.complete,
            people_left_out=len(left_out),
            unreadable=self._count_unreadable(events, asked, messages, now) if encrypted else 0,
        )
        return Transcript(await self._place(room_id, names), messages, names, coverage, notes, encrypted)

    def _count_unreadable(self, events: Sequence[RawEvent], asked: Range, messages: Sequence[Message], now: int) -> int:
        """How many encrypted messages of others there are in what was asked about, that there was no key for. Where a
        number of messages was asked for, those since the first of them."""
        oldest = messages[0].ts if asked.kind == "count" and messages else 0
        first, end = asked.span(now) or (oldest, 2**63)
        return sum(
            is_sealed(event) and event["sender"] != self._client.user_id and first <= event["origin_server_ts"] < end
            for event in events
        )

    async def is_encrypted(self, room_id: str) -> bool:
        """Whether a room is encrypted. Raises MatrixFailure."""
        return self._opener is not None and await self._opener.is_encrypted(room_id)

    async def load_event(self, room_id: str, event_id: str) -> RawEvent | None:
        """One event, as it reads; None if there is none, or the bot may not see it. Raises MatrixFailure."""
        event = await self._client.load_event(room_id, event_id)
        if event is None or not is_event(event):
            return None
        return event if self._opener is None else await self._opener.open_event(room_id, event)

    async def access_event(self, room_id: str, asker: str, event_id: str) -> RawEvent | None:
        """An event that the asker may see; None for one that they may not, or that is too far back.

        Raises HistoryRefused and MatrixFailure.
        """
        names = await self.check_member(room_id, asker)
        visibility = await self._client.load_state(room_id, "m.room.history_visibility")
        state = Now(str((visibility or {}).get("history_visibility", DEFAULT_VISIBILITY)), frozenset(names))
        encrypted = await self.is_encrypted(room_id)
        asked = Range("count", count=self._max_messages)
        raw = await self._fetch(room_id, asked, 0, event_id, encrypted=encrypted)
        for event, may in zip(raw.events, visible_to(raw.events, state, asker), strict=True):
            if event["event_id"] == event_id:
                return event if may else None
        return None

    async def check_member(self, room_id: str, asker: str) -> dict[str, str]:
        """The members of a room and their names. Raises HistoryRefused if the asker or the bot is none of them, or the
        room is encrypted and the bot does not read such rooms."""
        try:
            names = await self._client.load_joined_members(room_id)
            refused = self._opener is None and await self._client.load_state(room_id, "m.room.encryption") is not None
        except MatrixFailure as failure:
            if failure.is_temporary:
                raise
            raise HistoryRefused("not_member") from None
        if asker not in names:
            raise HistoryRefused("not_member")
        if refused:
            raise HistoryRefused("encrypted")
        return names

    async def _resolve(
        self, room_id: str, asker: str, scope: Scope, thread: str | None, unread_after: str | None, now: int
    ) -> tuple[Range, str | None, tuple[str, ...]]:
        """(what to read, the event after which it begins, lines about it)."""
        if scope.range.kind != "unread":
            return scope.range, None, ()
        if scope.thread and thread is not None:
            return Range("count", count=self._max_messages), thread, ()
        if unread_after is not None:
            return scope.range, unread_after, ("since_left",)
        marker = left_off(await self._settings.load_reading(room_id, asker), now)
        if marker is not None:
            return scope.range, marker, ("since_left",)
        return LAST_DAY, None, ("since_day",)

    async def _fetch(self, room_id: str, asked: Range, now: int, marker: str | None, *, encrypted: bool) -> _Raw:
        """Pages back until the range's beginning, the marker, or the bound. Times are claims of whoever sent an event:
        a page has to be older than the range from end to end before it ends the reading."""
        raw = _Raw()
        span = asked.span(now)
        wanted = asked.count if asked.kind == "count" and marker is None else self._max_messages
        messages, position = 0, None
        events: list[RawEvent] = []
        while len(events) < self._max_messages * MAX_EVENTS_PER_MESSAGE:
            page = await self._client.load_page(room_id, position)
            found: list[RawEvent] = [event for event in page.events if is_event(event)]
            if encrypted and self._opener is not None:
                found = await self._opener.open_events(room_id, found)
            events += found
            messages += sum(event["type"] == "m.room.message" for event in found)
            position = page.end
            older = span is not None and found and all(event["origin_server_ts"] < span[0] for event in found)
            enough = span is None and marker is None and messages > 2 * wanted + 50
            reached = marker is not None and any(event["event_id"] == marker for event in found)
            if position is None or older or enough or reached:
                raw.complete = True
                break
        events.reverse()
        raw.events = events
        if marker is not None and asked.kind == "unread":
            raw.events = _after(events, marker)
        return raw

    async def _left_out(self, events: Sequence[RawEvent], ignored: Sequence[str]) -> set[str]:
        senders = {event["sender"] for event in events}
        return (senders & set(ignored)) | await self._settings.load_opted_out(sorted(senders))

    def _is_command(self, message: Message) -> bool:
        """Whether a message was written to a bot: it is none of the conversation."""
        if self._client.user_id in message.mentions and address(message.body, self._names) is not None:
            return True
        if message.body.startswith(PREFIXES):
            return message.body[1:2].isalpha()
        body = message.body.casefold()
        return body.startswith(tuple(f"{name.casefold()}{colon}" for name in self._names for colon in ":："))

    async def _place(self, room_id: str, names: Mapping[str, str]) -> Place:
        state = await self._client.load_state(room_id, "m.room.name")
        name = str((state or {}).get("name") or "").strip()
        if not name:
            alias = await self._client.load_state(room_id, "m.room.canonical_alias")
            name = str((alias or {}).get("alias") or "").strip()
        servers: dict[str, int] = {}
        for user in names:
            server = user.partition(":")[2]
            servers[server] = servers.get(server, 0) + 1
        via = tuple(sorted(servers, key=lambda server: (-servers[server], server)))
        return Place(room_id, name[:100] or room_id, via, self._permalink_base)


def left_off(reading: Reading | None, now: int) -> str | None:
    """After which event somebody's unread messages begin: where they were before this visit, if they read now."""
    if reading is None:
        return None
    return reading.left_off_event_id if now - reading.ts < PAUSE_MS else reading.event_id


def _after(events: Sequence[RawEvent], marker: str) -> list[RawEvent]:
    """The events after the marker, with the state events before it, which say who might see what."""
    for position, event in enumerate(events):
        if event["event_id"] == marker:
            return [
                *(earlier for earlier in events[: position + 1] if "state_key" in earlier),
                *events[position + 1 :],
            ]
    return list(events)


def _pick(messages: Sequence[Message], scope: Scope, thread: str | None) -> list[Message]:
    """The messages by one person, or of one thread."""
    picked = list(messages)
    if scope.sender is not None:
        wanted = scope.sender
        picked = [m for m in picked if m.sender == wanted or (":" not in wanted and m.sender.startswith(f"{wanted}:"))]
    if scope.thread:
        picked = [m for m in picked if thread is not None and (m.thread == thread or m.event_id == thread)]
    return picked

"""The /sync of version 3: one long poll after another, each from the token of the last.

https://spec.matrix.org/v1.19/client-server-api/#syncing
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import orjson

from config.schema import Limits
from homeserver.services.account_data import AccountData
from homeserver.services.accounts.sessions import Requester
from homeserver.services.changes import Changes
from homeserver.services.notifier import Notifier
from homeserver.services.presence import Presence
from homeserver.services.rooms.registry import RoomRegistry
from homeserver.services.rooms.room import Room
from homeserver.services.rooms.user_rooms import UserRoom, UserRooms
from homeserver.services.stream import Stream
from homeserver.services.sync.device_sections import DevicePart, DeviceSections
from homeserver.services.sync.room_sections import RoomSections, SyncRequest, account_data_json, filter_account_data
from homeserver.services.sync.tokens import SyncToken, encode_sync_token, encode_token
from matrix.filters import Filter
from storage.events import StoredEvent
from storage.rooms import RoomRepository
from storage.user_data import GLOBAL, AccountDataRow

ROOMS_AT_ONCE = 8

Sections = dict[str, dict[str, bytes]]


class _MovedOn(Exception):
    """The user has come or gone since the moment that the answer is for, and was not yet seen doing it."""


class Sync:
    """Answers /sync, at once when there is news and otherwise when there is some."""

    def __init__(
        self,
        stream: Stream,
        notifier: Notifier,
        changes: Changes,
        registry: RoomRegistry,
        rooms: RoomRepository,
        user_rooms: UserRooms,
        account_data: AccountData,
        sections: RoomSections,
        presence: Presence,
        devices: DeviceSections,
        limits: Limits,
    ) -> None:
        self._stream = stream
        self._notifier = notifier
        self._changes = changes
        self._registry = registry
        self._rooms = rooms
        self._user_rooms = user_rooms
        self._account_data = account_data
        self._sections = sections
        self._presence = presence
        self._devices = devices
        self._limits = limits

    def on_event(self, room: Room, event: StoredEvent, _before: str | None) -> None:
        """Takes in a published event (a `PublishObserver`)."""
        self._changes.add(event.position, room.room_id)
        self._notifier.mark_members(room.local_joined)
        if event.pdu.type == "m.room.member" and event.pdu.state_key is not None:
            self._notifier.mark_users((event.pdu.state_key,))

    async def sync(
        self,
        requester: Requester,
        sync_filter: Filter,
        *,
        token: SyncToken | None,
        full_state: bool,
        timeout_ms: int,
        state_after: bool = False,
    ) -> bytes:
        """The answer as JSON. `token` is None for an initial sync; `timeout_ms` how long to wait for news.

        `state_after`: whether the state is told as of the end of the timelines.
        """
        deadline = time.monotonic() + min(timeout_ms, self._limits.max_sync_timeout_ms) / 1000
        since, got = (None, 0) if token is None else token
        if since is not None and since > self._stream.current:
            since = got = self._stream.current  # a token of a future that a restored backup has lost
        device = requester.device
        if got and device not in self._devices.quiet:
            await self._devices.begin(device, got)
        while True:
            now = self._stream.current
            limit = sync_filter.room.timeline.limit
            request = SyncRequest(
                requester=requester,
                filter=sync_filter,
                since=since or 0,
                now=now,
                full_state=full_state,
                timeline_limit=min(
                    self._limits.default_timeline_events if limit is None else limit, self._limits.max_timeline_events
                ),
                state_after=state_after,
                ignored=await self._account_data.ignored_users(requester.user_id),
            )
            try:
                if since is None or full_state or now > since or now > got:
                    part = self._devices.known(device, since)
                    if part is None:
                        part = await self._devices.make(requester, since=since, got=got, now=now)
                    body = await self._answer(request, part)
                else:
                    body = None
            except _MovedOn:
                continue
            remaining = deadline - time.monotonic()
            if body is not None or remaining <= 0 or self._notifier.stopping:
                if body is None:
                    quiet = self._devices.quiet.get(device)
                    body = _empty(now, await self._devices.empty(device) if quiet is None else quiet.json)
                return body
            if self._stream.current == now:
                await self._notifier.wait(requester.user_id, remaining)
            since = got = now

    async def _answer(self, request: SyncRequest, devices: DevicePart) -> bytes | None:
        """The answer, or None if there is no news in it. Raises _MovedOn."""
        user_id = request.requester.user_id
        user_rooms = await self._user_rooms.load(user_id)
        account_data = await self._account_data.changed(user_id, request.since, request.now)
        wanted = await self._rooms_with_news(request, user_rooms, account_data)
        new = [user_room for user_room in wanted if user_room.position > request.since]
        if any(user_room.position > request.now for user_room in new):
            raise _MovedOn
        sections: Sections = {"join": {}, "invite": {}, "knock": {}, "leave": {}}
        if len(wanted) == 1:
            await self._add_section(request, wanted[0], account_data, sections)
        elif wanted:
            await self._add_sections(request, wanted, account_data, sections)
        own = [
            account_data_json(row)
            for row in account_data
            if row.room == GLOBAL and request.filter.account_data.allows(row.type, None)
        ]
        is_initial = not request.since or request.full_state
        presence: list[bytes] = []
        if new or is_initial or self._presence.last_position > request.since:
            since = 0 if is_initial else request.since
            presence = await self._presence.events(user_id, since, new, request.filter.presence)
        if not (is_initial or own or presence or devices.has_news or any(sections.values())):
            return None
        parts = [b'{"next_batch":"', encode_sync_token(request.now, devices.got).encode(), b'"']
        if own or is_initial:
            parts += (b',"account_data":{"events":[', b",".join(own), b"]}")
        if presence:
            parts += (b',"presence":{"events":[', b",".join(presence), b"]}")
        parts += (b',"rooms":', _sections_json(sections), devices.json, b"}")
        return b"".join(parts)

    async def _rooms_with_news(
        self, request: SyncRequest, user_rooms: dict[str, UserRoom], account_data: Sequence[AccountDataRow]
    ) -> list[UserRoom]:
        """The user's rooms that may have something to tell, filtered."""
        room_filter = request.filter.room
        if not request.since or request.full_state:
            shown = ("join", "invite", "knock", "leave", "ban") if room_filter.include_leave else VISIBLE
            found = [
                r
                for r in user_rooms.values()
                if (r.membership in shown or (request.since and r.position > request.since)) and not r.forgotten
            ]
        else:
            changed = self._changes.since(request.since)
            if changed is None:
                changed = await self._rooms.load_changed_rooms(request.requester.user_id, request.since)
                changed |= {r.room_id for r in user_rooms.values() if r.position > request.since}
            if len(changed) > len(user_rooms):
                found = [r for room_id, r in user_rooms.items() if room_id in changed]
            else:
                found = [r for room_id in changed if (r := user_rooms.get(room_id)) is not None]
            if numbers := {row.room for row in account_data if row.room != GLOBAL}:
                found += [r for r in user_rooms.values() if r.room in numbers and r.room_id not in changed]
            found = [r for r in found if r.membership == "join" or (r.position > request.since and not r.forgotten)]
        if room_filter.rooms is None and not room_filter.not_rooms:
            return found
        return [r for r in found if room_filter.allows_room(r.room_id)]

    async def _add_sections(
        self, request: SyncRequest, wanted: list[UserRoom], account_data: Sequence[AccountDataRow], sections: Sections
    ) -> None:
        """Adds many rooms: a few at a time where rooms have to be read first."""
        cold = [user_room for user_room in wanted if self._registry.known(user_room.room_id) is None]
        if cold:
            gate = asyncio.Semaphore(ROOMS_AT_ONCE)

            async def warm(user_room: UserRoom) -> None:
                async with gate:
                    await self._registry.load(user_room.room_id)

            await asyncio.gather(*(warm(user_room) for user_room in cold))
        for user_room in wanted:
            await self._add_section(request, user_room, account_data, sections)

    async def _add_section(
        self, request: SyncRequest, user_room: UserRoom, account_data: Sequence[AccountDataRow], sections: Sections
    ) -> None:
        room = self._registry.known(user_room.room_id) or await self._registry.load(user_room.room_id)
        own = [row for row in account_data if row.room == user_room.room]
        if own:
            own = filter_account_data(own, user_room.room_id, request.filter.room.account_data)
        match user_room.membership:
            case "join":
                if room is None:
                    return
                section = await self._sections.joined(request, room, user_room, own)
                if section is not None:
                    sections["join"][room.room_id] = section
            case "invite" | "knock" as membership:
                stripped = await self._sections.stripped(request, room, user_room)
                if stripped is not None:
                    sections[membership][user_room.room_id] = b'{"%s_state":{"events":%s}}' % (
                        membership.encode(),
                        stripped,
                    )
            case _:
                sections["leave"][user_room.room_id] = await self._sections.left(request, room, user_room, own)


VISIBLE = ("join", "invite", "knock")


def _empty(now: int, devices: bytes) -> bytes:
    return b'{"next_batch":"%s","rooms":{}%s}' % (encode_token(now).encode(), devices)


def _sections_json(sections: Sections) -> bytes:
    parts = []
    for name, rooms in sections.items():
        if rooms:
            inner = b",".join([orjson.dumps(room_id) + b":" + section for room_id, section in rooms.items()])
            parts.append(b'"' + name.encode() + b'":{' + inner + b"}")
    return b"{" + b",".join(parts) + b"}"

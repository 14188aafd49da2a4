"""One room's part of a /sync answer.

https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3sync
"""

from __future__ import annotations

from collections.abc import Awaitable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from homeserver.clock import Clock
from homeserver.services.account_data import AccountData
from homeserver.services.accounts.sessions import Requester
from homeserver.services.aggregations import Aggregations, View
from homeserver.services.client_events import ClientEvents, client_json, serialise
from homeserver.services.receipts import Receipts
from homeserver.services.rooms.access import NOBODY, Access, Reader
from homeserver.services.rooms.event_cache import EventCache
from homeserver.services.rooms.membership_history import UNKNOWN, MembershipHistory, load_membership_history
from homeserver.services.rooms.room import MEMBER, Room
from homeserver.services.rooms.stripped_state import STRIPPED_STATE, foreign_stripped_state, stripped_event
from homeserver.services.rooms.timelines import Slice, Timelines
from homeserver.services.rooms.user_rooms import UserRoom
from homeserver.services.sync.lazy_members import LazyMembers
from homeserver.services.sync.state_changes import before_timeline, is_resolved_since, state_since
from homeserver.services.sync.summary import heroes_of, is_named, summarise
from homeserver.services.sync.tokens import encode_token
from homeserver.services.sync.unread_section import unread_json
from matrix.filters import Filter, RoomEventFilter, select_fields
from storage.events import EventKind, StoredEvent
from storage.user_data import AccountDataRow

NO_BUNDLES: Mapping[int, bytes] = {}


@dataclass(slots=True)
class SyncRequest:
    """One turn of a sync: what is asked by whom, in after `since` (0: from the beginning) up to `now`.

    With `state_after` the state is told as it is at the timelines' ends, and else as it was at their beginnings.
    """

    requester: Requester
    filter: Filter
    since: int
    now: int
    full_state: bool
    timeline_limit: int
    state_after: bool = False
    ignored: frozenset[str] = frozenset()

    @property
    def state_name(self) -> bytes:
        """What the state of a room is called in the answer."""
        return b"state_after" if self.state_after else b"state"

    @property
    def shows_all_messages(self) -> bool:
        """Whether the filter lets every message through unchanged, whatever it does to other things."""
        chosen = self.filter
        return chosen.room.timeline.is_trivial and chosen.event_fields is None and chosen.event_format == "client"


class RoomSections:
    """Makes the parts of an answer that belong to rooms."""

    def __init__(
        self,
        access: Access,
        events: EventCache,
        timelines: Timelines,
        client_events: ClientEvents,
        aggregations: Aggregations,
        receipts: Receipts,
        account_data: AccountData,
        clock: Clock,
        *,
        started_at: int,
    ) -> None:
        self._access = access
        self._events = events
        self._timelines = timelines
        self._client_events = client_events
        self._aggregations = aggregations
        self._receipts = receipts
        self._account_data = account_data
        self._clock = clock
        self._started_at = started_at
        self._lazy_members = LazyMembers()

    async def joined(
        self, request: SyncRequest, room: Room, user_room: UserRoom, account_data: Sequence[AccountDataRow]
    ) -> bytes | None:
        """The part of a room that the user is in; None when there is nothing to tell."""
        user_id = request.requester.user_id
        if not account_data and (shared := self._shared(request, room, user_room)) is not None:
            if request.state_after:
                shared += b',"state_after":{"events":[]}'
            return shared + await self._unread_json(request, room) + b"}"
        # Whose members have come to be known since then is told whole.
        is_new = user_room.position > request.since or request.full_state or room.completed_position > request.since
        since = 0 if user_room.position > request.since else request.since
        erased = room.erased_before(user_room.position) if room.erased else NOBODY
        reader = Reader(room, user_id, None, "join", request.ignored, erased)
        timeline = Slice((), False, since)
        if has_news := room.last_position > since:
            timeline = await self._timelines.newest(
                reader,
                after=since,
                up_to=request.now,
                limit=request.timeline_limit,
                event_filter=request.filter.room.timeline,
            )
        state: dict[tuple[str, str], int] = {}
        if request.state_after:
            if is_new or has_news:
                state = await self._state_after(request, room, 0 if is_new else since)
        # Otherwise every change of the state stands in the timeline.
        elif (
            is_new
            or timeline.limited
            or (has_news and (not request.filter.room.timeline.is_trivial or is_resolved_since(room, since)))
        ):
            state = await self._state_before(request, room, timeline.events, 0 if is_new else since)
        state_events = await self._state_events(request, room, state, timeline.events, is_new=is_new, gap_after=since)
        ephemeral = await self._ephemeral(request, room, 0 if is_new else since)
        if not (is_new or timeline.events or state_events or ephemeral or account_data or timeline.limited):
            return None
        parts = [
            b'{"timeline":',
            await self._timeline_json(request, timeline, reader, MembershipHistory((user_room.position,), ("join",))),
            b',"%s":{"events":[' % request.state_name,
            await self._events_json(request, state_events),
            b']},"ephemeral":{"events":',
            orjson.dumps(ephemeral),
            b'},"account_data":{"events":[',
            b",".join(account_data_json(row) for row in account_data),
            b"]}",
            await self._unread_json(request, room),
            b',"summary":',
            orjson.dumps(summarise(room, user_id) if is_new or _has_members(timeline.events, state_events) else {}),
            b"}",
        ]
        return b"".join(parts)

    async def _state_before(
        self, request: SyncRequest, room: Room, timeline: Sequence[StoredEvent], since: int
    ) -> dict[tuple[str, str], int]:
        """What the state was before a timeline slice that ends now, without what is older than `since`."""
        if room.timeline_after <= request.now:
            later = [event for event in room.timeline if event.position > request.now]
            state = state_since(room.state, since, room.resolved)
        else:  # while this answer was made the room has moved on further than memory goes back
            last = await self._events.load_timeline(room.room, after=0, up_to=request.now, limit=1, backwards=True)
            later = []
            state = state_since(await self._access.state_at(room, last[0].snapshot), since)
        return before_timeline(state, [*timeline, *later], since)

    async def _state_after(self, request: SyncRequest, room: Room, since: int) -> dict[tuple[str, str], int]:
        """What of the state now is newer than `since`: what memory has of the timeline tells, if it goes that far."""
        if not since or room.timeline_after > since or is_resolved_since(room, since):
            return await self._state_before(request, room, (), since)
        return {
            event.pdu.state_key_pair: event.position
            for event in room.timeline
            if since < event.position <= request.now and event.pdu.state_key is not None
        }

    def _shared(self, request: SyncRequest, room: Room, user_room: UserRoom) -> bytes | None:
        """What every member is told of a room where there are only new messages: made once, for whoever asks next.

        All but the unread counts, which are each member's own. None where somebody may have to be told more or less.
        """
        since, device = request.since, request.requester.device
        is_plain = (
            user_room.position <= since
            and room.receipts_position <= since
            and room.typing_position <= since
            and max(room.timeline_after, room.completed_position, self._started_at)
            <= since
            < room.last_position
            <= request.now
            and not request.full_state
            and request.shows_all_messages
            and self._access.sees_everything(Reader(room, request.requester.user_id, None, "join"))
        )
        if not is_plain:
            return None
        begin = len(room.timeline)
        while begin and room.timeline[begin - 1].position > since:
            begin -= 1
        events = room.timeline[begin:]
        is_special = any(event.pdu.state_key is not None or event.device == device for event in events)
        if is_special or len(events) > request.timeline_limit:
            return None
        if request.ignored and any(event.pdu.sender in request.ignored for event in events):
            return None
        if request.filter.room.state.lazy_load_members:
            senders = {event.pdu.sender: room.state["m.room.member", event.pdu.sender] for event in events}
            is_redundant = request.filter.room.state.include_redundant_members
            if is_redundant or self._lazy_members.unsent(device, room.room, senders, since):
                return None
        key = (events[0].position, events[-1].position)
        if room.shared_section[0] != key:
            if not all(self._client_events.prepare_new(event) for event in events):
                return None
            room.shared_section = (key, self._shared_json(request, events))
        return room.shared_section[1]

    def _shared_json(self, request: SyncRequest, events: Sequence[StoredEvent]) -> bytes:
        timeline = b",".join(
            [
                serialise(event, now_ms=self._clock(), device=None, membership="join", with_room_id=False)
                for event in events
            ]
        )
        prev_batch = encode_token(events[0].position - 1).encode()
        return b'{"timeline":{"events":[%s],"limited":false,"prev_batch":"%s"}' % (timeline, prev_batch)

    def _unread_json(self, request: SyncRequest, room: Room) -> Awaitable[bytes]:
        by_thread = request.filter.room.timeline.unread_thread_notifications
        return unread_json(self._receipts, room, request.requester.user_id, by_thread=by_thread)

    async def left(
        self, request: SyncRequest, room: Room | None, user_room: UserRoom, account_data: Sequence[AccountDataRow]
    ) -> bytes:
        """The part of a room that the user has left or was banned from: up to that event and no further.

        What they keep for themselves of the room goes on. Of a room that this server was never in there is only that
        event to tell.
        """
        leaving = (await self._events.load([user_room.position]))[user_room.position]
        if room is None or leaving.kind == EventKind.OUTLIER:
            told = await self._events_json(request, [leaving])
            return b'{"timeline":{"events":[%s],"limited":false},"%s":{"events":[]},"account_data":{"events":[]}}' % (
                told,
                request.state_name,
            )
        user_id = request.requester.user_id
        erased = await self._access.erased_for(room, user_id)
        reader = Reader(room, user_id, user_room.position, user_room.membership, request.ignored, erased)
        timeline = await self._timelines.newest(
            reader,
            after=request.since,
            up_to=min(user_room.position, request.now),
            limit=request.timeline_limit,
            event_filter=request.filter.room.timeline,
        )
        if not timeline.events:
            timeline = Slice((leaving,), False, user_room.position - 1)  # one always sees oneself leave
        history = await load_membership_history(self._events, room, user_id, timeline.events[0].position)
        state = await self._state_when_left(request, room, timeline)
        state_events = await self._state_events(
            request, room, state, timeline.events, is_new=False, gap_after=request.since
        )
        state_events = [event for event in state_events if event.position <= user_room.position]
        return b"".join(
            (
                b'{"timeline":',
                await self._timeline_json(request, timeline, reader, history),
                b',"%s":{"events":[' % request.state_name,
                await self._events_json(request, state_events),
                b']},"account_data":{"events":[',
                b",".join(account_data_json(row) for row in account_data),
                b"]}}",
            )
        )

    async def _state_when_left(self, request: SyncRequest, room: Room, timeline: Slice) -> dict[tuple[str, str], int]:
        """The state before (or after) the timeline of a room that the user has left, as far as they have not been told.

        It is that of the moment when they were last in the room: who only declined an invitation is told nothing, and
        who was banned later nothing newer.
        """
        since = request.since
        left_at = await self._access.left_at(room, request.requester.user_id)
        if left_at is None or left_at <= since:
            return {}
        event = (await self._events.load([left_at]))[left_at]
        snapshot = event.snapshot
        while event.position > since and event.replaces is not None:
            event = (await self._events.load([event.replaces]))[event.replaces]
        if event.position > since or event.pdu.content.get("membership") != "join":
            since = 0  # they have come and gone since then
        elif not (timeline.limited or request.state_after):
            return {}
        state = state_since(await self._access.state_at(room, snapshot), since)
        return state if request.state_after else before_timeline(state, timeline.events, since)

    async def stripped(self, request: SyncRequest, room: Room | None, user_room: UserRoom) -> bytes | None:
        """The stripped state of a room that the user is invited to or has knocked on, as an array.

        None for an invite that is not shown, as it is by somebody whom the user ignores, or they want none.
        https://spec.matrix.org/v1.19/client-server-api/#ignoring-users
        https://spec.matrix.org/v1.19/client-server-api/#invite-permission
        """
        member = (await self._events.load([user_room.position]))[user_room.position]
        if member.pdu.sender in request.ignored:
            return None
        if user_room.membership == "invite" and await self._account_data.blocks_invites(request.requester.user_id):
            return None
        if room is None or member.kind == EventKind.OUTLIER:
            return orjson.dumps(foreign_stripped_state(member))
        shown = [event for type in STRIPPED_STATE if (event := room.pinned.get((type, ""))) is not None]
        inviter = room.state.get(("m.room.member", member.pdu.sender))
        if inviter is not None and inviter != member.position:
            shown += (await self._events.load([inviter])).values()
        return orjson.dumps([stripped_event(event.pdu) for event in (*shown, member)])

    async def _state_events(
        self,
        request: SyncRequest,
        room: Room,
        state: Mapping[tuple[str, str], int],
        timeline: Sequence[StoredEvent],
        *,
        is_new: bool,
        gap_after: int,
    ) -> list[StoredEvent]:
        """The state events to send, of `state` (what changed before the timeline), filtered and lazily loaded."""
        state_filter = request.filter.room.state
        if not state_filter.allows_room(room.room_id):
            return []
        if not state_filter.lazy_load_members or _has_asked_in_vain(request, room):
            positions = list(state.values())
        else:
            positions = [position for key, position in state.items() if key[0] != "m.room.member"]
            positions += self._lazy_members_of(request, room, state, timeline, is_new=is_new, gap_after=gap_after)
        if not positions:
            return []
        loaded = await self._events.load(positions)
        events = [loaded[position] for position in sorted(set(positions))]
        return [event for event in events if state_filter.is_trivial or state_filter.matches(event.pdu.json)]

    def _lazy_members_of(
        self,
        request: SyncRequest,
        room: Room,
        state: Mapping[tuple[str, str], int],
        timeline: Sequence[StoredEvent],
        *,
        is_new: bool,
        gap_after: int,
    ) -> list[int]:
        """The member events that the device needs: of the timeline's senders, at first of the user, and of the heroes.

        Who came, left or changed since what it was told last, which ends at `gap_after` (0: nothing), is not left out.
        https://spec.matrix.org/v1.19/client-server-api/#lazy-loading-room-members
        """
        changed = {event.pdu.state_key or "": event for event in timeline if _is_member(event)}
        wanted = dict.fromkeys(event.pdu.sender for event in timeline)
        if request.state_after:
            wanted.update(dict.fromkeys(changed))  # who is not told here that they came or left is not told at all
        if is_new:
            wanted[request.requester.user_id] = None
        if (is_new or _has_members(timeline)) and not is_named(room):
            wanted.update(dict.fromkeys(heroes_of(room, request.requester.user_id)))
        members: dict[str, int] = {}
        for user_id in wanted:
            key = ("m.room.member", user_id)
            if user_id in changed and not request.state_after:
                position = state.get(key)
                if not is_new and position is None:
                    continue  # the timeline brings it
            else:
                position = state.get(key) or room.state.get(key)
            if position is not None:
                members[user_id] = position
        device = request.requester.device
        if not request.filter.room.state.include_redundant_members:
            since = request.since if not is_new else 0
            members = self._lazy_members.unsent(device, room.room, members, since)
        if gap_after:
            # Those who came to be known together with all others are not news by themselves.
            known = room.completed_position
            members |= {
                key[1]: at
                for key, at in state.items()
                if key[0] == MEMBER and at > gap_after and (at > known or key[1].endswith(room.domain))
            }
        self._lazy_members.note(device, room.room, members, request.now)
        return list(members.values())

    async def _ephemeral(self, request: SyncRequest, room: Room, since: int) -> list[dict[str, Any]]:
        """Typing and receipts that changed."""
        ephemeral_filter = request.filter.room.ephemeral
        found: list[dict[str, Any]] = []
        if not ephemeral_filter.allows_room(room.room_id):
            return found
        # Who was typing before a restart is not known any more: nobody does.
        has_changed = since < room.typing_position <= request.now or since < self._started_at
        if has_changed and (since or room.typing):
            found.append({"type": "m.typing", "content": {"user_ids": list(room.typing)}})
        found += await self._receipts.ephemeral(room, request.requester.user_id, since, request.now)
        if ephemeral_filter.is_trivial:
            return found
        return [event for event in found if ephemeral_filter.matches(event)]

    async def _timeline_json(
        self, request: SyncRequest, timeline: Slice, reader: Reader, history: MembershipHistory
    ) -> bytes:
        bundled: Mapping[int, bytes] = NO_BUNDLES
        if timeline.limited:  # otherwise whatever relates to these events is told as well, and summed up by the client
            view = View(self._clock(), request.requester.device, with_room_id=False)
            bundled = await self._aggregations.bundled(reader, timeline.events, view)
        events = await self._events_json(request, timeline.events, history, bundled)
        limited = b"true" if timeline.limited else b"false"
        prev_batch = encode_token(timeline.start).encode()
        return b'{"events":[' + events + b'],"limited":' + limited + b',"prev_batch":"' + prev_batch + b'"}'

    async def _events_json(
        self,
        request: SyncRequest,
        events: Sequence[StoredEvent],
        history: MembershipHistory = UNKNOWN,
        bundled: Mapping[int, bytes] = NO_BUNDLES,
    ) -> bytes:
        """Events as the members of an array, with their aggregations and the user's membership at them."""
        await self._client_events.prepare(events)
        now_ms, device = self._clock(), request.requester.device
        sync_filter = request.filter
        if sync_filter.event_fields is None and sync_filter.event_format == "client":
            return b",".join(
                [
                    serialise(
                        event,
                        now_ms=now_ms,
                        device=device,
                        membership=history.at(event.position),
                        with_room_id=False,
                        relations=bundled.get(event.position),
                    )
                    for event in events
                ]
            )
        shaped = []
        for event in events:
            if sync_filter.event_format == "federation":
                fields = event.pdu.json
            else:
                fields = client_json(
                    event,
                    now_ms=now_ms,
                    device=device,
                    membership=history.at(event.position),
                    with_room_id=False,
                    relations=bundled.get(event.position),
                )
            if sync_filter.event_fields is not None:
                fields = select_fields(fields, sync_filter.event_fields)
            shaped.append(orjson.dumps(fields))
        return b",".join(shaped)


def account_data_json(row: AccountDataRow) -> bytes:
    """An account data event."""
    return b'{"type":' + orjson.dumps(row.type) + b',"content":' + row.content + b"}"


def filter_account_data(rows: Iterable[AccountDataRow], room_id: str, chosen: RoomEventFilter) -> list[AccountDataRow]:
    """The account data of a room that a filter lets through."""
    return [row for row in rows if chosen.allows(row.type, None)] if chosen.allows_room(room_id) else []


def _has_members(*groups: Iterable[StoredEvent]) -> bool:
    return any(event.pdu.type == "m.room.member" for group in groups for event in group)


def _has_asked_in_vain(request: SyncRequest, room: Room) -> bool:
    """Whether a user may have asked for all members before they were known, and will not ask again."""
    is_news = 0 < request.since < room.completed_position <= request.now
    return is_news and (room.asked_members is None or request.requester.user_id in room.asked_members)


def _is_member(event: StoredEvent) -> bool:
    return event.pdu.type == "m.room.member" and event.pdu.state_key is not None

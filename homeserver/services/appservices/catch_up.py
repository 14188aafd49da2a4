"""Which events interested a service that were published while nobody noted it: before a start, or too many at once.

What is read is the stream as it is stored. Whether a service's user was in a room at an event is known without a look
at the room's past where one is in it now and was so already then, as nearly always; else the state at the event tells.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from homeserver.services.appservices.interest import is_named
from homeserver.services.appservices.services import Service
from homeserver.services.rooms.event_cache import EventCache
from storage.appservices import AppserviceRepository, PassingRow
from storage.rooms import RoomRepository
from storage.snapshots import SnapshotRepository

EVENTS_AT_ONCE = 1_000
ABOUT_USERS = ("m.room.create", "m.room.member")


class Found(NamedTuple):
    """Positions of interesting events, in order, and up to where there are no others."""

    positions: Sequence[int]
    up_to: int


class _RoomView(NamedTuple):
    """A room as a service sees it: since when it hears of everything there, if it does, and who of it ever was in it.

    `members` are the numbers that its users' memberships have in snapshots.
    """

    since: float
    members: Sequence[int]


class CatchUp:
    """Reads on in the stream for a service."""

    def __init__(
        self,
        repository: AppserviceRepository,
        rooms: RoomRepository,
        snapshots: SnapshotRepository,
        events: EventCache,
        *,
        server_name: str,
    ) -> None:
        self._repository = repository
        self._rooms = rooms
        self._snapshots = snapshots
        self._events = events
        self._domain = ":" + server_name

    async def find(self, service: Service, after: int, up_to: int) -> Found:
        """The interesting ones among the next EVENTS_AT_ONCE events in after < position <= up_to."""
        rows = await self._repository.load_passing(after, up_to, EVENTS_AT_ONCE)
        views = await self._views(service, {row.room for row in rows})
        rest = [row for row in rows if row.position < views[row.room].since]
        targets = await self._targets(service, rest)
        was_in: dict[tuple[int, int], bool] = {}
        found = []
        for row in rows:
            view = views[row.room]
            if row.position >= view.since or row.position in targets:
                found.append(row.position)
            elif view.members:
                key = (row.room, row.snapshot)
                if key not in was_in:
                    was_in[key] = await self._was_in(view, row.snapshot)
                if was_in[key]:
                    found.append(row.position)
        return Found(found, rows[-1].position if len(rows) == EVENTS_AT_ONCE else up_to)

    async def _views(self, service: Service, rooms: Iterable[int]) -> Mapping[int, _RoomView]:
        room_ids = await self._rooms.load_room_ids(rooms)
        since: dict[int, float] = {}
        for room, user_id, position in await self._repository.load_local_joins(room_ids, self._domain):
            if service.covers_user(user_id):
                since[room] = min(position, since.get(room, position))
        aliases: dict[int, list[str]] = {}
        for alias, room in await self._repository.load_aliases_of_rooms(room_ids):
            aliases.setdefault(room, []).append(alias)
        views = {}
        for room, room_id in room_ids.items():
            if is_named(service, room_id, aliases.get(room, ())):
                views[room] = _RoomView(0, ())
                continue
            keys = await self._repository.load_member_keys(room)
            members = [key for key, user_id in keys if service.covers_user(user_id)]
            views[room] = _RoomView(since.get(room, float("inf")), members)
        return views

    async def _targets(self, service: Service, rows: Iterable[PassingRow]) -> set[int]:
        """The positions of member events about the service's users, and of rooms that they have made."""
        events = await self._events.load([row.position for row in rows if row.type in ABOUT_USERS])
        targets = set()
        for position, event in events.items():
            pdu = event.pdu
            user_id = pdu.sender if pdu.type == "m.room.create" else pdu.state_key
            if user_id is not None and service.covers_user(user_id):
                targets.add(position)
        return targets

    async def _was_in(self, view: _RoomView, snapshot: int) -> bool:
        """Whether one of the members is joined in a snapshot."""
        positions = await self._snapshots.load_keys(snapshot, view.members)
        events = await self._events.load(positions.values())
        return any(event.pdu.content.get("membership") == "join" for event in events.values())

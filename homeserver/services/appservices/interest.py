"""Which events interest which application services, as they are published.

https://spec.matrix.org/v1.19/application-service-api/#registration

A service hears of a whole room while one of its users is joined to it, or the room itself or one of its aliases is in
the service's namespaces; of member events about its users anywhere; and of the first event of a room that one of them
makes, who is not in it yet. What is true of a room is worked out once, and then follows the memberships: a message
costs a look into a dictionary.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from homeserver.services.appservices.services import Service, Services
from homeserver.services.rooms.room import Room
from storage.events import StoredEvent

MAX_ROOMS = 10_000


class Interest:
    """Who is interested in the rooms that something happens in. Rooms are kept until there are too many."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._rooms: dict[int, dict[Service, int]] = {}
        services.on_changed.append(lambda _: self._rooms.clear())

    def forget(self, room: Room) -> None:
        """Has it worked out anew who is interested in a room: its aliases have changed."""
        self._rooms.pop(room.room, None)

    def of_room(self, room: Room) -> Collection[Service]:
        """The services that hear of everything in a room."""
        found = self._rooms.get(room.room)
        return self._add(room) if found is None else found

    def reasons(self, room: Room, service: Service) -> int:
        """For how many reasons a service hears of a room: its users in it, its name, its aliases."""
        known = self._rooms.get(room.room)
        return (self._add(room) if known is None else known).get(service, 0)

    def of_event(self, room: Room, event: StoredEvent, before: str | None) -> Iterable[Service]:
        """The services that a published event interests. `before` is a member's membership before the event."""
        pdu = event.pdu
        if pdu.type == "m.room.create":
            return {*self.of_room(room), *self._services.of_user(pdu.sender)}
        if pdu.type != "m.room.member" or pdu.state_key is None:
            return self.of_room(room)
        known = self._rooms.get(room.room)
        services = self._services.of_user(pdu.state_key)
        if known is None:
            known = self._add(room)
        elif services:
            change = (room.membership(pdu.state_key) == "join") - (before == "join")
            for service in services:
                _count(known, service, change)
        return {**known, **dict.fromkeys(services, 0)} if services else known

    def _add(self, room: Room) -> dict[Service, int]:
        """Works out who is interested in a room, from what is published of it."""
        found: dict[Service, int] = {}
        for service in self._services.all():
            if is_named(service, room.room_id, room.aliases):
                _count(found, service, 1)
        for user_id in room.local_joined:
            for service in self._services.of_user(user_id):
                _count(found, service, 1)
        if len(self._rooms) >= MAX_ROOMS:
            del self._rooms[next(iter(self._rooms))]
        self._rooms[room.room] = found
        return found


def is_named(service: Service, room_id: str, aliases: Iterable[str]) -> bool:
    """Whether a room is in a service's namespaces by itself, whoever is in it."""
    return service.covers_room(room_id) or any(map(service.covers_alias, aliases))


def _count(counts: dict[Service, int], service: Service, change: int) -> None:
    """Counts reasons to be interested, and forgets a service that has none left."""
    count = counts.get(service, 0) + change
    if count > 0:
        counts[service] = count
    else:
        counts.pop(service, None)

"""What the algorithms share: their input, and how they say that a part of it is not there yet."""

from collections.abc import Callable, Collection, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass

from matrix.pdu import Pdu
from matrix.room_versions import RoomVersion

EventId = str
StateKey = tuple[str, str]
"""(type, state_key)."""
StateMap = Mapping[StateKey, EventId]
"""https://spec.matrix.org/v1.19/server-server-api/#room-state-resolution"""


class MissingEvents(Exception):
    """The resolution needs events that it was not given: load these and call again.

    They are all that can be told to be missing by now. As an event's `auth_events` are known only once it is there,
    whoever loads the auth chains of these events along with them is spared further rounds.
    """

    def __init__(self, event_ids: Iterable[EventId]) -> None:
        """Ask for events by their IDs."""
        self.event_ids = frozenset(event_ids)
        super().__init__(f"{len(self.event_ids)} events are missing")


class ChainsTooLong(Exception):
    """The auth chains of the events in conflict need more memory than a resolution may have: a server made them up."""


@dataclass(frozen=True, slots=True)
class Conflict:
    """The states to be resolved, with nothing in them but what differs."""

    room_version: RoomVersion
    state_sets: Sequence[StateMap]
    """The entries of each state whose keys do not have the same event in all of them, or are absent in some."""
    unconflicted: Callable[[StateKey], EventId | None]
    """The event that all states have under a key; None if there is no such event."""
    unconflicted_ids: Callable[[], Collection[EventId]]
    """All events of the unconflicted state map; asked for in rare cases only."""
    events: Mapping[EventId, Pdu]
    rejected: Container[EventId]

    @property
    def event_ids(self) -> set[EventId]:
        """The conflicted state set, https://spec.matrix.org/v1.19/rooms/v2/#definitions."""
        return {event_id for state_set in self.state_sets for event_id in state_set.values()}

    def unconflicted_pdu(self, key: StateKey) -> Pdu | None:
        """Return the event that all states have under the key, which must be among the events."""
        event_id = self.unconflicted(key)
        return None if event_id is None else self.events[event_id]

    def create_id(self, pdu: Pdu) -> EventId | None:
        """Return the ID of the m.room.create that the event names by its room's ID, where the room version has that."""
        return "$" + pdu.room_id[1:] if self.room_version.room_id_is_create_event_hash else None


def check_present(event_ids: Iterable[EventId], events: Mapping[EventId, Pdu]) -> None:
    """Raise MissingEvents if any of them is."""
    missing = [event_id for event_id in event_ids if event_id not in events]
    if missing:
        raise MissingEvents(missing)

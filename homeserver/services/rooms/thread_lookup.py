"""In which thread an event is that relates to another."""

from __future__ import annotations

from homeserver.services.rooms.event_cache import EventCache
from homeserver.services.rooms.room import Room
from matrix.relations import THREAD, Relation, relation_of
from storage.unread import UnreadRepository


class ThreadLookup:
    """Follows relationships to a thread.

    https://spec.matrix.org/v1.19/client-server-api/#threaded-read-receipts
    """

    def __init__(self, events: EventCache, repository: UnreadRepository) -> None:
        self._events = events
        self._repository = repository

    async def thread_of_child(self, room: Room, relation: Relation) -> str | None:
        """The thread of a new event in a room that relates to another like this; None for the main timeline.

        What is related to an event in a thread is in that thread too. One step is enough: it was taken for the parent.
        """
        if relation.rel_type == THREAD:
            return relation.event_id
        parent = await self._events.load_id(relation.event_id)
        if parent is None or parent.room != room.room:
            return None
        of_parent = relation_of(parent.pdu.content)
        if of_parent is None and parent.redacted_by is None:
            return None
        if of_parent is not None and of_parent.rel_type == THREAD:
            return of_parent.event_id
        return (await self._repository.load_threads_of_events(room.room, [parent.position])).get(parent.position)

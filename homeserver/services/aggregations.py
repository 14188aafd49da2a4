"""Bundled aggregations: what relates to an event, summed up and served along with it.

https://spec.matrix.org/v1.19/client-server-api/#aggregations-of-child-events

1. Leave aside the events that nothing relates to: nearly all, and known without looking. State events get no bundles.
2. Have what relates to the others (`Children`): it is kept with an event until something else relates to it.
3. Bring it down to what the reader may see and does not ignore.
4. Serialise the events that are in bundles, those of the newest event of a thread with a bundle of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import orjson

from homeserver.services.client_events import ClientEvents, serialise
from homeserver.services.rooms.access import Access, Reader
from homeserver.services.rooms.erasure import as_redacted, is_erased
from homeserver.services.rooms.event_cache import EventCache
from matrix.relations import REFERENCE, REPLACE, THREAD, relation_of
from storage.events import StoredEvent
from storage.relations import MAX_REFERENCES, NO_CHILDREN, Children, RelationRepository

MAX_JUDGED_CHILDREN = 500
"""How many of an event's newest children are looked at for a reader who may not see all of the room's history."""


class View(NamedTuple):
    """How events are shown in an answer (see `serialise`)."""

    now_ms: int
    device: int | None
    with_room_id: bool


class Thread(NamedTuple):
    """A thread as a reader sees it: how many events, and the position of the latest."""

    events: int
    latest: int
    participated: bool


class Bundle(NamedTuple):
    """The aggregations of one event for one reader. `edit` is a position, `references` are event IDs."""

    edit: int | None
    thread: Thread | None
    references: tuple[str, ...]


class Aggregations:
    """Makes bundles for readers."""

    def __init__(
        self, relations: RelationRepository, events: EventCache, client_events: ClientEvents, access: Access
    ) -> None:
        self._relations = relations
        self._events = events
        self._client_events = client_events
        self._access = access

    async def bundled(self, reader: Reader, events: Iterable[StoredEvent], view: View) -> dict[int, bytes]:
        """`m.relations` of those events that have any, by position."""
        bundles = await self.bundles(reader, events)
        if not bundles:
            return {}
        threads = [bundle.thread.latest for bundle in bundles.values() if bundle.thread is not None]
        edits = [bundle.edit for bundle in bundles.values() if bundle.edit is not None]
        shown = await self._events.load([*threads, *edits])
        if reader.erased:
            shown = {p: as_redacted(e) if is_erased(e, reader.erased) else e for p, e in shown.items()}
        await self._client_events.prepare(shown.values())
        # An event in a thread is no root of another, so this goes no deeper.
        inner = await self.bundled(reader, [shown[position] for position in threads], view)

        def show(position: int) -> orjson.Fragment:
            json = serialise(
                shown[position],
                now_ms=view.now_ms,
                device=view.device,
                membership=None,
                with_room_id=view.with_room_id,
                relations=inner.get(position),
            )
            return orjson.Fragment(json)

        found = {}
        for position, bundle in bundles.items():
            relations: dict[str, Any] = {}
            if bundle.edit is not None:
                relations[REPLACE] = show(bundle.edit)
            if bundle.thread is not None:
                relations[THREAD] = {
                    "latest_event": show(bundle.thread.latest),
                    "count": bundle.thread.events,
                    "current_user_participated": bundle.thread.participated,
                }
            if bundle.references:
                relations[REFERENCE] = {"chunk": [{"event_id": event_id} for event_id in bundle.references]}
            found[position] = orjson.dumps(relations)
        return found

    async def bundles(self, reader: Reader, events: Iterable[StoredEvent]) -> dict[int, Bundle]:
        """The aggregations of those of a room's events that have any, by position."""
        parents = [event for event in events if event.children is not NO_CHILDREN and event.pdu.state_key is None]
        if not parents:
            return {}
        if self._access.sees_everything(reader):
            children = await self._children(reader, parents)
        else:
            children = await self._visible_children(reader, parents)
        found = {}
        for event in parents:
            bundle = bundle_for(reader, event, children[event.position])
            if bundle != NOTHING:
                found[event.position] = bundle
        return found

    async def _children(self, reader: Reader, parents: Sequence[StoredEvent]) -> dict[int, Children]:
        """What relates to events, from memory or by one query for all of them."""
        unknown = [event for event in parents if event.children is None]
        known = {event.position: event.children for event in parents if event.children is not None}
        if unknown:
            published = self._events.relations_published
            loaded = await self._relations.load_children(reader.room.room, [event.event_id for event in unknown])
            for event in unknown:
                known[event.position] = loaded[event.event_id]
                if published == self._events.relations_published:  # otherwise there may be more by now
                    event.children = loaded[event.event_id]
        return known

    async def _visible_children(self, reader: Reader, parents: Sequence[StoredEvent]) -> dict[int, Children]:
        """The same from the children that a reader may see, each of which is judged."""
        newest = await self._relations.load_newest(
            reader.room.room, [event.event_id for event in parents], limit=MAX_JUDGED_CHILDREN
        )
        loaded = await self._events.load({position for positions in newest.values() for position in positions})
        visible = await self._access.visible_events(reader, [loaded[position] for position in sorted(loaded)])
        by_parent: dict[str, list[StoredEvent]] = {}
        for child in visible:
            if (relation := relation_of(child.pdu.content)) is not None:
                by_parent.setdefault(relation.event_id, []).append(child)
        return {event.position: children_among(event, by_parent.get(event.event_id, ())) for event in parents}


def children_among(parent: StoredEvent, events: Sequence[StoredEvent]) -> Children:
    """What is aggregated of an event's children, given in the order of their positions."""
    edits: list[StoredEvent] = []
    thread: dict[str, tuple[int, int]] = {}
    references: list[tuple[str, str]] = []
    for event in events:
        relation = relation_of(event.pdu.content)
        match relation.rel_type if relation is not None else None:
            case "m.replace" if (event.pdu.sender, event.pdu.type) == (parent.pdu.sender, parent.pdu.type):
                edits.append(event)
            case "m.thread":
                count, _ = thread.get(event.pdu.sender, (0, 0))
                thread[event.pdu.sender] = (count + 1, event.position)
            case "m.reference":
                references.append((event.event_id, event.pdu.sender))
    # https://spec.matrix.org/v1.19/client-server-api/#server-side-aggregation-of-mreplace-relationships
    newest = max(edits, key=lambda event: (event.pdu.origin_server_ts, event.event_id), default=None)
    return Children(None if newest is None else newest.position, thread, tuple(references[-MAX_REFERENCES:]))


NOTHING = Bundle(None, None, ())


def bundle_for(reader: Reader, event: StoredEvent, children: Children) -> Bundle:
    """What of an event's children is served with it: nothing of ignored users, and only what it can have."""
    relation = relation_of(event.pdu.content)
    edit = children.edit
    if event.redacted_by is not None or (relation is not None and relation.rel_type == REPLACE):
        edit = None  # https://spec.matrix.org/v1.19/client-server-api/#validity-of-replacement-events
    if event.pdu.sender in reader.ignored or event.pdu.sender in reader.erased:
        edit = None  # it is by the same user; their roots of threads are shown without what they say
    # What relates to something else is no root: https://spec.matrix.org/v1.19/client-server-api/#threading
    thread = thread_for(reader, event, children.thread) if relation is None else None
    references = tuple([event_id for event_id, sender in children.references if sender not in reader.ignored])
    return Bundle(edit, thread, references)


def thread_for(reader: Reader, root: StoredEvent, senders: Mapping[str, tuple[int, int]]) -> Thread | None:
    """A thread as a reader sees it; None when nobody that they do not ignore has written in it.

    https://spec.matrix.org/v1.19/client-server-api/#server-side-aggregation-of-mthread-relationships
    """
    shown = [of_sender for sender, of_sender in senders.items() if sender not in reader.ignored]
    if not shown:
        return None
    return Thread(
        events=sum(count for count, _ in shown),
        latest=max(position for _, position in shown),
        participated=reader.user_id == root.pdu.sender or reader.user_id in senders,
    )

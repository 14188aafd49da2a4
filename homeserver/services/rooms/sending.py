"""Sending into rooms: messages, state, redactions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from homeserver.services.accounts.sessions import Requester
from homeserver.services.errors import BadJson, Forbidden, MatrixError, NotFound
from homeserver.services.rooms.access import Access
from homeserver.services.rooms.authoring import Authoring, Draft
from homeserver.services.rooms.event_cache import EventCache
from homeserver.services.rooms.missing_state import MissingState
from homeserver.services.rooms.room import NotLoaded, Room
from homeserver.services.rooms.thread_lookup import ThreadLookup
from homeserver.services.rooms.transactions import Transactions
from matrix.canonical_json import encode_canonical_json
from matrix.identifiers import get_domain
from matrix.relations import ANNOTATION, THREAD, Relation, kept_relation, relation_of
from storage.events import EventKind, StoredEvent
from storage.relations import RelationRepository

MAX_LOADS = 8
MAX_COMPARED_ANNOTATIONS = 200
"""How many of a user's newest annotations of one event a new one is compared with."""


class Guard(Protocol):
    """Sends into rooms where events need the signature of a policy server, or do not go onto the tip as it is."""

    def guards(self, room: Room, type: str, state_key: str | None) -> bool:
        """Whether that is so of an event."""

    async def author(self, room: Room, drafts: Callable[[Room], Sequence[Draft]]) -> list[StoredEvent]:
        """Makes the events, one after another, as far as they are signed. Raises MatrixError."""


class Sending:
    """Makes and sends events for users, once the rules allow it, and `guard` where it has to be asked."""

    def __init__(
        self,
        access: Access,
        authoring: Authoring,
        events: EventCache,
        relations: RelationRepository,
        transactions: Transactions,
        threads: ThreadLookup,
        missing: MissingState,
    ) -> None:
        self._access = access
        self._authoring = authoring
        self._events = events
        self._relations = relations
        self._transactions = transactions
        self._threads = threads
        self._missing = missing
        self.guard: Guard | None = None

    def is_guarded(self, room: Room, type: str, state_key: str | None = None) -> bool:
        """Whether an event needs a signature of a policy server, or a place beside some of the room's ends."""
        return self.guard is not None and self.guard.guards(room, type, state_key)

    async def author(self, room: Room, drafts: Callable[[Room], Sequence[Draft]]) -> list[StoredEvent]:
        """Makes the events that `drafts` wants, reading what is not in memory first; returns when they are durable.

        `drafts` is called anew with the room each time, and nothing happens between its last call and the events. It
        may raise NotLoaded too.
        """
        for _ in range(MAX_LOADS):
            if room.stale:
                room = await self._access.access_room(room.room_id)
            try:
                wanted = drafts(room)
                if not wanted:
                    return []
                if self.guard is not None and any(self.is_guarded(room, one.type, one.state_key) for one in wanted):
                    return await self.guard.author(room, drafts)
                made, done = self._authoring.author(room, wanted)
            except NotLoaded as missing:
                await self._missing.load(missing)
                continue
            await done
            return made
        raise MatrixError(503, "M_LIMIT_EXCEEDED", "The server is overloaded", {"retry_after_ms": 1000})

    async def send_message(
        self,
        requester: Requester,
        room_id: str,
        event_type: str,
        content: dict[str, Any],
        txn_id: str,
        *,
        ts: int | None = None,
    ) -> str:
        """Sends a message event, once for each transaction ID; returns its event ID. `ts` is its time, None for now."""
        if event_type == "m.room.redaction":
            redacts = content.get("redacts")
            if not isinstance(redacts, str):
                raise BadJson("redacts must be an event ID")
            return await self.redact(requester, room_id, redacts, content, txn_id, ts=ts)

        async def send() -> str:
            room = await self._access.access_joined_room(requester.user_id, room_id)
            draft = Draft(event_type, requester.user_id, content, device=requester.device, txn_id=txn_id, ts=ts)
            if (relation := kept_relation(event_type, None, content)) is not None:
                await self._check_relation(room, requester.user_id, event_type, relation)
                draft.thread = await self._threads.thread_of_child(room, relation)
            return (await self.author(room, lambda _: (draft,)))[0].event_id

        def is_same(event: StoredEvent) -> bool:
            return event.pdu.room_id == room_id and event.pdu.type == event_type

        return await self._transactions.once(requester.device, f"{room_id}/send/{event_type}", txn_id, is_same, send)

    async def _check_relation(self, room: Room, sender: str, event_type: str, relation: Relation) -> None:
        """Raises M_UNKNOWN for a thread that cannot be, M_DUPLICATE_ANNOTATION for saying the same twice.

        https://spec.matrix.org/v1.19/client-server-api/#validation-of-mthread-relationships
        https://spec.matrix.org/v1.19/client-server-api/#avoiding-duplicate-annotations
        """
        if relation.rel_type not in (THREAD, ANNOTATION):
            return
        parent = await self._events.load_id(relation.event_id)
        if parent is None or parent.room != room.room:
            return  # it relates to nothing that is known here, and that is allowed
        if relation.rel_type == THREAD:
            if relation_of(parent.pdu.content) is not None:
                raise MatrixError(400, "M_UNKNOWN", "A thread cannot start at an event that relates to another")
        else:
            said = await self._relations.load_annotations(
                room.room, relation.event_id, sender, event_type, limit=MAX_COMPARED_ANNOTATIONS
            )
            for event in (await self._events.load(said)).values():
                other = relation_of(event.pdu.content)
                if other is not None and other.key == relation.key:
                    raise MatrixError(400, "M_DUPLICATE_ANNOTATION", "You have annotated the event with this already")

    async def redact(
        self,
        requester: Requester,
        room_id: str,
        event_id: str,
        content: dict[str, Any],
        txn_id: str,
        *,
        ts: int | None = None,
    ) -> str:
        """Redacts an event, once for each transaction ID; returns the redaction's event ID.

        https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3roomsroomidredacteventidtxnid
        """
        content = {key: value for key, value in content.items() if key != "redacts"}

        async def send() -> str:
            room = await self._access.access_joined_room(requester.user_id, room_id)
            target = await self._events.load_id(event_id)
            if target is None or target.room != room.room or target.kind != EventKind.TIMELINE:
                raise NotFound("No such event in this room")

            def draft(room: Room) -> Sequence[Draft]:
                if not _may_redact(requester, target, room):
                    raise Forbidden("You may not redact this event")
                return (
                    Draft(
                        "m.room.redaction",
                        requester.user_id,
                        content,
                        redacts=event_id,
                        target=target if target.redacted_by is None else None,
                        device=requester.device,
                        txn_id=txn_id,
                        ts=ts,
                    ),
                )

            return (await self.author(room, draft))[0].event_id

        def is_same(event: StoredEvent) -> bool:
            return event.pdu.room_id == room_id and event.pdu.redacts == event_id

        return await self._transactions.once(requester.device, f"{room_id}/redact/{event_id}", txn_id, is_same, send)

    async def send_state(
        self,
        requester: Requester,
        room_id: str,
        event_type: str,
        state_key: str,
        content: dict[str, Any],
        *,
        ts: int | None = None,
    ) -> str:
        """Sets state; returns the event ID, that of the current event when it has the very same content.

        `ts` is the new event's time, None for now. One's own membership is for the rules alone to judge: all else takes
        being in the room.
        """
        if (event_type, state_key) == ("m.room.member", requester.user_id):
            room = await self._access.access_room(room_id)
        else:
            room = await self._access.access_joined_room(requester.user_id, room_id)
        current = await self._current(room, (event_type, state_key))
        if current is not None and current.pdu.sender == requester.user_id and _same(current.pdu.content, content):
            return current.event_id
        draft = Draft(event_type, requester.user_id, content, state_key, device=requester.device, ts=ts)
        return (await self.author(room, lambda _: (draft,)))[0].event_id

    async def _current(self, room: Room, key: tuple[str, str]) -> StoredEvent | None:
        event = room.tip_event(key)
        if event is None and (position := room.tip_position(key)) is not None:
            event = (await self._events.load([position])).get(position)
        return event


def _may_redact(requester: Requester, target: StoredEvent, room: Room) -> bool:
    """Whether it is the requester's own event, they have the level, or are an administrator of the sender's server.

    https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3roomsroomidredacteventidtxnid
    """
    sender, levels = target.pdu.sender, room.power_levels
    if sender == requester.user_id or levels.user(requester.user_id) >= levels.redact:
        return True
    return requester.is_admin and get_domain(sender) == get_domain(requester.user_id)


def _same(one: object, other: object) -> bool:
    return one == other and encode_canonical_json(one) == encode_canonical_json(other)

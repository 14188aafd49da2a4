"""Making events: the one road by which an event of this server comes into a room.

1. Select the auth events from the state at the tip (or say which of them are not in memory).
2. Build the event on the tip: hashes, signature, ID.
3. Check the authorisation rules.
4. Work out what the event does to the members' counts.
5. Take a position, advance the tip, and list what is to be written.
6. Submit; when it is durable, publish it and tell the observers.

Everything up to 6 runs without awaiting, so events of one room are made one after another, and nothing of it reads
the database: a warm room has all that it needs in memory.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from homeserver.clock import Clock
from homeserver.services.errors import BadJson, Forbidden, TooLarge
from homeserver.services.rooms.counting import count_event, display_names
from homeserver.services.rooms.event_cache import EventCache
from homeserver.services.rooms.room import CREATE, NotLoaded, Room
from homeserver.services.rooms.summaries import changes_summary, summary_row
from homeserver.services.rooms.unread import UnreadCounts
from homeserver.services.stream import Stream
from matrix.canonical_json import JsonError, check_event_value
from matrix.event_auth import auth_event_keys, check_event_auth
from matrix.pdu import EventTooLarge, InvalidPdu, Pdu, build_pdu
from matrix.push_rules import UserRules
from matrix.redaction import redact_event
from matrix.relations import THREAD, kept_relation
from matrix.room_versions import EventIdFormat
from matrix.signatures import SigningKey
from storage.events import StoredEvent
from storage.relations import RelationRow, with_child
from storage.rooms import MembershipRow, StateKeyRow
from storage.snapshots import NewSnapshot
from storage.stream import Redaction, Writes
from storage.unread import MAIN

PublishObserver = Callable[[Room, StoredEvent, str | None], None]
"""Called for each published event, with the membership that a member event's user had before."""


@dataclass(slots=True)
class Draft:
    """An event to be made. `device` and `txn_id` are the sending device's; `target` is what a redaction redacts.

    `thread` is that of the event it relates to, where it does not say itself which thread it is in.
    """

    type: str
    sender: str
    content: dict[str, Any]
    state_key: str | None = None
    redacts: str | None = None
    target: StoredEvent | None = None
    device: int | None = None
    txn_id: str | None = None
    thread: str | None = None


class Authoring:
    """Makes events of local users, and publishes them once they are durable."""

    def __init__(
        self,
        stream: Stream,
        events: EventCache,
        clock: Clock,
        known_rules: Callable[[str], UserRules | None],
        *,
        server_name: str,
        signing_key: SigningKey,
    ) -> None:
        self._stream = stream
        self._events = events
        self._clock = clock
        self._known_rules = known_rules
        self._server_name = server_name
        self._signing_key = signing_key
        self.observers: list[PublishObserver] = []

    def author(
        self, room: Room, drafts: Sequence[Draft], writes: Writes | None = None
    ) -> tuple[list[StoredEvent], asyncio.Future[None]]:
        """Makes events on the room's tip, all or none; what is to be written is added to `writes`, if given.

        Returns the events and a future that is done when they are durable and published. Raises NotLoaded when state
        has to be read first, Forbidden when the rules do not allow an event, TooLarge and BadJson for contents that
        no event can have.
        """
        made, own = self._make(room, drafts)
        if writes is None:
            writes = own
        else:
            writes.extend(own)
        room.pending += 1
        done = self._stream.submit(
            made[-1].position, writes, lambda: self._publish(room, made, writes), lambda: self._undo(room)
        )
        return made, done

    def author_both(
        self,
        new: Room,
        new_drafts: Sequence[Draft],
        room: Room,
        drafts: Callable[[], Sequence[Draft]],
        writes: Writes,
    ) -> asyncio.Future[None]:
        """Makes a new room and, when that is done, events in another one, which may name it: all or none of them.

        What is to be written is added to `writes`. Raises what `author` raises; of the new room nothing is left then.
        """
        made_new, own_new = self._make(new, new_drafts)
        made, own = self._make(room, drafts())
        writes.extend(own_new)
        writes.extend(own)

        def publish() -> None:
            self._publish(new, made_new, own_new)
            self._publish(room, made, own)

        def undo() -> None:
            self._undo(new)
            self._undo(room)

        new.pending += 1
        room.pending += 1
        return self._stream.submit(made[-1].position, writes, publish, undo)

    def _make(self, room: Room, drafts: Sequence[Draft]) -> tuple[list[StoredEvent], Writes]:
        """Makes events on the tip, which goes back to where it was if one of them cannot be made."""
        before = room.tip.copy() if len(drafts) > 1 else None
        own = Writes()
        made: list[StoredEvent] = []
        try:
            for draft in drafts:
                made.append(self._author_one(room, draft, own))
        except BaseException:
            if before is not None:
                room.tip = before
                for row in own.state_keys:
                    del room.keys[row.type, row.state_key]
            raise
        if (own.snapshots or own.redactions) and changes_summary(made, own):
            own.summaries.append(summary_row(room, own.redactions))
        return made, own

    def _author_one(self, room: Room, draft: Draft, writes: Writes) -> StoredEvent:
        pdu, auth_state = self._build(room, draft)
        if not room.room_id:
            room.room_id = pdu.room_id  # the hash of its create event, in room versions from 12 on
        power_levels = room.power_levels if CREATE in auth_state else None
        rejection = check_event_auth(pdu, auth_state, power_levels=power_levels, verified_servers=(self._server_name,))
        if rejection is not None:
            raise Forbidden(rejection.reason)
        names = display_names(room, self._events)
        joining = self._rules_of_joining(room, draft)
        relation = kept_relation(pdu.type, pdu.state_key, pdu.content)
        thread = draft.thread
        if relation is not None and relation.rel_type == THREAD:
            thread = relation.event_id
        position = self._stream.next_position()
        tip = room.tip
        notifies = count_event(room, pdu, position, thread, names, writes)
        event = StoredEvent(
            position=position,
            room=room.room,
            pdu=pdu,
            snapshot=tip.snapshot,
            notifies=notifies,
            notify_count=tip.notify_count,
            highlight_count=tip.highlight_count,
            device=draft.device,
            txn_id=draft.txn_id,
        )
        tip.extremities = [pdu.reference]
        tip.depth = pdu.depth
        if pdu.state_key is not None:
            self._advance_state(room, event, writes)
        if joining is not None:
            room.rule_groups.set(draft.state_key or "", joining.in_room(room.room_id))
        if draft.target is not None:
            redact_stored(draft.target, event, writes)
        writes.events.append(event)
        if relation is not None:
            row = RelationRow(position, room.room, relation.event_id, relation.rel_type, pdu.type, pdu.sender)
            writes.relations.append(row)
        return event

    def _rules_of_joining(self, room: Room, draft: Draft) -> UserRules | None:
        """The push rules of a user of this server whom the event makes a member. Raises NotLoaded."""
        user_id = draft.state_key
        if draft.type != "m.room.member" or user_id is None or draft.content.get("membership") != "join":
            return None
        if not user_id.endswith(room.domain) or room.tip_membership(user_id) == "join":
            return None
        rules = self._known_rules(user_id)
        if rules is None:
            raise NotLoaded((), (user_id,))
        return rules

    def _build(self, room: Room, draft: Draft) -> tuple[Pdu, dict[tuple[str, str], Pdu]]:
        keys = auth_event_keys(room.version, draft.type, draft.sender, draft.state_key, draft.content)
        auth_events = self._tip_events(room, keys)
        opaque_id = secrets.token_urlsafe(18) if room.version.event_id_format is EventIdFormat.OPAQUE else ""
        is_hashed_create = draft.type == "m.room.create" and room.version.room_id_is_create_event_hash
        if not room.version.strict_canonical_json:
            _check_content(draft.content)
        try:
            pdu = build_pdu(
                room_version=room.version,
                room_id=None if is_hashed_create else room.room_id,
                type=draft.type,
                sender=draft.sender,
                state_key=draft.state_key,
                content=draft.content,
                prev_events=room.tip.extremities,
                auth_events=[event.pdu.reference for event in auth_events],
                depth=room.tip.depth + 1,
                origin_server_ts=self._clock(),
                server_name=self._server_name,
                signing_key=self._signing_key,
                redacts=draft.redacts,
                opaque_id=opaque_id,
            )
        except EventTooLarge as error:
            raise TooLarge(str(error)) from None
        except InvalidPdu as error:
            raise BadJson(str(error)) from None
        auth_state = {event.pdu.state_key_pair: event.pdu for event in auth_events}
        if CREATE not in auth_state and (create := room.tip.state.get(CREATE) or room.pinned.get(CREATE)):
            auth_state[CREATE] = create.pdu
        return pdu, auth_state

    def _tip_events(self, room: Room, keys: Sequence[tuple[str, str]]) -> list[StoredEvent]:
        """Those of these state events that the room has at its tip. Raises NotLoaded."""
        found, missing = [], []
        for key in keys:
            event = room.tip.state.get(key) or room.pinned.get(key)
            if event is None and (position := room.state.get(key)) is not None:
                event = self._events.get(position)
                if event is None:
                    missing.append(position)
            if event is not None:
                found.append(event)
        if missing:
            raise NotLoaded(missing)
        return found

    def _advance_state(self, room: Room, event: StoredEvent, writes: Writes) -> None:
        key = event.pdu.state_key_pair
        before = room.tip.state.get(key)
        event.replaces = before.position if before is not None else room.state.get(key)
        number = room.keys.get(key)
        if number is None:
            number = room.keys[key] = len(room.keys) + 1
            writes.state_keys.append(StateKeyRow(room.room, number, *key))
        writes.snapshots.append(NewSnapshot(event.position, room.tip.snapshot, {number: event.position}))
        room.tip.snapshot = event.snapshot = event.position
        room.tip.state[key] = event
        if key[0] == "m.room.member":
            membership = event.pdu.content["membership"]
            if membership != (member_before := room.tip_membership(key[1])):
                room.tip.joined_count += (membership == "join") - (member_before == "join")
                writes.memberships.append(MembershipRow(key[1], room.room, event.position, membership))
            room.tip.memberships[key[1]] = membership
            if membership != "join":
                room.rule_groups.set(key[1], None)
            if membership in ("join", "invite") and key[1].endswith(room.domain):
                room.mentions.add(key[1])  # the very next event may mention them

    def _publish(self, room: Room, events: Sequence[StoredEvent], writes: Writes) -> None:
        room.pending -= 1
        for redaction in writes.redactions:
            room.unread.clear()  # counted anew from the database when next asked for
            self._redact(room, redaction)
        for relation in writes.relations:
            self._relate(room, relation, {event.position: event.event_id for event in events})
        threads: dict[int, str] = {}
        if writes.thread_events:
            senders = {event.position: event.pdu.sender for event in events}
            for thread_event in writes.thread_events:
                threads[thread_event.position] = thread_event.thread
                room.threads.publish(thread_event, senders[thread_event.position])
        ignoring = _ignoring(room, events) if room.ignoring else {}
        for row in writes.personal_counts:
            counts = room.unread.get(row.user_id)
            if counts is not None and row.user_id not in ignoring.get(row.position, ()):
                counts.add(row.notify, row.highlight, threads.get(row.position))
        for event in events:
            self._events.add(event)
            is_member = event.pdu.type == "m.room.member" and event.pdu.state_key is not None
            before = room.membership(event.pdu.state_key or "") if is_member else None
            room.publish(event)
            if event.notifies:
                self._publish_uncounted(room, event, ignoring.get(event.position, ()), writes)
                if (counts := room.unread.get(event.pdu.sender)) is not None and event.pdu.state_key is None:
                    _read_by_sending(room, counts, event, threads.get(event.position, MAIN))
            for observer in self.observers:
                observer(room, event, before)

    def _publish_uncounted(self, room: Room, event: StoredEvent, ignoring: Iterable[str], writes: Writes) -> None:
        """What notifies everyone does not notify its sender, and those who ignore them."""
        for user_id in (event.pdu.sender, *ignoring):
            counts = room.unread.get(user_id)
            if counts is not None and not counts.is_own:
                highlights = any(row.position == event.position for row in writes.room_highlights)
                counts.add(-1, -highlights, None)

    def _redact(self, room: Room, redaction: Redaction) -> None:
        """Takes a redacted event's content out of memory, wherever it is."""
        if redaction.parent is not None:
            for event in self._copies_of(room, redaction.parent):
                event.children = None
        redacted = orjson.loads(redaction.json)
        for target in self._copies(room, redaction.position):
            target.pdu = Pdu(room.version, target.event_id, redacted)
            target.redacted_by = redaction.redacted_by
            target.client_json = target.unsigned_json = None
        if "state_key" not in redacted and redacted["type"] != "m.room.redaction":
            return  # no other event shows its content
        for event in (*self._events.showing(redaction.position), *room.timeline, *room.pinned.values()):
            if redaction.position in (event.replaces, event.redacted_by):
                event.unsigned_json = None

    def _relate(self, room: Room, relation: RelationRow, event_ids: Mapping[int, str]) -> None:
        """Tells an event's copies in memory what else relates to it."""
        for event in self._copies_of(room, relation.parent):
            event.children = with_child(event.children, relation, event_ids[relation.position])

    def _copies_of(self, room: Room, event_id: str) -> Iterable[StoredEvent]:
        """The objects of a message whose children change: the cache's, and what the room has kept of it."""
        self._events.relations_published += 1
        kept = (event for event in room.timeline if event.event_id == event_id)
        return {id(event): event for event in (self._events.known(event_id), *kept) if event is not None}.values()

    def _copies(self, room: Room, position: int) -> Iterable[StoredEvent]:
        """The objects of one event: the cache's, and the one that the room has kept where the cache let go of it."""
        kept = (event for event in (*room.timeline, *room.pinned.values()) if event.position == position)
        return {id(event): event for event in (self._events.get(position), *kept) if event is not None}.values()

    def _undo(self, room: Room) -> None:
        room.pending -= 1
        room.stale = True


def _ignoring(room: Room, events: Sequence[StoredEvent]) -> dict[int, set[str]]:
    """Position of a message -> who ignores its sender, of those whose counts are in memory."""
    found: dict[int, set[str]] = {}
    for event in events:
        if event.pdu.state_key is None:
            sender = event.pdu.sender
            users = {u for u in room.ignoring if (c := room.unread.get(u)) is not None and sender in c.ignored}
            if users:
                found[event.position] = users
    return found


def _read_by_sending(room: Room, counts: UnreadCounts, event: StoredEvent, thread: str) -> None:
    """Lets a message move its sender's counts: they have read what is before it in its thread."""
    counts.sent[thread] = event.position
    if not counts.follow(room.threads, event.pdu.sender, event.position):
        del room.unread[event.pdu.sender]  # counted anew when next asked for
    elif thread == MAIN:
        counts.read_main((room.notify_count, room.highlight_count))
    else:
        counts.read_thread(thread)


def _check_content(content: dict[str, Any]) -> None:
    """Holds new events of old room versions to the values that later ones allow.

    Their rules let any number pass, but servers do not agree on the encoding of floats and of large integers, and so
    not on the hashes. https://spec.matrix.org/v1.19/rooms/v6/#canonical-json
    """
    try:
        check_event_value(content)
    except JsonError as error:
        raise BadJson(str(error)) from None


def redact_stored(target: StoredEvent, redaction: StoredEvent, writes: Writes) -> None:
    """Lists what a redaction does to a stored event: only the redacted form is kept.

    https://spec.matrix.org/v1.19/client-server-api/#redactions
    """
    redacted = orjson.dumps(redact_event(target.pdu.json, target.pdu.room_version))
    relation = kept_relation(target.pdu.type, target.pdu.state_key, target.pdu.content)
    parent = None if relation is None else relation.event_id
    writes.redactions.append(Redaction(target.room, target.position, redacted, redaction.position, parent))

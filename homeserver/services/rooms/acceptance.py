"""What an event that is allowed does to its room: the one road by which events come in, whoever made them.

1. Count what it does to the members' unread counts.
2. Take a position, advance the tip, and list what is to be written.
3. (By the caller:) submit it; when it is durable, `publish` it and tell the observers.

Nothing here awaits or reads the database. Where an event goes onto the tip as it is, as nearly all do, the state it
changes is its own key; for one that stands elsewhere in the graph a `Placement` says what becomes of the state.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import orjson

from homeserver.services.rooms.counting import count_event, display_names
from homeserver.services.rooms.event_cache import EventCache
from homeserver.services.rooms.room import MEMBER, Extremity, NotLoaded, Room, StateKey
from homeserver.services.rooms.summaries import changes_summary, summary_row
from homeserver.services.rooms.unread import UnreadCounts
from homeserver.services.stream import Stream
from matrix.identifiers import get_domain, is_server_name
from matrix.pdu import Pdu
from matrix.push_rules import UserRules
from matrix.redaction import redact_event
from matrix.relations import THREAD, kept_relation
from storage.events import EventKind, StoredEvent
from storage.federation import DestinationRow
from storage.relations import RelationRow, with_child
from storage.rooms import MembershipRow, ResolvedRow, StateKeyRow
from storage.snapshots import NewSnapshot
from storage.stream import Redaction, Writes
from storage.unread import MAIN

PublishObserver = Callable[[Room, StoredEvent, str | None], None]
"""Called for each published event, with the membership that a member event's user had before."""

MembershipObserver = Callable[[Room, str, str, int, str | None], None]
"""Called for memberships that an event changes which is not their own: (room, user, membership, position, before)."""

StateChanges = Mapping[StateKey, StoredEvent | None]
NO_CHANGES: StateChanges = {}
NOBODY: Mapping[str, UserRules] = {}


@dataclass(slots=True)
class Origin:
    """Whom an event comes from, beside what stands in it: the sending device and its transaction, what it redacts.

    `thread` is that of the event it relates to, where it does not say itself which thread it is in. `is_outgoing`: it
    is for this server to send to others.
    """

    device: int | None = None
    txn_id: str | None = None
    thread: str | None = None
    target: StoredEvent | None = None
    is_outgoing: bool = True


@dataclass(slots=True)
class Placement:
    """Where an event goes that does not stand on the tip.

    The state before it is `changes_before` (0: gone) on top of the snapshot `parent`, and `replaces` the position of
    what it takes the place of there. `beside` are the extremities that remain beside it, which is one itself unless
    they stand on it already (`is_extremity`); `current` is what else changes in the room's current state, of which the
    event is a part if `is_current`.
    """

    parent: int
    changes_before: Mapping[StateKey, int]
    replaces: int | None = None
    beside: list[Extremity] = field(default_factory=list)
    current: StateChanges = field(default_factory=dict)
    is_current: bool = True
    is_extremity: bool = True


class Accepted(NamedTuple):
    """An event that is on its way into the database, and what it changes in the room's current state."""

    event: StoredEvent
    changes: StateChanges


class Revealed(NamedTuple):
    """A member event, at a position, that was in a room's state before that was known."""

    user_id: str
    position: int
    membership: str


class Acceptance:
    """Takes allowed events into rooms, and publishes them once they are durable."""

    def __init__(
        self, stream: Stream, events: EventCache, known_rules: Callable[[str], UserRules | None], *, server_name: str
    ) -> None:
        self._stream = stream
        self._events = events
        self._known_rules = known_rules
        self._server_name = server_name
        self.observers: list[PublishObserver] = []
        self.membership_observers: list[MembershipObserver] = []
        self.outgoing_observers: list[PublishObserver] = []

    def accept(
        self, room: Room, pdu: Pdu, origin: Origin, writes: Writes, placement: Placement | None = None
    ) -> Accepted:
        """Advances the tip by an event. Raises NotLoaded, before anything is changed, and Overloaded."""
        names = display_names(room, self._events)
        joining = self._rules_of_joining(room, pdu, placement)
        relation = kept_relation(pdu.type, pdu.state_key, pdu.content)
        thread = origin.thread
        if relation is not None and relation.rel_type == THREAD:
            thread = relation.event_id
        room_snapshot = self._stream.next_position() if placement is not None else 0
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
            device=origin.device,
            txn_id=origin.txn_id,
        )
        if placement is None:
            changes = self._follow_tip(room, event, writes) if pdu.state_key is not None else NO_CHANGES
            tip.extremities = [Extremity.of(event)]
            tip.depth = pdu.depth
        else:
            changes = self._place(room, event, placement, room_snapshot, writes)
        for user_id, rules in joining.items():
            room.rule_groups.set(user_id, rules.in_room(room.room_id))
        if origin.target is not None:
            redact_stored(origin.target, event, writes)
        writes.events.append(event)
        if relation is not None:
            row = RelationRow(position, room.room, relation.event_id, relation.rel_type, pdu.type, pdu.sender)
            writes.relations.append(row)
        if origin.is_outgoing and (room.is_shared or _shows_out(pdu, self._server_name)):
            writes.outgoing.append(position)
        return Accepted(event, changes)

    def set_aside(
        self,
        room: Room,
        pdu: Pdu,
        kind: EventKind,
        parent: int,
        changes_before: Mapping[StateKey, int],
        replaces: int | None,
        writes: Writes,
    ) -> StoredEvent:
        """Keeps an event that readers are not shown, with the state after it: events to come may stand on it.

        Rejected events do not change the state. `parent`, `changes_before` and `replaces` are those of a `Placement`.
        """
        position = self._stream.next_position()
        event = StoredEvent(position=position, room=room.room, pdu=pdu, snapshot=parent, kind=kind)
        after = dict(changes_before)
        if kind is EventKind.SOFT_FAILED and pdu.state_key is not None:
            event.replaces = replaces
            after[pdu.state_key_pair] = position
        if after:
            numbered = {self._number(room, key, writes): at for key, at in after.items()}
            writes.snapshots.append(NewSnapshot(position, parent, numbered))
            event.snapshot = position
        writes.events.append(event)
        return event

    def summarise(self, room: Room, accepted: Sequence[Accepted], writes: Writes) -> None:
        """Notes what the directory is to say of the room, if these events, the last of a unit, change that."""
        if (writes.snapshots or writes.redactions) and changes_summary([a.changes for a in accepted], writes):
            writes.summaries.append(summary_row(room, writes.redactions))

    def _rules_of_joining(self, room: Room, pdu: Pdu, placement: Placement | None) -> Mapping[str, UserRules]:
        """The push rules of users of this server whom the event makes members. Raises NotLoaded."""
        if placement is None and pdu.type != "m.room.member":
            return NOBODY
        joining = {}
        changed: dict[StateKey, Pdu] = {}
        if pdu.type == "m.room.member" and pdu.state_key is not None:
            changed[pdu.state_key_pair] = pdu
        if placement is not None:
            changed.update({key: event.pdu for key, event in placement.current.items() if event is not None})
        for (type, user_id), member in changed.items():
            if type != "m.room.member" or member.content.get("membership") != "join":
                continue
            if not user_id.endswith(room.domain) or room.tip_membership(user_id) == "join":
                continue
            rules = self._known_rules(user_id)
            if rules is None:
                raise NotLoaded((), (user_id,))
            joining[user_id] = rules
        return joining

    def _follow_tip(self, room: Room, event: StoredEvent, writes: Writes) -> StateChanges:
        """The state after a state event that stands on the tip."""
        key = event.pdu.state_key_pair
        event.replaces = room.tip_position(key)
        number = self._number(room, key, writes)
        writes.snapshots.append(NewSnapshot(event.position, room.tip.snapshot, {number: event.position}))
        room.tip.snapshot = event.snapshot = event.position
        changes = {key: event}
        self._change_state(room, changes, event.position, writes)
        return changes

    def _place(
        self, room: Room, event: StoredEvent, placement: Placement, room_snapshot: int, writes: Writes
    ) -> StateChanges:
        """The state after an event that stands elsewhere, and the room's, for which a position was taken before."""
        tip, pdu = room.tip, event.pdu
        after = dict(placement.changes_before)
        changes: dict[StateKey, StoredEvent | None] = dict(placement.current)
        if pdu.state_key is not None:
            event.replaces = placement.replaces
            after[pdu.state_key_pair] = event.position
            if placement.is_current:
                changes[pdu.state_key_pair] = event
        event.snapshot = placement.parent
        if after:
            numbered = {self._number(room, key, writes): position for key, position in after.items()}
            writes.snapshots.append(NewSnapshot(event.position, placement.parent, numbered))
            event.snapshot = event.position
        if not placement.beside:
            tip.snapshot = event.snapshot
        else:
            if changes:
                numbered = {
                    self._number(room, key, writes): 0 if changed is None else changed.position
                    for key, changed in changes.items()
                }
                writes.snapshots.append(NewSnapshot(room_snapshot, tip.snapshot, numbered))
                tip.snapshot = room_snapshot
            event.room_snapshot = tip.snapshot
        tip.extremities = [*placement.beside, *([Extremity.of(event)] if placement.is_extremity else ())]
        if placement.beside:
            event.extremities = [extremity.position for extremity in tip.extremities]
        tip.depth = max(extremity.depth for extremity in tip.extremities)
        if room.local_joined:
            writes.resolved += [
                ResolvedRow(room.room, self._number(room, key, writes), event.position)
                for key, changed in changes.items()
                if changed is not event
            ]
        self._change_state(room, changes, event.position, writes)
        return changes

    def reveal(self, room: Room, members: Sequence[Revealed], writes: Writes) -> tuple[int, Callable[[], None]]:
        """Takes member events into the current state that were in it all the time, and were not known (docs/adr/0016).

        What has changed since is left as it is. Returns the position under which they are to be submitted, and what
        publishes them. Raises NotLoaded, before anything is changed, and Overloaded.
        """
        for member in members:
            is_joining = member.membership == "join" and member.user_id.endswith(room.domain)
            if is_joining and self._known_rules(member.user_id) is None:
                raise NotLoaded((), (member.user_id,))
        position = self._stream.next_position()
        new = []
        for member in members:
            key = (MEMBER, member.user_id)
            self._number(room, key, writes)
            if key not in room.tip.state and key not in room.state:
                new.append(member)
                self._reveal_one(room, member, position, writes)

        def publish() -> None:
            room.pending -= 1
            for member in new:
                before = room.membership(member.user_id)
                room.reveal_member(member.user_id, member.position, member.membership)
                for tell in self.membership_observers:
                    tell(room, member.user_id, member.membership, position, before)

        room.pending += 1
        return position, publish

    def _reveal_one(self, room: Room, member: Revealed, position: int, writes: Writes) -> None:
        user_id, membership = member.user_id, member.membership
        before = room.tip_membership(user_id)
        room.tip.joined_count += (membership == "join") - (before == "join")
        if not user_id.endswith(room.domain):
            self._expect_server(room, user_id, membership, position, writes)
        else:
            position = member.position  # by which they find the event
            if membership in ("join", "invite"):
                room.mentions.add(user_id)
            if membership == "join" and (rules := self._known_rules(user_id)) is not None:
                room.rule_groups.set(user_id, rules.in_room(room.room_id))
        if membership != before:
            writes.memberships.append(MembershipRow(user_id, room.room, position, membership))

    def _number(self, room: Room, key: StateKey, writes: Writes) -> int:
        number = room.keys.get(key)
        if number is None:
            number = room.keys[key] = len(room.keys) + 1
            writes.state_keys.append(StateKeyRow(room.room, number, *key))
        return number

    def _change_state(self, room: Room, changes: StateChanges, position: int, writes: Writes) -> None:
        tip = room.tip
        for key, event in changes.items():
            tip.state[key] = event
            if key[0] != "m.room.member":
                continue
            membership = event.pdu.content["membership"] if event is not None else "leave"
            if membership != (before := room.tip_membership(key[1])):
                tip.joined_count += (membership == "join") - (before == "join")
                writes.memberships.append(MembershipRow(key[1], room.room, position, membership))
            tip.memberships[key[1]] = membership
            if membership != "join":
                room.rule_groups.set(key[1], None)
            if not key[1].endswith(room.domain):
                self._expect_server(room, key[1], membership, position, writes)
            elif membership in ("join", "invite"):
                room.mentions.add(key[1])  # the very next event may mention them

    def _expect_server(self, room: Room, user_id: str, membership: str, position: int, writes: Writes) -> None:
        """Notes that another server is to be sent events from here on: of its join, or what becomes of its user."""
        room.is_expecting_servers |= membership == "join"
        if membership != "invite" and is_server_name(server_name := get_domain(user_id)):
            writes.destinations.append(DestinationRow(server_name, position - 1))

    def publish(self, room: Room, accepted: Sequence[Accepted], writes: Writes) -> None:
        """Shows events, now durable, to readers, and tells the observers."""
        room.pending -= 1
        for redaction in writes.redactions:
            room.unread.clear()  # counted anew from the database when next asked for
            self._redact(room, redaction)
        for relation in writes.relations:
            self._relate(room, relation, {event.position: event.event_id for event, _ in accepted})
        threads: dict[int, str] = {}
        if writes.thread_events:
            senders = {event.position: event.pdu.sender for event, _ in accepted}
            for thread_event in writes.thread_events:
                threads[thread_event.position] = thread_event.thread
                room.threads.publish(thread_event, senders[thread_event.position])
        ignoring = _ignoring(room, accepted) if room.ignoring else {}
        for row in writes.personal_counts:
            counts = room.unread.get(row.user_id)
            if counts is not None and row.user_id not in ignoring.get(row.position, ()):
                counts.add(row.notify, row.highlight, threads.get(row.position))
        outgoing = set(writes.outgoing)
        for event, changes in accepted:
            before = self._publish_one(room, event, changes)
            if event.notifies:
                self._publish_uncounted(room, event, ignoring.get(event.position, ()), writes)
                if (counts := room.unread.get(event.pdu.sender)) is not None and event.pdu.state_key is None:
                    _read_by_sending(room, counts, event, threads.get(event.position, MAIN))
            for observer in self.observers:
                observer(room, event, before)
            if event.position in outgoing:
                for send in self.outgoing_observers:
                    send(room, event, before)

    def _publish_one(self, room: Room, event: StoredEvent, changes: StateChanges) -> str | None:
        """Returns the membership that a member event's user had before."""
        self._events.add(event)
        is_member = event.pdu.type == "m.room.member" and event.pdu.state_key is not None
        before = room.membership(event.pdu.state_key or "") if is_member else None
        others: list[tuple[str, str | None]] = []
        if len(changes) > is_member:
            own = event.pdu.state_key if is_member else None
            others = [(key[1], room.membership(key[1])) for key in changes if key[0] == "m.room.member"]
            others = [(user_id, membership) for user_id, membership in others if user_id != own]
        room.publish(event, changes)
        for user_id, membership_before in others:
            membership = room.membership(user_id) or "leave"
            for tell in self.membership_observers:
                tell(room, user_id, membership, event.position, membership_before)
        return before

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
        kept = [event for event in room.timeline if event.event_id == event_id]
        if (known := self._events.known(event_id)) is not None and known.room == room.room:
            kept.append(known)
        return {id(event): event for event in kept}.values()

    def _copies(self, room: Room, position: int) -> Iterable[StoredEvent]:
        """The objects of one event: the cache's, and the one that the room has kept where the cache let go of it."""
        kept = (event for event in (*room.timeline, *room.pinned.values()) if event.position == position)
        return {id(event): event for event in (self._events.get(position), *kept) if event is not None}.values()

    def undo(self, room: Room) -> None:
        """Gives up a room as it is in memory, as something that it was built on could not be written."""
        room.pending -= 1
        room.stale = True


def _ignoring(room: Room, accepted: Sequence[Accepted]) -> dict[int, set[str]]:
    """Position of a message -> who ignores its sender, of those whose counts are in memory."""
    found: dict[int, set[str]] = {}
    for event, _ in accepted:
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


def redact_stored(target: StoredEvent, redaction: StoredEvent, writes: Writes) -> None:
    """Lists what a redaction does to a stored event: only the redacted form is kept.

    https://spec.matrix.org/v1.19/client-server-api/#redactions
    """
    redacted = orjson.dumps(redact_event(target.pdu.json, target.pdu.room_version))
    relation = kept_relation(target.pdu.type, target.pdu.state_key, target.pdu.content)
    parent = None if relation is None else relation.event_id
    writes.redactions.append(Redaction(target.room, target.position, redacted, redaction.position, parent))


def _shows_out(pdu: Pdu, server_name: str) -> bool:
    """Whether a user of another server is shown out, of an invitation too: that server is told, whoever is in the room.

    https://spec.matrix.org/v1.19/server-server-api/#inviting-to-a-room
    """
    return (
        pdu.type == "m.room.member"
        and pdu.state_key is not None
        and get_domain(pdu.state_key) != server_name
        and pdu.content.get("membership") in ("leave", "ban")
    )

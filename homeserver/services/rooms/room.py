"""A room as its owner holds it in memory: the head that new events are built on, and what is published of it.

The *tip* is where the next event goes: it runs ahead of what is committed, so that a hot room fills whole batches.
All else is what is published: readers never see an event that is not durable.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Collection, Mapping
from typing import NamedTuple

from homeserver.services.rooms.rule_groups import RuleGroups
from homeserver.services.rooms.threads import RoomThreads
from homeserver.services.rooms.unread import UnreadCounts
from matrix.identifiers import get_domain
from matrix.pdu import EventReference, Pdu
from matrix.power_levels import PowerLevels
from matrix.push_rules import MentionIndex, RoomContext
from matrix.room_versions import RoomVersion
from storage.events import StoredEvent
from storage.partial_rooms import AbandonedRow
from storage.user_data import ReceiptRow

StateKey = tuple[str, str]

CREATE = ("m.room.create", "")
POWER_LEVELS = ("m.room.power_levels", "")
JOIN_RULES = ("m.room.join_rules", "")
MEMBER = "m.room.member"

TIMELINE_EVENTS = 32
"""How many of a room's newest events are kept at hand; up to twice as many before the older half is dropped."""


class NotLoaded(Exception):
    """State events, or users' push rules, have to be read from the database first; or the room is `busy` meanwhile."""

    def __init__(
        self, positions: Collection[int], users: Collection[str] = (), busy: asyncio.Future[None] | None = None
    ) -> None:
        super().__init__(f"{len(positions)} events, rules of {len(users)} users")
        self.positions = positions
        self.users = users
        self.busy = busy


class Extremity(NamedTuple):
    """An event on which the next one stands, and the snapshot of the state after it."""

    position: int
    snapshot: int
    depth: int
    reference: EventReference

    @classmethod
    def of(cls, event: StoredEvent) -> Extremity:
        """An event as the newest of its room, or of a branch of it."""
        return cls(event.position, event.snapshot, event.pdu.depth, event.pdu.reference)


class Partial:
    """What is known of a room of other servers while its members are not (docs/adr/0016).

    `ground` is the snapshot that lacks them, `servers` are said to be in the room; `completed` is done when the members
    are known, or the room is given up.
    """

    __slots__ = ("completed", "ground", "servers")

    def __init__(self, ground: int, servers: Collection[str]) -> None:
        self.ground = ground
        self.servers = servers
        self.completed: asyncio.Future[None] = asyncio.get_running_loop().create_future()


class Tip:
    """Where the next event goes. `state` holds the state that is not published yet: None for what is gone."""

    __slots__ = (
        "depth",
        "extremities",
        "highlight_count",
        "joined_count",
        "memberships",
        "notify_count",
        "snapshot",
        "state",
    )

    def __init__(self) -> None:
        self.extremities: list[Extremity] = []
        self.depth = 0
        self.snapshot = 0
        self.notify_count = 0
        self.highlight_count = 0
        self.joined_count = 0
        self.state: dict[StateKey, StoredEvent | None] = {}
        self.memberships: dict[str, str] = {}

    def copy(self) -> Tip:
        """The tip as it is now, to go back to."""
        tip = Tip()
        tip.extremities, tip.depth, tip.snapshot = list(self.extremities), self.depth, self.snapshot
        tip.notify_count, tip.highlight_count = self.notify_count, self.highlight_count
        tip.joined_count = self.joined_count
        tip.state, tip.memberships = dict(self.state), dict(self.memberships)
        return tip


class Room:
    """One room. `room` is its number in the database.

    `state` maps state keys to the positions of the current state events; `keys` numbers the state keys for
    snapshots; `last_position` is the newest published event's, `changed_position` that of the newest published change
    of any kind (receipts, typing). `timeline` is complete after `timeline_after`. `shared_section` is what /sync last
    told several members in the same words, and of which positions. `servers` counts each server's joined members;
    `is_expecting_servers` tells that the first of another server's has joined, which may not be published yet.
    `resolving` is there while the state of several branches is being worked out: no event can be made until it is done.
    `resolved` tells of which keys' state changed, and at which position, without an event of their own: by resolution.
    `erased` are the members, of now or before, whose accounts are erased, and since when.
    `partial` is there while not all members are known; at `completed_position` they came to be known, and
    `asked_members` had asked for them before (None: perhaps everybody). The snapshots from one of a pair of `lacking`
    up to the other lack members for ever. What is less deep than `entered_depth` was before this server's time there.
    `push_members` are the joined members who have pushers, None if that has not been found out; `ignoring` those with
    counts in memory who ignore somebody.
    """

    def __init__(self, room: int, room_id: str, version: RoomVersion, server_name: str) -> None:
        self.room = room
        self.room_id = room_id
        self.version = version
        self.domain = ":" + server_name
        self.tip = Tip()
        self.pending = 0
        self.stale = False
        self.resolving: asyncio.Future[None] | None = None
        self.partial: Partial | None = None
        # Published.
        self.keys: dict[StateKey, int] = {}
        self.state: dict[StateKey, int] = {}
        self.pinned: dict[StateKey, StoredEvent] = {}
        self.members: dict[str, str] = {}
        self.erased: dict[str, int] = {}
        self.local_joined: set[str] = set()
        self.servers: Counter[str] = Counter()
        self.is_expecting_servers = False
        self.resolved: dict[StateKey, int] = {}
        self.completed_position = 0
        self.lacking: list[tuple[int, int]] = []
        self.entered_depth = 0
        self.asked_members: set[str] | None = None
        self.joined_count = 0
        self.invited_count = 0
        self.last_position = 0
        self.changed_position = 0
        self.notify_count = 0
        self.highlight_count = 0
        self.timeline: list[StoredEvent] = []
        self.timeline_after = 0
        self.mentions = MentionIndex()
        self.rule_groups = RuleGroups()
        self.push_members: set[str] | None = None
        self.threads = RoomThreads()
        self.typing: dict[str, int] = {}
        self.typing_position = 0
        self.receipts: dict[tuple[str, str, str], ReceiptRow] | None = None
        self.receipts_of: dict[str, set[tuple[str, str, str]]] = {}
        self.receipts_position = 0
        self.aliases: set[str] = set()
        self.unread: dict[str, UnreadCounts] = {}
        self.ignoring: set[str] = set()
        self.shared_section: tuple[tuple[int, int], bytes] = ((0, 0), b"")
        self._power_levels: tuple[Pdu | None, PowerLevels] | None = None

    @property
    def power_levels(self) -> PowerLevels:
        """The power levels at the tip, worked out once for each form of an m.room.power_levels event."""
        event = self.tip_event(POWER_LEVELS)
        pdu = event.pdu if event is not None else None
        if self._power_levels is None or self._power_levels[0] is not pdu:
            create = self.tip_event(CREATE)
            assert create is not None, f"{self.room_id} has no m.room.create"
            self._power_levels = (pdu, PowerLevels.of(self.version, create.pdu, pdu))
        return self._power_levels[1]

    def tip_event(self, key: StateKey) -> StoredEvent | None:
        """The state event where the next event goes, if it is at hand: only members' may not be (`tip_position`)."""
        if key in self.tip.state:
            return self.tip.state[key]
        return self.pinned.get(key)

    def tip_position(self, key: StateKey) -> int | None:
        """The position of the state event where the next event goes; None where there is none."""
        if key in self.tip.state:
            event = self.tip.state[key]
            return None if event is None else event.position
        return self.state.get(key)

    @property
    def is_resident(self) -> bool:
        """Whether the room is this server's to decide about, since its users are in it, or nobody else's."""
        return bool(self.local_joined) or not self.servers

    @property
    def is_shared(self) -> bool:
        """Whether other servers take part in the room."""
        return self.is_expecting_servers or len(self.servers) > 1 or (bool(self.servers) and not self.local_joined)

    def power_context(self, sender: str) -> RoomContext:
        """What push rules ask about the room when `sender` sends something; of one whose state is not known, little."""
        if self.tip_event(CREATE) is None:
            return RoomContext(self.joined_count, 0, {})
        levels = self.power_levels
        # Each of the servers that are in the room has a member there, who may not be known yet.
        joined_count = max(self.joined_count, len(self.partial.servers)) if self.partial else self.joined_count
        return RoomContext(joined_count, levels.user(sender), {"room": levels.notification("room")})

    def membership(self, user_id: str) -> str | None:
        """A user's published membership; None if they never had one."""
        return self.members.get(user_id)

    def tip_membership(self, user_id: str) -> str | None:
        """A user's membership where the next event goes."""
        return self.tip.memberships.get(user_id) or self.members.get(user_id)

    def check_known(self, user_id: str) -> None:
        """Whether it is known what a user is to the room, if anything. Raises NotLoaded while that may yet be told."""
        if self.partial is not None and self.tip_position((MEMBER, user_id)) is None:
            raise NotLoaded((), busy=self.partial.completed)

    def lack_members(self, ground: int, servers: Collection[str]) -> None:
        """Notes that not all members are known yet, but `servers` are in the room."""
        assert self.partial is None, f"{self.room_id} lacks members already"
        self.partial = Partial(ground, servers)
        self.asked_members = set()
        for server in servers:
            self._count_server(server, 1)

    def complete(self, position: int) -> None:
        """Notes that all members are known from a position on."""
        assert self.partial is not None, f"{self.room_id} lacks nobody"
        for server in self.partial.servers:
            self._count_server(server, -1)
        if not self.partial.completed.done():
            self.partial.completed.set_result(None)
        self.partial = None
        self.completed_position = max(self.completed_position, position)
        self.changed_position = max(self.changed_position, position)

    def abandon(self, until: int) -> AbandonedRow:
        """Notes that nobody will ask for the members any more, whom all snapshots up to one lack."""
        assert self.partial is not None, f"{self.room_id} lacks nobody"
        row = AbandonedRow(self.room, self.partial.ground, until)
        self.lacking.append((row.ground, until))
        self.complete(0)
        return row

    def has_state_of(self, event: StoredEvent) -> bool:
        """Whether the state after an event of this room is known, with all members."""
        snapshot = event.snapshot
        return bool(snapshot) and not any(ground <= snapshot < until for ground, until in self.lacking)

    def can_build_on(self, event: StoredEvent) -> bool:
        """Whether what stands on an event can be judged by the state after it.

        Not on history (`backfill`), where the state after several branches is taken to be that of one of them.
        """
        return event.room == self.room and event.position > 0 and self.has_state_of(event)

    def reveal_member(self, user_id: str, position: int, membership: str) -> None:
        """Takes in a member event that was in the state all the time, and was not known."""
        self.state[MEMBER, user_id] = position
        self.publish_membership(user_id, membership)

    def erased_before(self, position: float) -> frozenset[str]:
        """Whose accounts were erased before a position."""
        return frozenset(user_id for user_id, erased in self.erased.items() if erased < position)

    def publish(self, event: StoredEvent, changes: Mapping[StateKey, StoredEvent | None]) -> None:
        """Takes an accepted timeline event, now committed, into what is published, and what it changes in the state."""
        self.timeline.append(event)
        if len(self.timeline) >= 2 * TIMELINE_EVENTS:
            self.timeline_after = self.timeline[-TIMELINE_EVENTS - 1].position
            del self.timeline[:-TIMELINE_EVENTS]
        was_here = bool(self.local_joined)  # who comes to a room now is told all of its state
        for key, changed in changes.items():
            self._publish_state(key, changed)
            if changed is not event and was_here:
                self.resolved[key] = event.position
        self.last_position = self.changed_position = event.position
        self.notify_count = event.notify_count
        self.highlight_count = event.highlight_count
        if changes and not self.tip.state:
            self.tip.memberships.clear()

    def _publish_state(self, key: StateKey, event: StoredEvent | None) -> None:
        if event is None:
            self.state.pop(key, None)
            self.pinned.pop(key, None)
            membership = "leave"
        else:
            self.state[key] = event.position
            membership = event.pdu.content.get("membership", "leave") if key[0] == "m.room.member" else ""
        if key in self.tip.state and self.tip.state[key] is event:
            del self.tip.state[key]
        if key[0] == "m.room.member":
            self.publish_membership(key[1], membership)
        elif event is not None:
            self.pin(key, event)

    def pin(self, key: StateKey, event: StoredEvent) -> None:
        """Keeps a current state event at hand for as long as the room is: all but members are, they are few."""
        self.pinned[key] = event

    def publish_membership(self, user_id: str, membership: str) -> None:
        """Takes in what a user's membership has become."""
        before = self.members.get(user_id)
        self.members[user_id] = membership
        self.joined_count += (membership == "join") - (before == "join")
        self.invited_count += (membership == "invite") - (before == "invite")
        if (membership == "join") != (before == "join"):
            self._count_server(get_domain(user_id), 1 if membership == "join" else -1)
        if user_id.endswith(self.domain):
            if membership == "join":
                self.local_joined.add(user_id)
            else:
                self.local_joined.discard(user_id)
                self.unread.pop(user_id, None)
                self.ignoring.discard(user_id)
            if membership in ("join", "invite"):
                self.mentions.add(user_id)
            else:
                self.mentions.remove(user_id)

    def _count_server(self, server_name: str, change: int) -> None:
        self.servers[server_name] += change
        if self.servers[server_name] <= 0:
            del self.servers[server_name]

"""A room as its owner holds it in memory: the head that new events are built on, and what is published of it.

The *tip* is where the next event goes: it runs ahead of what is committed, so that a hot room fills whole batches.
All else is what is published: readers never see an event that is not durable.
"""

from __future__ import annotations

from collections.abc import Collection

from homeserver.services.rooms.rule_groups import RuleGroups
from homeserver.services.rooms.threads import RoomThreads
from homeserver.services.rooms.unread import UnreadCounts
from matrix.pdu import EventReference, Pdu
from matrix.power_levels import PowerLevels
from matrix.push_rules import MentionIndex, RoomContext
from matrix.room_versions import RoomVersion
from storage.events import StoredEvent
from storage.user_data import ReceiptRow

StateKey = tuple[str, str]

CREATE = ("m.room.create", "")
POWER_LEVELS = ("m.room.power_levels", "")
JOIN_RULES = ("m.room.join_rules", "")

TIMELINE_EVENTS = 32
"""How many of a room's newest events are kept at hand; up to twice as many before the older half is dropped."""


class NotLoaded(Exception):
    """State events, or users' push rules, have to be read from the database first."""

    def __init__(self, positions: Collection[int], users: Collection[str] = ()) -> None:
        super().__init__(f"{len(positions)} events, rules of {len(users)} users")
        self.positions = positions
        self.users = users


class Tip:
    """Where the next event goes. `state` holds the state events that are not published yet."""

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
        self.extremities: list[EventReference] = []
        self.depth = 0
        self.snapshot = 0
        self.notify_count = 0
        self.highlight_count = 0
        self.joined_count = 0
        self.state: dict[StateKey, StoredEvent] = {}
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
    told several members in the same words, and of which positions. `push_members` are the joined members who have
    pushers, None if that has not been found out; `ignoring` those with counts in memory who ignore somebody.
    """

    def __init__(self, room: int, room_id: str, version: RoomVersion, server_name: str) -> None:
        self.room = room
        self.room_id = room_id
        self.version = version
        self.domain = ":" + server_name
        self.tip = Tip()
        self.pending = 0
        self.stale = False
        # Published.
        self.keys: dict[StateKey, int] = {}
        self.state: dict[StateKey, int] = {}
        self.pinned: dict[StateKey, StoredEvent] = {}
        self.members: dict[str, str] = {}
        self.local_joined: set[str] = set()
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
        self.unread: dict[str, UnreadCounts] = {}
        self.ignoring: set[str] = set()
        self.shared_section: tuple[tuple[int, int], bytes] = ((0, 0), b"")
        self._power_levels: tuple[Pdu | None, PowerLevels] | None = None

    @property
    def power_levels(self) -> PowerLevels:
        """The power levels at the tip, worked out once for each form of an m.room.power_levels event."""
        event = self.tip.state.get(POWER_LEVELS) or self.pinned.get(POWER_LEVELS)
        pdu = event.pdu if event is not None else None
        if self._power_levels is None or self._power_levels[0] is not pdu:
            create = self.tip.state.get(CREATE) or self.pinned[CREATE]
            self._power_levels = (pdu, PowerLevels.of(self.version, create.pdu, pdu))
        return self._power_levels[1]

    def power_context(self, sender: str) -> RoomContext:
        """What push rules ask about the room when `sender` sends something."""
        levels = self.power_levels
        return RoomContext(self.joined_count, levels.user(sender), {"room": levels.notification("room")})

    def membership(self, user_id: str) -> str | None:
        """A user's published membership; None if they never had one."""
        return self.members.get(user_id)

    def tip_membership(self, user_id: str) -> str | None:
        """A user's membership where the next event goes."""
        return self.tip.memberships.get(user_id) or self.members.get(user_id)

    def publish(self, event: StoredEvent) -> None:
        """Takes an accepted timeline event, now committed, into what is published."""
        self.timeline.append(event)
        if len(self.timeline) >= 2 * TIMELINE_EVENTS:
            self.timeline_after = self.timeline[-TIMELINE_EVENTS - 1].position
            del self.timeline[:-TIMELINE_EVENTS]
        self.last_position = self.changed_position = event.position
        self.notify_count = event.notify_count
        self.highlight_count = event.highlight_count
        if event.pdu.state_key is not None:
            self._publish_state(event)

    def _publish_state(self, event: StoredEvent) -> None:
        key = event.pdu.state_key_pair
        self.state[key] = event.position
        if self.tip.state.get(key) is event:
            del self.tip.state[key]
        if key[0] == "m.room.member":
            self.publish_membership(key[1], event.pdu.content["membership"])
            if not self.tip.state:
                self.tip.memberships.clear()
        else:
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

"""Filters that clients put on what they are sent.

https://spec.matrix.org/v1.19/client-server-api/#filtering

A filter is checked and compiled once, when it is uploaded or first used. The result is immutable and hashable, so that
what depends on a filter can be cached by it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, TypeGuard

from matrix.globs import Glob, whole_glob
from matrix.property_paths import MISSING, property_at, split_property_path

MAX_ENTRIES: Final = 1000
"""Most entries of each list in a filter."""
MAX_ENTRY_CHARS: Final = 512
"""Longest entry of such a list. IDs and event types have at most 255 bytes."""
MAX_WILDCARD_TYPES: Final = 50
"""Most entries with a `*` in each list of event types."""

EventFormat = Literal["client", "federation"]


class InvalidFilter(ValueError):
    """A filter that is not what the specification calls one. The message names the property at fault."""


@dataclass(frozen=True, slots=True)
class TypePatterns:
    """A list of event types in which `*` stands for any characters."""

    exact: frozenset[str]
    wildcards: tuple[Glob, ...]

    def matches(self, event_type: str) -> bool:
        """Whether any entry describes `event_type`."""
        return event_type in self.exact or any(glob.matches(event_type) for glob in self.wildcards)


_NO_TYPES: Final = TypePatterns(frozenset(), ())


@dataclass(frozen=True, slots=True)
class EventFilter:
    """Which events to include, by type and sender. An absent list of what to include, `None`, includes everything.

    https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3useruseridfilter_request_eventfilter
    """

    limit: int | None = None
    """Most events wanted, more than 0. The caller applies its default and its maximum."""
    types: TypePatterns | None = None
    not_types: TypePatterns = _NO_TYPES
    senders: frozenset[str] | None = None
    not_senders: frozenset[str] = frozenset()
    allows_every_event: bool = field(init=False, compare=False)
    """Whether type and sender exclude nothing."""

    def __post_init__(self) -> None:
        unrestricted = self.types is None and self.senders is None
        object.__setattr__(
            self, "allows_every_event", unrestricted and self.not_types == _NO_TYPES and not self.not_senders
        )

    @property
    def is_trivial(self) -> bool:
        """Whether everything passes, so that there is no need to ask. The limit does not count."""
        return self.allows_every_event

    def allows(self, event_type: str, sender: str | None) -> bool:
        """Whether an event of this type by this sender is included. Account data has no sender: pass `None`."""
        if self.allows_every_event:
            return True
        if sender in self.not_senders or (self.senders is not None and sender not in self.senders):
            return False
        if self.types is not None and not self.types.matches(event_type):
            return False
        return not self.not_types.matches(event_type)


@dataclass(frozen=True, slots=True)
class RoomEventFilter(EventFilter):
    """Which events of rooms to include.

    https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3useruseridfilter_request_roomeventfilter
    """

    rooms: frozenset[str] | None = None
    not_rooms: frozenset[str] = frozenset()
    contains_url: bool | None = None
    lazy_load_members: bool = False
    include_redundant_members: bool = False
    unread_thread_notifications: bool = False
    related_by_rel_types: frozenset[str] | None = None
    """Only events that another event relates to in one of these ways. Not in the specification: see MSC3440."""
    related_by_senders: frozenset[str] | None = None
    """Only events that an event of one of these users relates to. Not in the specification: see MSC3440."""

    @property
    def is_trivial(self) -> bool:
        """Whether everything passes, so that there is no need to ask. The limit does not count."""
        return (
            self.allows_every_event
            and self.rooms is None
            and not self.not_rooms
            and self.contains_url is None
            and self.related_by_rel_types is None
            and self.related_by_senders is None
        )

    def allows_room(self, room_id: str) -> bool:
        """Whether events of this room are included."""
        return room_id not in self.not_rooms and (self.rooms is None or room_id in self.rooms)

    def matches(self, event: Mapping[str, object]) -> bool:
        """Whether an event in client format is included.

        The room is looked at only if the event names it; in a `/sync` response it does not, and `allows_room` decides.
        What other events relate to this one is not looked at: it takes storage to know the `related_by_` properties.
        """
        event_type, sender, room_id = event.get("type"), event.get("sender"), event.get("room_id")
        if not self.allows(event_type if isinstance(event_type, str) else "", sender if _is_string(sender) else None):
            return False
        if isinstance(room_id, str) and not self.allows_room(room_id):
            return False
        if self.contains_url is None:
            return True
        content = event.get("content")
        return (isinstance(content, Mapping) and "url" in content) is self.contains_url


@dataclass(frozen=True, slots=True)
class RoomFilter:
    """Which rooms to include, and what of them.

    https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3useruseridfilter_request_roomfilter
    """

    rooms: frozenset[str] | None = None
    not_rooms: frozenset[str] = frozenset()
    include_leave: bool = False
    """Whether to include the rooms that the user has left."""
    state: RoomEventFilter = RoomEventFilter()
    timeline: RoomEventFilter = RoomEventFilter()
    ephemeral: RoomEventFilter = RoomEventFilter()
    account_data: RoomEventFilter = RoomEventFilter()

    def allows_room(self, room_id: str) -> bool:
        """Whether this room is included at all. This goes before the filters of its events."""
        return room_id not in self.not_rooms and (self.rooms is None or room_id in self.rooms)


@dataclass(frozen=True, slots=True)
class Filter:
    """A whole filter.

    https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3useruseridfilter
    """

    event_format: EventFormat = "client"
    event_fields: tuple[str, ...] | None = None
    """Dot-separated paths of the only properties wanted, for `select_fields`; `None` for all."""
    account_data: EventFilter = EventFilter()
    presence: EventFilter = EventFilter()
    room: RoomFilter = RoomFilter()


DEFAULT_FILTER: Final = Filter()
"""The filter of a client that gives none: everything passes."""


def compile_filter(filter_json: object) -> Filter:
    """Check and compile a filter as a client wrote it, by the schema of the filter API. Unknown properties are ignored.

    Raises:
        InvalidFilter: a property has the wrong type or a value outside of what is allowed.
    """
    source = _Source(filter_json, "")
    event_format = source.get("event_format", "client")
    if event_format not in ("client", "federation"):
        raise InvalidFilter("event_format must be 'client' or 'federation'")
    return Filter(
        event_format="federation" if event_format == "federation" else "client",
        event_fields=source.strings("event_fields"),
        account_data=_event_filter(source.child("account_data")),
        presence=_event_filter(source.child("presence")),
        room=_room_filter(source.child("room")),
    )


def compile_room_event_filter(filter_json: object) -> RoomEventFilter:
    """Check and compile the filter that `/messages`, `/context` and `/search` take, a single `RoomEventFilter`.

    Raises:
        InvalidFilter: as for `compile_filter`.
    """
    return _room_event_filter(_Source(filter_json, ""))


def select_fields(event: Mapping[str, object], event_fields: Iterable[str]) -> dict[str, object]:
    r"""A copy of `event` that has only the properties at the given paths, such as `content.m\.relates_to.rel_type`.

    Paths that lead nowhere are passed over. The values themselves are shared with `event`, not copied.
    """
    selected: dict[str, object] = {}
    # Shortest first: a path that leads into what is already there as a whole adds nothing to it.
    for path in sorted({split_property_path(entry) for entry in event_fields}, key=len):
        value = property_at(event, path)
        if value is not MISSING:
            _put(selected, event, path, value)
    return selected


def _put(selected: dict[str, object], event: Mapping[str, object], path: tuple[str, ...], value: object) -> None:
    target, source = selected, event
    *outer, last = path
    for name in outer:
        original, copy = source[name], target.setdefault(name, {})
        if copy is original:
            return
        assert isinstance(original, Mapping), "there is a value below"
        assert isinstance(copy, dict), "what is not taken over as a whole was begun here"
        target, source = copy, original
    target[last] = value


def _room_filter(source: "_Source") -> RoomFilter:
    return RoomFilter(
        rooms=source.identifiers("rooms", "!"),
        not_rooms=source.identifiers("not_rooms", "!") or frozenset(),
        include_leave=source.boolean("include_leave") or False,
        state=_room_event_filter(source.child("state")),
        timeline=_room_event_filter(source.child("timeline")),
        ephemeral=_room_event_filter(source.child("ephemeral")),
        account_data=_room_event_filter(source.child("account_data")),
    )


def _event_filter(source: "_Source") -> EventFilter:
    return EventFilter(
        limit=source.limit(),
        types=source.types("types"),
        not_types=source.types("not_types") or _NO_TYPES,
        senders=source.identifiers("senders", "@"),
        not_senders=source.identifiers("not_senders", "@") or frozenset(),
    )


def _room_event_filter(source: "_Source") -> RoomEventFilter:
    rel_types = source.strings("related_by_rel_types")
    return RoomEventFilter(
        limit=source.limit(),
        types=source.types("types"),
        not_types=source.types("not_types") or _NO_TYPES,
        senders=source.identifiers("senders", "@"),
        not_senders=source.identifiers("not_senders", "@") or frozenset(),
        rooms=source.identifiers("rooms", "!"),
        not_rooms=source.identifiers("not_rooms", "!") or frozenset(),
        contains_url=source.boolean("contains_url"),
        lazy_load_members=source.boolean("lazy_load_members") or False,
        include_redundant_members=source.boolean("include_redundant_members") or False,
        unread_thread_notifications=source.boolean("unread_thread_notifications") or False,
        related_by_rel_types=None if rel_types is None else frozenset(rel_types),
        related_by_senders=source.identifiers("related_by_senders", "@"),
    )


def _is_string(value: object) -> TypeGuard[str]:
    return isinstance(value, str)


class _Source:
    """An object of the filter, and where in the filter it stands, to name what is wrong with it."""

    def __init__(self, value: object, path: str) -> None:
        if not isinstance(value, Mapping):
            raise InvalidFilter(f"{path or 'The filter'} must be an object")
        self._properties: Mapping[str, object] = value
        self._path = path

    def _name(self, key: str) -> str:
        return f"{self._path}.{key}" if self._path else key

    def get(self, key: str, default: object = None) -> object:
        return self._properties.get(key, default)

    def child(self, key: str) -> "_Source":
        return _Source(self._properties.get(key, {}), self._name(key))

    def boolean(self, key: str) -> bool | None:
        if key not in self._properties:
            return None
        value = self._properties[key]
        if not isinstance(value, bool):
            raise InvalidFilter(f"{self._name(key)} must be a boolean")
        return value

    def limit(self) -> int | None:
        if "limit" not in self._properties:
            return None
        value = self._properties["limit"]
        if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
            raise InvalidFilter(f"{self._name('limit')} must be an integer greater than 0")
        return value

    def strings(self, key: str) -> tuple[str, ...] | None:
        if key not in self._properties:
            return None
        value = self._properties[key]
        if not isinstance(value, list):
            raise InvalidFilter(f"{self._name(key)} must be an array of strings")
        if len(value) > MAX_ENTRIES:
            raise InvalidFilter(f"{self._name(key)} must have at most {MAX_ENTRIES} entries")
        for entry in value:
            if not isinstance(entry, str):
                raise InvalidFilter(f"{self._name(key)} must be an array of strings")
            if len(entry) > MAX_ENTRY_CHARS:
                raise InvalidFilter(f"{self._name(key)} must have entries of at most {MAX_ENTRY_CHARS} characters")
        return tuple(value)

    def identifiers(self, key: str, sigil: str) -> frozenset[str] | None:
        entries = self.strings(key)
        if entries is None:
            return None
        if not all(entry.startswith(sigil) for entry in entries):
            raise InvalidFilter(f"{self._name(key)} must have entries that start with '{sigil}'")
        return frozenset(entries)

    def types(self, key: str) -> TypePatterns | None:
        entries = self.strings(key)
        if entries is None:
            return None
        wildcards = sorted({entry for entry in entries if "*" in entry})
        if len(wildcards) > MAX_WILDCARD_TYPES:
            raise InvalidFilter(f"{self._name(key)} must have at most {MAX_WILDCARD_TYPES} entries with a '*'")
        return TypePatterns(
            exact=frozenset(entry for entry in entries if "*" not in entry),
            wildcards=tuple(whole_glob(entry, question_mark=False) for entry in wildcards),
        )

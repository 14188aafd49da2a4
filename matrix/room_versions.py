"""What distinguishes the room versions, as data: https://spec.matrix.org/v1.19/rooms/.

Each version is the one before it with changes. Code asks for a property, never for a version's number.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from types import MappingProxyType
from typing import Final


class EventIdFormat(Enum):
    """How an event gets its ID."""

    OPAQUE = "opaque"
    """"$opaque:domain", chosen by the sending server and part of the event (v1, v2)."""
    HASH = "hash"
    """The reference hash in unpadded Base64, https://spec.matrix.org/v1.19/rooms/v3/#event-ids (v3)."""
    URL_SAFE_HASH = "url_safe_hash"
    """The reference hash in URL-safe Base64, https://spec.matrix.org/v1.19/rooms/v4/#event-ids (v4 and later)."""


class StateResolution(Enum):
    """Which state resolution algorithm a room uses."""

    V1 = "1"
    """https://spec.matrix.org/v1.19/rooms/v1/#state-resolution"""
    V2 = "2"
    """https://spec.matrix.org/v1.19/rooms/v2/#state-resolution"""
    V2_1 = "2.1"
    """Version 2 from an empty state, with the conflicted subgraph: https://spec.matrix.org/v1.19/rooms/v12/#state-resolution"""


@dataclass(frozen=True, slots=True, eq=False)
class RoomVersion:
    """The rules of one room version. The versions are singletons, compared by identity."""

    identifier: str
    """As in `content.room_version` of m.room.create."""

    # Event format
    event_id_format: EventIdFormat
    event_references_have_hashes: bool
    """`prev_events` and `auth_events` hold [event_id, {"sha256": hash}] pairs instead of event IDs."""
    strict_canonical_json: bool
    """Events that are not Canonical JSON (floats, integers beyond 53 bits) are invalid."""
    max_depth: int
    """The limit at which `depth` stays."""
    room_id_is_create_event_hash: bool
    """m.room.create has no `room_id`; the room's ID is the event's ID with "!" for "$". It is in no `auth_events`."""
    redacts_in_content: bool
    """m.room.redaction names its target in `content.redacts` instead of a top-level `redacts`."""

    # Signatures
    enforce_key_validity: bool
    """A signing key must be valid at the event's `origin_server_ts`."""

    # Redaction
    redaction_keeps: frozenset[str]
    """The top-level keys that a redaction leaves."""
    redaction_keeps_in_content: Mapping[str, frozenset[str]]
    """By event type, the keys of `content` that a redaction leaves; none for other types."""
    redaction_keeps_create_content: bool
    """A redaction leaves all of the content of m.room.create."""
    redaction_keeps_third_party_invite_signed: bool
    """A redaction leaves `third_party_invite.signed` in the content of m.room.member."""

    # State resolution and authorisation rules
    state_resolution: StateResolution
    create_has_creator: bool
    """The room's creator is `content.creator` of m.room.create, which must be there, instead of its `sender`."""
    creators_have_infinite_power: bool
    """The sender of m.room.create and its `additional_creators` have an infinite power level."""
    special_case_aliases: bool
    """A server may send m.room.aliases for its own name, whoever is in the room."""
    authorise_redactions: bool
    """The redact level, or the same domain of event IDs, decides whether m.room.redaction itself is allowed."""
    integer_power_levels: bool
    """Levels in m.room.power_levels must be integers; otherwise strings that hold integers are accepted too."""
    float_power_levels: bool
    """Levels may be floats, which are truncated."""
    limit_notifications_power_levels: bool
    """Changes of `notifications` in m.room.power_levels are limited like those of `events`."""
    knock_allowed: bool
    """The membership `knock` and the join rule `knock` exist."""
    restricted_allowed: bool
    """The join rule `restricted` exists."""
    knock_restricted_allowed: bool
    """The join rule `knock_restricted` exists."""


_V1 = RoomVersion(
    identifier="1",
    event_id_format=EventIdFormat.OPAQUE,
    event_references_have_hashes=True,
    strict_canonical_json=False,
    max_depth=2**63 - 1,
    room_id_is_create_event_hash=False,
    redacts_in_content=False,
    enforce_key_validity=False,
    redaction_keeps=frozenset(
        [
            "event_id",
            "type",
            "room_id",
            "sender",
            "state_key",
            "content",
            "hashes",
            "signatures",
            "depth",
            "prev_events",
            "prev_state",
            "auth_events",
            "origin",
            "origin_server_ts",
            "membership",
        ]
    ),
    redaction_keeps_in_content=MappingProxyType(
        {
            "m.room.member": frozenset({"membership"}),
            "m.room.create": frozenset({"creator"}),
            "m.room.join_rules": frozenset({"join_rule"}),
            "m.room.power_levels": frozenset(
                ["ban", "events", "events_default", "kick", "redact", "state_default", "users", "users_default"]
            ),
            "m.room.aliases": frozenset({"aliases"}),
            "m.room.history_visibility": frozenset({"history_visibility"}),
        }
    ),
    redaction_keeps_create_content=False,
    redaction_keeps_third_party_invite_signed=False,
    state_resolution=StateResolution.V1,
    create_has_creator=True,
    creators_have_infinite_power=False,
    special_case_aliases=True,
    authorise_redactions=True,
    integer_power_levels=False,
    float_power_levels=True,
    limit_notifications_power_levels=False,
    knock_allowed=False,
    restricted_allowed=False,
    knock_restricted_allowed=False,
)

_V2 = replace(_V1, identifier="2", state_resolution=StateResolution.V2)

_V3 = replace(
    _V2,
    identifier="3",
    event_id_format=EventIdFormat.HASH,
    event_references_have_hashes=False,
    authorise_redactions=False,
)

_V4 = replace(_V3, identifier="4", event_id_format=EventIdFormat.URL_SAFE_HASH)

_V5 = replace(_V4, identifier="5", enforce_key_validity=True)

_V6 = replace(
    _V5,
    identifier="6",
    strict_canonical_json=True,
    max_depth=2**53 - 1,
    redaction_keeps_in_content=MappingProxyType(
        {type: keys for type, keys in _V5.redaction_keeps_in_content.items() if type != "m.room.aliases"}
    ),
    special_case_aliases=False,
    float_power_levels=False,
    limit_notifications_power_levels=True,
)

_V7 = replace(_V6, identifier="7", knock_allowed=True)

_V8 = replace(
    _V7,
    identifier="8",
    redaction_keeps_in_content=MappingProxyType(
        {**_V7.redaction_keeps_in_content, "m.room.join_rules": frozenset({"join_rule", "allow"})}
    ),
    restricted_allowed=True,
)

_V9 = replace(
    _V8,
    identifier="9",
    redaction_keeps_in_content=MappingProxyType(
        {
            **_V8.redaction_keeps_in_content,
            "m.room.member": frozenset({"membership", "join_authorised_via_users_server"}),
        }
    ),
)

_V10 = replace(_V9, identifier="10", integer_power_levels=True, knock_restricted_allowed=True)

_V11 = replace(
    _V10,
    identifier="11",
    redacts_in_content=True,
    redaction_keeps=_V10.redaction_keeps - {"origin", "membership", "prev_state"},
    redaction_keeps_in_content=MappingProxyType(
        {
            **_V10.redaction_keeps_in_content,
            "m.room.power_levels": _V10.redaction_keeps_in_content["m.room.power_levels"] | {"invite"},
            "m.room.redaction": frozenset({"redacts"}),
        }
    ),
    redaction_keeps_create_content=True,
    redaction_keeps_third_party_invite_signed=True,
    create_has_creator=False,
)

_V12 = replace(
    _V11,
    identifier="12",
    room_id_is_create_event_hash=True,
    state_resolution=StateResolution.V2_1,
    creators_have_infinite_power=True,
)

ROOM_VERSIONS: Final[Mapping[str, RoomVersion]] = MappingProxyType(
    {version.identifier: version for version in (_V1, _V2, _V3, _V4, _V5, _V6, _V7, _V8, _V9, _V10, _V11, _V12)}
)
"""The room versions that this server supports, by identifier; all are stable."""

DEFAULT_ROOM_VERSION: Final = _V12
"""The version of new rooms, https://spec.matrix.org/v1.19/rooms/#complete-list-of-room-versions."""

"""What a room is like, in a few words: for the directory, previews and spaces.

https://spec.matrix.org/v1.19/client-server-api/#published-room-directory
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import orjson

from homeserver.services.rooms.room import CREATE, JOIN_RULES, Room, StateKey
from matrix.history_visibility import WORLD_READABLE, visibility_of
from storage.directory import RoomSummaryRow, search_text
from storage.events import StoredEvent
from storage.stream import Redaction, Writes

NAME = ("m.room.name", "")
TOPIC = ("m.room.topic", "")
CANONICAL_ALIAS = ("m.room.canonical_alias", "")
AVATAR = ("m.room.avatar", "")
HISTORY_VISIBILITY = ("m.room.history_visibility", "")
GUEST_ACCESS = ("m.room.guest_access", "")
ENCRYPTION = ("m.room.encryption", "")
SUMMARISED = frozenset({CREATE, NAME, TOPIC, CANONICAL_ALIAS, AVATAR, JOIN_RULES, HISTORY_VISIBILITY, GUEST_ACCESS})

DEFAULT_JOIN_RULE = "invite"
KNOCKABLE = ("knock", "knock_restricted")
RESTRICTED = ("restricted", "knock_restricted")
MAX_ALLOWED_ROOMS = 100


def changes_summary(changes: Iterable[Mapping[StateKey, StoredEvent | None]], writes: Writes) -> bool:
    """Whether what new events change in the state, and write, changes what a directory says of their room."""
    if writes.memberships or writes.redactions:
        return True
    return any(not SUMMARISED.isdisjoint(keys) for keys in changes)


def summary_row(room: Room, redactions: Sequence[Redaction] = (), *, published: bool = False) -> RoomSummaryRow:
    """What the directory is to say of a room as it is at its tip, where these events are being redacted.

    With `published`, of the room as everybody may know it.
    """
    redacted = {redaction.position: redaction for redaction in redactions}

    def content(key: StateKey) -> Mapping[str, Any]:
        event = room.pinned.get(key) if published else room.tip_event(key)
        if event is None:
            return {}
        if (redaction := redacted.get(event.position)) is not None:
            redacted_content: dict[str, Any] = orjson.loads(redaction.json)["content"]
            return redacted_content
        return event.pdu.content

    name, topic = _text(content(NAME).get("name")), _topic(content(TOPIC))
    alias = _text(content(CANONICAL_ALIAS).get("alias"))
    return RoomSummaryRow(
        room=room.room,
        joined_members=room.joined_count if published else room.tip.joined_count,
        name=name,
        topic=topic,
        canonical_alias=alias,
        avatar_url=_text(content(AVATAR).get("url")),
        room_type=_text(content(CREATE).get("type")),
        join_rule=_text(content(JOIN_RULES).get("join_rule")) or DEFAULT_JOIN_RULE,
        world_readable=visibility_of(content(HISTORY_VISIBILITY)) == WORLD_READABLE,
        guest_can_join=content(GUEST_ACCESS).get("guest_access") == "can_join",
        search_text=search_text(name, topic, alias),
    )


def published_chunk(room_id: str, row: RoomSummaryRow) -> dict[str, Any]:
    """A PublishedRoomsChunk; what a room does not have is left out."""
    texts = {
        "name": row.name,
        "topic": row.topic,
        "canonical_alias": row.canonical_alias,
        "avatar_url": row.avatar_url,
        "room_type": row.room_type,
        "join_rule": row.join_rule,
    }
    return {
        "room_id": room_id,
        "num_joined_members": row.joined_members,
        "world_readable": row.world_readable,
        "guest_can_join": row.guest_can_join,
        **{key: value for key, value in texts.items() if value is not None},
    }


def room_summary(room: Room) -> dict[str, Any]:
    """A RoomSummary of a room in memory: the same, and what one has to know before joining."""
    row = summary_row(room, published=True)
    summary = {**published_chunk(room.room_id, row), "room_version": room.version.identifier}
    if (encryption := room.pinned.get(ENCRYPTION)) is not None:
        algorithm = _text(encryption.pdu.content.get("algorithm"))
        if algorithm is not None:
            summary["encryption"] = algorithm
    if allowed := allowed_room_ids(room):
        summary["allowed_room_ids"] = allowed
    return summary


def join_rule_of(room: Room) -> str:
    """The room's join rule as it is published."""
    event = room.pinned.get(JOIN_RULES)
    return (_text(event.pdu.content.get("join_rule")) if event is not None else None) or DEFAULT_JOIN_RULE


def allowed_room_ids(room: Room) -> list[str]:
    """The rooms whose members may join a restricted room.

    https://spec.matrix.org/v1.19/client-server-api/#restricted-rooms
    """
    if join_rule_of(room) not in RESTRICTED:
        return []
    allow = room.pinned[JOIN_RULES].pdu.content.get("allow")
    return [
        condition["room_id"]
        for condition in (allow[:MAX_ALLOWED_ROOMS] if isinstance(allow, list) else ())
        if isinstance(condition, dict)
        and condition.get("type") == "m.room_membership"
        and isinstance(condition.get("room_id"), str)
    ]


def _text(value: object) -> str | None:
    """A text that PostgreSQL can hold, None for anything else and for none."""
    return value if isinstance(value, str) and value and "\0" not in value else None


def _topic(content: Mapping[str, Any]) -> str | None:
    """The plain text of a topic, https://spec.matrix.org/v1.19/client-server-api/#mroomtopic."""
    rich = content.get("m.topic")
    texts = rich.get("m.text") if isinstance(rich, dict) else None
    if isinstance(texts, list):
        for text in texts:
            if isinstance(text, dict) and text.get("mimetype", "text/plain") == "text/plain":
                return _text(text.get("body"))
        return None
    return _text(content.get("topic"))

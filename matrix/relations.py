"""Relationships between events, as an event's content declares them.

https://spec.matrix.org/v1.19/client-server-api/#forming-relationships-between-events

Content is written by anyone, so nothing here trusts its shape: "relationships which don't match the schema [...] are
simply ignored".
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

THREAD: Final = "m.thread"
REPLACE: Final = "m.replace"
ANNOTATION: Final = "m.annotation"
REFERENCE: Final = "m.reference"

MAX_RELATION_BYTES: Final = 255
"""Longest `rel_type` and parent's event ID of a relationship that servers keep account of."""


@dataclass(frozen=True, slots=True)
class Relation:
    """The parent an event names, and how it relates to it."""

    rel_type: str
    event_id: str
    """The parent's event ID."""
    key: str | None = None
    """What an annotation says, such as an emoji."""
    is_falling_back: bool = False
    """Whether a thread's `m.in_reply_to` is there only for clients that do not know threads."""


def _relates_to(content: Mapping[str, object]) -> Mapping[str, object] | None:
    relates_to = content.get("m.relates_to")
    return relates_to if isinstance(relates_to, Mapping) else None


def _event_id(holder: Mapping[str, object]) -> str | None:
    event_id = holder.get("event_id")
    return event_id if isinstance(event_id, str) and event_id.startswith("$") else None


def relation_of(content: Mapping[str, object]) -> Relation | None:
    """The relationship that `content` declares with a `rel_type`, or `None` if it declares none that is well-formed.

    An annotation without a `key` is not one: there is nothing to count it under.
    """
    relates_to = _relates_to(content)
    if relates_to is None:
        return None
    rel_type, event_id = relates_to.get("rel_type"), _event_id(relates_to)
    if not isinstance(rel_type, str) or not rel_type or event_id is None:
        return None
    key = relates_to.get("key")
    if not isinstance(key, str):
        if rel_type == ANNOTATION:
            return None
        key = None
    return Relation(rel_type, event_id, key, relates_to.get("is_falling_back") is True)


def kept_relation(event_type: str, state_key: str | None, content: Mapping[str, object]) -> Relation | None:
    """The relationship by which an event is found from its parent, if it has one that the parent does not have to
    be seen for: an edit is no state event and has `m.new_content`, unless that is encrypted.

    https://spec.matrix.org/v1.19/client-server-api/#validity-of-replacement-events
    """
    if "m.relates_to" not in content:  # nearly all events
        return None
    relation = relation_of(content)
    if relation is None or not all(map(_is_keepable, (relation.rel_type, relation.event_id))):
        return None
    if relation.rel_type == REPLACE and (
        state_key is not None
        or (event_type != "m.room.encrypted" and not isinstance(content.get("m.new_content"), Mapping))
    ):
        return None
    return relation


def _is_keepable(text: str) -> bool:
    return "\0" not in text and len(text.encode(errors="surrogatepass")) <= MAX_RELATION_BYTES


def thread_root(content: Mapping[str, object]) -> str | None:
    """The event ID of the root of the thread that the event says it is in, if it says so itself.

    https://spec.matrix.org/v1.19/client-server-api/#threading
    """
    relation = relation_of(content)
    return relation.event_id if relation is not None and relation.rel_type == THREAD else None


def edited_event_id(content: Mapping[str, object]) -> str | None:
    """The event ID of the event that this one claims to replace. Whether it may is for the caller to find out.

    https://spec.matrix.org/v1.19/client-server-api/#validity-of-replacement-events
    """
    relation = relation_of(content)
    return relation.event_id if relation is not None and relation.rel_type == REPLACE else None


def replied_to_event_id(content: Mapping[str, object]) -> str | None:
    """The event ID that a rich reply answers. Replies have no `rel_type` and stand beside any other relationship.

    https://spec.matrix.org/v1.19/client-server-api/#rich-replies
    """
    relates_to = _relates_to(content)
    in_reply_to = relates_to.get("m.in_reply_to") if relates_to is not None else None
    return _event_id(in_reply_to) if isinstance(in_reply_to, Mapping) else None

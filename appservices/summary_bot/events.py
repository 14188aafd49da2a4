"""From raw events, which anybody may have written, to messages: edits applied, redactions gone, threads known.

Pure. Whatever does not have the shape that the specification gives it is read as if it were not there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

RawEvent = Mapping[str, Any]

MAX_BODY_CHARACTERS = 20_000
"""Of a longer message only the beginning is read."""

TEXT_TYPES = ("m.text", "m.notice", "m.emote")
FILE_TYPES = {"m.image": "image", "m.file": "file", "m.audio": "audio", "m.video": "video"}

NEEDED = {"m.room.message": "msgtype", "m.room.encrypted": "algorithm"}
"""What is gone from the content of an event that was redacted."""

_ID = re.compile(r"[!$@#][^\s\x00-\x20\x7f]{1,254}")
_FALLBACK = re.compile(r"\A(?:> [^\n]*\n)+\n?")
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]")
"""Control characters, and those that turn the direction of text or cannot be seen: nobody reads them, models do."""


@dataclass(frozen=True, slots=True)
class Message:
    """A message as somebody sees it now."""

    event_id: str
    sender: str
    ts: int
    body: str
    thread: str | None = None
    """Root of the thread that it is in."""
    reply_to: str | None = None
    edit_id: str = ""
    """The event that has its present words, when it was edited."""
    reactions: int = 0
    replies: int = 0
    mentions: tuple[str, ...] = ()
    is_file: bool = False


def text(value: object) -> str | None:
    """The value if it is text."""
    return value if isinstance(value, str) else None


def mapping(value: object) -> Mapping[str, Any]:
    """The value if it is an object, else an empty one."""
    return value if isinstance(value, dict) else {}


def matrix_id(value: object, sigil: str) -> str | None:
    """The value if it looks like an ID with this sigil."""
    return value if isinstance(value, str) and value[:1] == sigil and _ID.fullmatch(value) else None


def is_event(event: object) -> bool:
    """Whether an event has the parts that every event has."""
    return (
        isinstance(event, dict)
        and matrix_id(event.get("event_id"), "$") is not None
        and matrix_id(event.get("sender"), "@") is not None
        and isinstance(event.get("type"), str)
        and isinstance(event.get("content"), dict)
        and type(event.get("origin_server_ts")) is int
        and abs(event["origin_server_ts"]) <= 2**53
    )


def is_redacted(event: RawEvent) -> bool:
    """Whether an event is what a redaction left."""
    unsigned = mapping(event.get("unsigned"))
    needed = NEEDED.get(event["type"])
    return "redacted_because" in unsigned or (needed is not None and needed not in event["content"])


def relation(event: RawEvent) -> tuple[str, str] | None:
    """What kind of relation an event has to which other.

    https://spec.matrix.org/v1.19/client-server-api/#forming-relationships-between-events
    """
    relates = mapping(event["content"].get("m.relates_to"))
    kind, target = text(relates.get("rel_type")), matrix_id(relates.get("event_id"), "$")
    return (kind, target) if kind is not None and target is not None else None


def clean(body: str) -> str:
    """A body without what cannot be seen, cut to a bound."""
    return _CONTROLS.sub("", body[:MAX_BODY_CHARACTERS].replace("\r\n", "\n")).strip()


def body_of(content: Mapping[str, Any]) -> str:
    """What a message says: its text without the quotation of what it replies to, or what file it brings."""
    kind, body = text(content.get("msgtype")), text(content.get("body")) or ""
    if kind in TEXT_TYPES:
        relates = mapping(content.get("m.relates_to"))
        return clean(_FALLBACK.sub("", body) if "m.in_reply_to" in relates else body)
    if kind in FILE_TYPES:
        caption = clean(body)
        name = text(content.get("filename"))
        return f"[{FILE_TYPES[kind]}] {caption}" if name is not None and name != body else f"[{FILE_TYPES[kind]}]"
    return ""


def mentions_of(content: Mapping[str, Any]) -> tuple[str, ...]:
    """Whom a message mentions: https://spec.matrix.org/v1.19/client-server-api/#user-and-room-mentions"""
    users = mapping(content.get("m.mentions")).get("user_ids")
    if not isinstance(users, list):
        return ()
    return tuple(user for user in users[:100] if matrix_id(user, "@") is not None)


def build_messages(events: Iterable[RawEvent], *, without: frozenset[str] = frozenset()) -> list[Message]:
    """The messages in a run of events, oldest first. `without`: senders who are left out, edits and reactions too.

    An edit counts if its sender wrote the message; the newest wins. A redacted edit leaves the message as it was.
    https://spec.matrix.org/v1.19/client-server-api/#validity-of-replacement-events
    """
    kept = [event for event in events if is_event(event) and event["sender"] not in without and not is_redacted(event)]
    messages: dict[str, Message] = {}
    reactions: dict[str, set[tuple[str, str]]] = {}
    edits: dict[str, list[RawEvent]] = {}
    for event in kept:
        related = relation(event)
        if event["type"] == "m.room.message" and (related is None or related[0] != "m.replace"):
            if (message := _message(event, related)) is not None:
                messages.setdefault(message.event_id, message)
        elif event["type"] == "m.room.message" and related is not None:
            edits.setdefault(related[1], []).append(event)
        elif event["type"] == "m.reaction" and related is not None and related[0] == "m.annotation":
            key = str(mapping(event["content"].get("m.relates_to")).get("key"))
            reactions.setdefault(related[1], set()).add((event["sender"], key))
    _apply_edits(messages, edits)
    return _count(messages, reactions)


def _age(event: RawEvent) -> tuple[int, str]:
    return event["origin_server_ts"], event["event_id"]


def _message(event: RawEvent, related: tuple[str, str] | None) -> Message | None:
    content = event["content"]
    body = body_of(content)
    if not body:
        return None
    relates = mapping(content.get("m.relates_to"))
    reply_to = matrix_id(mapping(relates.get("m.in_reply_to")).get("event_id"), "$")
    if relates.get("is_falling_back") is True:
        reply_to = None
    return Message(
        event_id=event["event_id"],
        sender=event["sender"],
        ts=event["origin_server_ts"],
        body=body,
        thread=related[1] if related is not None and related[0] == "m.thread" else None,
        reply_to=reply_to,
        mentions=mentions_of(content),
        is_file=content.get("msgtype") in FILE_TYPES,
    )


def _apply_edits(messages: dict[str, Message], edits: Mapping[str, Sequence[RawEvent]]) -> None:
    for target, found in edits.items():
        message = messages.get(target)
        for edit in sorted(found, key=_age):
            new = mapping(edit["content"].get("m.new_content"))
            body = body_of(new)
            if message is not None and edit["sender"] == message.sender and body:
                messages[target] = replace(message, body=body, edit_id=edit["event_id"], mentions=mentions_of(new))


def _count(messages: Mapping[str, Message], reactions: Mapping[str, set[tuple[str, str]]]) -> list[Message]:
    replies: dict[str, int] = {}
    for message in messages.values():
        for target in {message.reply_to, message.thread} - {None}:
            assert target is not None
            replies[target] = replies.get(target, 0) + 1
    return [
        replace(message, reactions=len(reactions.get(event_id, ())), replies=replies.get(event_id, 0))
        for event_id, message in messages.items()
    ]


def sources_of(messages: Sequence[Message]) -> list[str]:
    """Every event that these messages rest on: their own and those of their edits."""
    return [event_id for message in messages for event_id in (message.event_id, message.edit_id) if event_id]

"""Picks out of a transaction what matters to the bot. Pure: what it finds is stored by others.

Most events are nothing to the bot, and cost it a look at their type and at the first letters of their text.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from appservices.summary_bot.clock import HOUR_MS
from appservices.summary_bot.commands.parse import MAX_COMMAND_CHARACTERS, address, parse_message
from appservices.summary_bot.encryption.plaintexts import Unreadable, is_sealed, read_sealed
from appservices.summary_bot.events import (
    RawEvent,
    body_of,
    is_event,
    is_redacted,
    mapping,
    matrix_id,
    mentions_of,
    relation,
)
from appservices.summary_bot.storage.inbox import Delivery, Receipt, Secrets
from appservices.summary_bot.storage.jobs import NewJob
from appservices.summary_bot.storage.sealed import NewSealedEvent

MAX_COMMAND_AGE_MS = 6 * HOUR_MS
"""Questions that have waited longer, because the bot was down, are not answered any more."""

MAX_RECEIPTS = 5000


MAX_CHANGED_USERS = 20_000
DEVICE_PARTS = ("device_lists", "org.matrix.msc3202.device_lists")
MESSAGE_PARTS = ("to_device", "de.sorunome.msc2409.to_device")
COUNT_PARTS = ("device_one_time_keys_count", "org.matrix.msc3202.device_one_time_keys_count")
FALLBACK_PARTS = ("device_unused_fallback_key_types", "org.matrix.msc3202.device_unused_fallback_key_types")
"""Parts of a transaction that are for the encryption, by the names that they will have and those that they have now."""


class Asked(msgspec.Struct, frozen=True):
    """What is kept of a message to the bot until it is answered."""

    body: str
    thread: str | None = None
    reply_to: str | None = None
    encrypted: bool = False
    """Whether it came encrypted, so that nobody but its sender can have written it."""


@dataclass(frozen=True, slots=True)
class Intake:
    """`names`: how the bot is addressed, its user ID among them. `encrypts`: whether it reads encrypted rooms."""

    user_id: str
    names: Sequence[str]
    max_messages: int
    encrypts: bool = False

    def sort(self, body: Mapping[str, Any], direct_rooms: Collection[str], now: int) -> Delivery:
        """What of a transaction's body matters."""
        delivery = Delivery()
        for event in body["events"]:
            if is_event(event) and matrix_id(event.get("room_id"), "!") is not None and "\x00" not in event["room_id"]:
                self._sort_event(event, direct_rooms, now, delivery)
        ephemeral = body.get("ephemeral", body.get("de.sorunome.msc2409.ephemeral"))
        if isinstance(ephemeral, list):
            delivery.receipts = list(_receipts(ephemeral, self.user_id))[:MAX_RECEIPTS]
        if self.encrypts:
            self._sort_devices(body, delivery.secrets)
        return delivery

    def sort_decrypted(self, event: RawEvent, direct_rooms: Collection[str], now: int) -> list[NewJob]:
        """What is asked in an event that came encrypted. Nothing but messages means anything in there."""
        asked = self._asked(event, direct_rooms, encrypted=True) if event["type"] == "m.room.message" else None
        return [] if asked is None else [_job("command", event, event["sender"], now, msgspec.json.encode(asked))]

    def _sort_devices(self, body: Mapping[str, Any], secrets: Secrets) -> None:
        """https://github.com/matrix-org/matrix-spec-proposals/pull/3202 and …/pull/4203"""
        lists = mapping(_part(body, DEVICE_PARTS))
        secrets.changed, secrets.left = _users(lists.get("changed")), _users(lists.get("left"))
        messages = _part(body, MESSAGE_PARTS)
        for message in messages if isinstance(messages, list) else []:
            if mapping(message).get("type") == "m.room.encrypted" and message.get("to_user_id") == self.user_id:
                secrets.messages.append(msgspec.json.encode(message))

    def counts(self, body: Mapping[str, Any], device_id: str) -> tuple[Mapping[str, Any], list[Any]] | None:
        """How many one-time keys of the bot's device are left, and which fallback keys were not used; None if a
        transaction does not say."""
        of_user = mapping(mapping(_part(body, COUNT_PARTS)).get(self.user_id))
        fallback = mapping(mapping(_part(body, FALLBACK_PARTS)).get(self.user_id)).get(device_id)
        if device_id not in of_user:
            return None
        return mapping(of_user[device_id]), fallback if isinstance(fallback, list) else []

    def _sort_encrypted(self, event: RawEvent, now: int, secrets: Secrets) -> None:
        """Whether an encrypted message is a question shows when it is opened: until then it is kept as it is."""
        if event["sender"] == self.user_id or event["origin_server_ts"] <= now - MAX_COMMAND_AGE_MS:
            return
        try:
            session_id = read_sealed(event).session_id
        except Unreadable:
            return
        secrets.events.append(
            NewSealedEvent(event["event_id"], event["room_id"], session_id, msgspec.json.encode(event))
        )

    def _sort_event(self, event: RawEvent, direct_rooms: Collection[str], now: int, delivery: Delivery) -> None:
        kind = event["type"]
        if kind == "m.room.message":
            asked = self._asked(event, direct_rooms)
            if asked is not None and event["origin_server_ts"] > now - MAX_COMMAND_AGE_MS:
                delivery.jobs.append(_job("command", event, event["sender"], now, msgspec.json.encode(asked)))
        elif kind == "m.room.encrypted" and self.encrypts and is_sealed(event):
            self._sort_encrypted(event, now, delivery.secrets)
        elif kind == "m.room.redaction":
            target = matrix_id(event["content"].get("redacts"), "$") or matrix_id(event.get("redacts"), "$")
            if target is not None:
                delivery.redacted.append(target)
                delivery.jobs.append(_job("redacted", event, event["sender"], now, target.encode()))
        elif kind == "m.room.member" and isinstance(event.get("state_key"), str):
            self._sort_membership(event, now, delivery)

    def _sort_membership(self, event: RawEvent, now: int, delivery: Delivery) -> None:
        membership, who = event["content"].get("membership"), event["state_key"]
        if who == self.user_id and membership == "invite":
            is_direct = event["content"].get("is_direct") is True
            delivery.jobs.append(_job("invite", event, event["sender"], now, msgspec.json.encode(is_direct)))
        elif membership in ("leave", "ban") and matrix_id(who, "@") is not None:
            delivery.gone.append((event["room_id"], who))
            delivery.jobs.append(_job("bot_gone" if who == self.user_id else "gone", event, who, now, b"{}"))

    def _asked(self, event: RawEvent, direct_rooms: Collection[str], *, encrypted: bool = False) -> Asked | None:
        """The question in a message. Notices are what bots say, and edits come too late."""
        content = event["content"]
        if event["sender"] == self.user_id or content.get("msgtype") != "m.text" or is_redacted(event):
            return None
        related = relation(event)
        if related is not None and related[0] == "m.replace":
            return None
        body = body_of(content)[:MAX_COMMAND_CHARACTERS]
        is_direct = event["room_id"] in direct_rooms
        if self.user_id in mentions_of(content) and not is_direct:
            body = (address(body, self.names) or body)[:MAX_COMMAND_CHARACTERS]
        meant = is_direct or body.startswith(("!", "！"))
        if not meant and not body.casefold().startswith(tuple(name.casefold() for name in self.names)):
            return None
        if parse_message(body, names=self.names, is_direct=is_direct, max_messages=self.max_messages) is None:
            return None
        relates = mapping(content.get("m.relates_to"))
        thread = related[1] if related is not None and related[0] == "m.thread" else None
        reply_to = matrix_id(mapping(relates.get("m.in_reply_to")).get("event_id"), "$")
        return Asked(body, thread, reply_to, encrypted)


def _part(body: Mapping[str, Any], names: Sequence[str]) -> object:
    """A part of a transaction by whichever of its names it goes."""
    return next((body[name] for name in names if name in body), None)


def _users(value: object) -> list[str]:
    users = [user for user in value if matrix_id(user, "@")] if isinstance(value, list) else []
    return users[:MAX_CHANGED_USERS]


def _job(kind: str, event: RawEvent, asker: str, now: int, payload: bytes) -> NewJob:
    return NewJob(kind, event["room_id"], asker, event["event_id"], payload, now, now)


def _receipts(ephemeral: Sequence[object], own: str) -> Iterator[Receipt]:
    """Public receipts for rooms as a whole: https://spec.matrix.org/v1.19/client-server-api/#receipts"""
    for item in ephemeral:
        edu = mapping(item)
        room_id = matrix_id(edu.get("room_id"), "!")
        if edu.get("type") != "m.receipt" or room_id is None:
            continue
        for event_id, kinds in mapping(edu.get("content")).items():
            if matrix_id(event_id, "$") is None:
                continue
            for user_id, receipt in mapping(mapping(kinds).get("m.read")).items():
                ts = mapping(receipt).get("ts")
                in_thread = mapping(receipt).get("thread_id") not in (None, "main")
                if matrix_id(user_id, "@") and user_id != own and type(ts) is int and 0 <= ts < 2**53 and not in_thread:
                    yield Receipt(room_id, user_id, event_id, ts)

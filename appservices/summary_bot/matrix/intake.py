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
from appservices.summary_bot.storage.inbox import Delivery, Receipt
from appservices.summary_bot.storage.jobs import NewJob

MAX_COMMAND_AGE_MS = 6 * HOUR_MS
"""Questions that have waited longer, because the bot was down, are not answered any more."""

MAX_RECEIPTS = 5000


class Asked(msgspec.Struct, frozen=True):
    """What is kept of a message to the bot until it is answered."""

    body: str
    thread: str | None = None
    reply_to: str | None = None


@dataclass(frozen=True, slots=True)
class Intake:
    """`names`: how the bot is addressed, its user ID among them."""

    user_id: str
    names: Sequence[str]
    max_messages: int

    def sort(self, body: Mapping[str, Any], direct_rooms: Collection[str], now: int) -> Delivery:
        """What of a transaction's body matters."""
        delivery = Delivery()
        for event in body["events"]:
            if is_event(event) and matrix_id(event.get("room_id"), "!") is not None and "\x00" not in event["room_id"]:
                self._sort_event(event, direct_rooms, now, delivery)
        ephemeral = body.get("ephemeral", body.get("de.sorunome.msc2409.ephemeral"))
        if isinstance(ephemeral, list):
            delivery.receipts = list(_receipts(ephemeral, self.user_id))[:MAX_RECEIPTS]
        return delivery

    def _sort_event(self, event: RawEvent, direct_rooms: Collection[str], now: int, delivery: Delivery) -> None:
        kind = event["type"]
        if kind == "m.room.message":
            asked = self._asked(event, direct_rooms)
            if asked is not None and event["origin_server_ts"] > now - MAX_COMMAND_AGE_MS:
                delivery.jobs.append(_job("command", event, event["sender"], now, msgspec.json.encode(asked)))
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

    def _asked(self, event: RawEvent, direct_rooms: Collection[str]) -> Asked | None:
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
        return Asked(body, thread, matrix_id(mapping(relates.get("m.in_reply_to")).get("event_id"), "$"))


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

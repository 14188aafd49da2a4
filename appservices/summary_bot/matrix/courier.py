"""Brings answers to people: as notices that ping nobody, in a direct chat or in the room."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from appservices.summary_bot.answers.split import Part
from appservices.summary_bot.matrix.client import MatrixClient, MatrixFailure
from appservices.summary_bot.storage.settings import SettingsRepository

SENT_DIRECTLY = "✉️"


class Cipher(Protocol):
    """What encrypts. Both raise MatrixFailure."""

    async def is_encrypted(self, room_id: str) -> bool:
        """Whether a room is encrypted."""

    async def encrypt(self, room_id: str, event_type: str, content: Mapping[str, Any]) -> dict[str, Any]:
        """The content of an `m.room.encrypted` event."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where an answer goes. `reply_to` and `thread` are events of that room."""

    room_id: str
    reply_to: str | None = None
    thread: str | None = None


def notice(part: Part, target: Target) -> dict[str, Any]:
    """The content of a message of the bot.

    https://spec.matrix.org/v1.19/client-server-api/#mnotice: other bots do not answer it; and `m.mentions` is empty, so
    that nobody is notified of a name that a summary has in it.
    """
    content = _body(part)
    if target.thread is not None:
        content["m.relates_to"] = {
            "rel_type": "m.thread",
            "event_id": target.thread,
            "is_falling_back": True,
            "m.in_reply_to": {"event_id": target.reply_to or target.thread},
        }
    elif target.reply_to is not None:
        content["m.relates_to"] = {"m.in_reply_to": {"event_id": target.reply_to}}
    return content


def edit(part: Part, event_id: str) -> dict[str, Any]:
    """The content of an edit: https://spec.matrix.org/v1.19/client-server-api/#event-replacements"""
    fallback = Part(f"* {part.plain}", f"* {part.html}")
    return _body(fallback) | {
        "m.new_content": _body(part),
        "m.relates_to": {"rel_type": "m.replace", "event_id": event_id},
    }


def _body(part: Part) -> dict[str, Any]:
    return {
        "msgtype": "m.notice",
        "body": part.plain,
        "format": "org.matrix.custom.html",
        "formatted_body": part.html,
        "m.mentions": {},
    }


class Courier:
    """Sends, edits and takes back the bot's messages: encrypted, wherever a room is, if the bot does that at all."""

    def __init__(self, client: MatrixClient, settings: SettingsRepository, cipher: Cipher | None) -> None:
        self._client = client
        self._settings = settings
        self._cipher = cipher
        self.direct_rooms: set[str] = set()
        """The rooms that are direct chats with somebody: all that is written there is meant for the bot."""

    async def open(self) -> None:
        """Loads which rooms are direct chats."""
        self.direct_rooms = await self._settings.load_direct_rooms()

    async def find_direct_room(self, user_id: str, *, encrypted: bool = False) -> str:
        """The direct chat with somebody, made if there is none or they have left it. `encrypted`: one that is, or is
        from now on."""
        room_id = (await self._settings.load_person(user_id)).direct_room
        if (
            room_id is not None
            and await self._is_open(room_id, user_id)
            and (not encrypted or await self.is_encrypted(room_id) or await self._client.turn_on_encryption(room_id))
        ):
            return room_id
        room_id = await self._client.create_direct_room(user_id, encrypted=encrypted)
        await self.set_direct_room(user_id, room_id)
        return room_id

    async def is_encrypted(self, room_id: str) -> bool:
        """Whether what is sent to a room goes encrypted."""
        return self._cipher is not None and await self._cipher.is_encrypted(room_id)

    async def _put(self, room_id: str, content: Mapping[str, Any], key: str) -> str:
        """Sends a message; its event ID."""
        if self._cipher is None or not await self._cipher.is_encrypted(room_id):
            return await self._client.send(room_id, "m.room.message", content, key)
        sealed = await self._cipher.encrypt(room_id, "m.room.message", content)
        return await self._client.send(room_id, "m.room.encrypted", sealed, key)

    async def set_direct_room(self, user_id: str, room_id: str) -> None:
        """Takes a room for the direct chat with somebody."""
        await self._settings.set_direct_room(user_id, room_id)
        self.direct_rooms.add(room_id)

    async def _is_open(self, room_id: str, user_id: str) -> bool:
        """Whether the bot and the person are the only ones there: nobody else shall read what is meant for one."""
        try:
            members = await self._client.load_joined_members(room_id)
            if members.keys() - {user_id, self._client.user_id}:
                return False
            member = await self._client.load_state(room_id, "m.room.member", user_id)
        except MatrixFailure as failure:
            if failure.is_temporary:
                raise
            return False
        return member is not None and member.get("membership") in ("join", "invite")

    async def send(self, parts: Sequence[Part], target: Target, key: str) -> list[str]:
        """Sends messages; their event IDs. The same key never sends twice."""
        return [
            await self._put(target.room_id, notice(part, target), f"{key}.{number}")
            for number, part in enumerate(parts)
        ]

    async def edit(self, part: Part, room_id: str, event_id: str, key: str) -> None:
        """Replaces a message."""
        await self._put(room_id, edit(part, event_id), key)

    async def react(self, room_id: str, event_id: str, key: str) -> None:
        """Shows in the room that an answer went out in private. A room that allows no reactions gets none. Reactions
        are never encrypted: all of one is its relation, which stands in the clear."""
        content = {"m.relates_to": {"rel_type": "m.annotation", "event_id": event_id, "key": SENT_DIRECTLY}}
        try:
            await self._client.send(room_id, "m.reaction", content, key)
        except MatrixFailure as failure:
            if failure.is_temporary:
                raise

    async def redact(self, room_id: str, event_ids: Sequence[str]) -> None:
        """Takes back messages of the bot."""
        for event_id in event_ids:
            await self._client.redact(room_id, event_id, f"redact.{event_id[1:]}")

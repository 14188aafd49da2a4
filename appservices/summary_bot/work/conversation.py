"""Whom the bot talks to, where, and in which language."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from appservices.summary_bot.answers.render import markdown_pieces, paragraph
from appservices.summary_bot.answers.split import Piece, split
from appservices.summary_bot.languages import guess_language
from appservices.summary_bot.matrix.client import MatrixClient
from appservices.summary_bot.matrix.courier import Courier, Target
from appservices.summary_bot.storage.jobs import Job
from appservices.summary_bot.storage.settings import Person, SettingsRepository
from appservices.summary_bot.texts import DEFAULT_LANGUAGE, say

ENABLE_LEVEL_TYPE = "m.room.power_levels"
DEFAULT_STATE_LEVEL = 50
FIRST_VERSION_WITH_CREATORS = 12


@dataclass(frozen=True, slots=True)
class Conversation:
    """A command being answered. `key` makes what is sent for it unique; `is_direct`: only the bot reads along."""

    room_id: str
    asker: str
    event_id: str
    key: str
    person: Person
    language: str
    is_direct: bool
    thread: str | None = None
    reply_to: str | None = None

    def text(self, line: str, **values: object) -> str:
        """A line in the asker's language."""
        return say(self.language, line, **values)

    @property
    def in_room(self) -> Target:
        """A reply where the command was written."""
        return Target(self.room_id, self.event_id, self.thread)

    def with_key(self, key: str) -> Conversation:
        """The same, for a second message."""
        return replace(self, key=key)

    def in_language(self, language: str) -> Conversation:
        """The same in another language."""
        return replace(self, language=language)

    def speaking(self, texts: Sequence[str]) -> Conversation:
        """The same, in the language of these texts if the asker has not chosen one."""
        if self.person.language is not None:
            return self
        return replace(self, language=guess_language(texts) or self.language)


class Talk:
    """Begins conversations and replies in them."""

    def __init__(self, client: MatrixClient, settings: SettingsRepository, courier: Courier) -> None:
        self._client = client
        self._settings = settings
        self.courier = courier

    async def begin(
        self, job: Job, body: str = "", thread: str | None = None, reply_to: str | None = None
    ) -> Conversation:
        """The conversation that a job is part of."""
        person = await self._settings.load_person(job.asker)
        words = " ".join(body.split()[1:])
        return Conversation(
            room_id=job.room_id,
            asker=job.asker,
            event_id=job.event_id,
            key=f"weft-{job.job}-{job.created_ts}",
            person=person,
            language=person.language or guess_language([words]) or DEFAULT_LANGUAGE,
            is_direct=job.room_id in self.courier.direct_rooms,
            thread=thread,
            reply_to=reply_to,
        )

    async def reply(self, talk: Conversation, line: str, **values: object) -> None:
        """A short reply where the command was written."""
        piece = paragraph(talk.text(line, **values))
        await self.courier.send(split([piece]), talk.in_room, talk.key)

    async def reply_lines(self, talk: Conversation, lines: Sequence[str]) -> None:
        """A short reply of several lines, which may have `code` in them."""
        await self.courier.send(split(markdown_pieces("\n".join(lines))), talk.in_room, talk.key)

    async def reply_directly(self, talk: Conversation, pieces: Sequence[Piece], *, encrypted: bool = False) -> None:
        """A reply for the asker alone, and a sign in the room that it was sent. `encrypted`: it has something of an
        encrypted room in it."""
        target = await self.private_target(talk, encrypted=encrypted)
        await self.courier.send(split(pieces), target, talk.key)
        await self.sign(talk)

    async def help(self, talk: Conversation) -> None:
        """What the bot can do."""
        await self.reply_directly(talk, markdown_pieces(talk.text("help")))

    async def private_target(self, talk: Conversation, *, encrypted: bool = False) -> Target:
        """Where only the asker reads. `encrypted`: and the homeserver does not."""
        if talk.is_direct and (not encrypted or await self.courier.is_encrypted(talk.room_id)):
            return talk.in_room
        return Target(await self.courier.find_direct_room(talk.asker, encrypted=encrypted))

    async def sign(self, talk: Conversation) -> None:
        """Shows in the room that the answer went to the direct chat."""
        if not talk.is_direct:
            await self.courier.react(talk.room_id, talk.event_id, f"{talk.key}.sign")

    async def may_change_settings(self, room_id: str, user_id: str) -> bool:
        """Whether somebody has the power to change the room's settings: that of sending state events.

        https://spec.matrix.org/v1.19/client-server-api/#mroompower_levels
        """
        levels = await self._client.load_state(room_id, ENABLE_LEVEL_TYPE)
        if await self._is_creator(room_id, user_id, has_levels=levels is not None):
            return True
        levels = levels or {}
        needed = _level(levels.get("state_default"), DEFAULT_STATE_LEVEL)
        users = levels.get("users")
        mine = users.get(user_id) if isinstance(users, dict) else None
        return _level(mine, _level(levels.get("users_default"), 0)) >= needed

    async def _is_creator(self, room_id: str, user_id: str, *, has_levels: bool) -> bool:
        """Creators have all power from room version 12 on, and before in a room without power levels.

        https://spec.matrix.org/v1.19/rooms/v12/#authorization-rules
        """
        create = await self._client.load_state(room_id, "m.room.create") or {}
        version = str(create.get("room_version", "1"))
        if not (version.isdigit() and int(version) >= FIRST_VERSION_WITH_CREATORS) and has_levels:
            return False
        event = await self._client.load_state_event(room_id, "m.room.create") or {}
        additional = create.get("additional_creators")
        return user_id == event.get("sender") or (isinstance(additional, list) and user_id in additional)


def _level(value: object, default: int) -> int:
    """A power level, which early room versions let be a string."""
    if isinstance(value, str) and value.strip().lstrip("+-").isdigit() and len(value) < 20:
        return int(value)
    return value if type(value) is int else default

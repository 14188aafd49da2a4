"""From a job to whoever does it."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence

import msgspec

from appservices.summary_bot.commands.model import Command, Mistake
from appservices.summary_bot.commands.parse import parse_message
from appservices.summary_bot.config import Limits
from appservices.summary_bot.events import matrix_id
from appservices.summary_bot.matrix.client import MatrixClient
from appservices.summary_bot.matrix.intake import Asked
from appservices.summary_bot.storage.jobs import Job, JobRepository
from appservices.summary_bot.storage.settings import SettingsRepository
from appservices.summary_bot.work.choices import Choices
from appservices.summary_bot.work.conversation import Conversation, Talk
from appservices.summary_bot.work.costs import Costs
from appservices.summary_bot.work.digests import Digests
from appservices.summary_bot.work.membership import Membership
from appservices.summary_bot.work.summaries import Summaries
from appservices.summary_bot.work.voice import Voice

log = logging.getLogger(__name__)

Answer = Callable[[Conversation, Command], Awaitable[None]]

ABOUT_A_ROOM = ("summary", "actions", "decisions", "ask")
"""Commands that read a room: the one they are written in, or one that they name."""

OF_A_ROOM = ("enable", "disable", "local", "digest")
"""Commands about the room that they are written in: a direct chat is none to have them."""

WHILE_OFF = ("enable", "disable", "help", "optout", "optin", "lang", "ignore", "unignore", "catchup", "usage", "budget")
"""What may be said in a room in which the bot is off."""


class Dispatch:
    """Does jobs."""

    def __init__(
        self,
        client: MatrixClient,
        jobs: JobRepository,
        settings: SettingsRepository,
        talk: Talk,
        membership: Membership,
        choices: Choices,
        summaries: Summaries,
        costs: Costs,
        digests: Digests,
        voice: Voice,
        *,
        names: Sequence[str],
        limits: Limits,
    ) -> None:
        self._client = client
        self._jobs = jobs
        self._settings = settings
        self._talk = talk
        self._names = names
        self._limits = limits
        self._summaries = summaries
        self._membership = membership
        self._handlers: dict[str, Callable[[Job], Awaitable[None]]] = {
            "command": self._command,
            "invite": membership.invite,
            "redacted": membership.redacted,
            "gone": membership.gone,
            "bot_gone": membership.bot_gone,
            "digest": digests.send,
            "late": _nothing,
        }
        self._commands: dict[str, Answer] = {
            "help": lambda talk, command: self._talk.help(talk),
            "enable": choices.enable,
            "disable": choices.disable,
            "local": choices.local,
            "role": choices.role,
            "lang": choices.lang,
            "optout": choices.optout,
            "optin": choices.optin,
            "ignore": choices.ignore,
            "unignore": choices.unignore,
            "why": summaries.why,
            "usage": costs.usage,
            "budget": costs.budget,
            "digest": digests.order,
            "catchup": digests.catch_up,
            "transcribe": voice.transcribe,
        }

    async def handle(self, job: Job) -> None:
        """Does a job of any kind."""
        await self._handlers[job.kind](job)

    async def failed(self, job: Job, line: str) -> None:
        """Says that a question will not be answered."""
        if job.kind != "command":
            return
        talk = await self._begin(job)
        await self._talk.reply(talk.with_key(f"{talk.key}.failed"), line)

    async def cancelled(self, job: Job) -> None:
        """Takes back what was shown of an answer, when its question is redacted or the asker has left."""
        await self._membership.take_back_unfinished((await self._begin(job)).key)

    async def _begin(self, job: Job) -> Conversation:
        if job.kind != "command":
            return await self._talk.begin(job)
        asked = msgspec.json.decode(job.payload, type=Asked)
        return await self._talk.begin(job, asked.body, asked.thread, asked.reply_to)

    async def _command(self, job: Job) -> None:
        asked = msgspec.json.decode(job.payload, type=Asked)
        talk = await self._begin(job)
        command = parse_message(
            asked.body, names=self._names, is_direct=talk.is_direct, max_messages=self._limits.max_messages
        )
        if command is None or await self._is_too_much(talk, job):
            return
        if not asked.encrypted and await self._talk.courier.is_encrypted(talk.room_id):
            await self._talk.reply(talk, "ask_encrypted")
            return
        if isinstance(command, Mistake):
            await self._talk.reply(talk, f"mistake_{command.hint}", word=command.word)
            return
        is_on = talk.is_direct or (await self._settings.load_room(talk.room_id)).enabled
        if not is_on and command.verb not in WHILE_OFF:
            await self._talk.reply(talk, "not_enabled")
        elif talk.is_direct and command.verb in OF_A_ROOM:
            await self._talk.reply(talk, "in_the_room", verb=command.verb)
        elif command.verb in ABOUT_A_ROOM:
            await self._about_a_room(talk, command)
        else:
            await self._commands[command.verb](talk, command)

    async def _about_a_room(self, talk: Conversation, command: Command) -> None:
        """Finds the room that a question is about: it has to be enabled there, too."""
        room_id: str | None = talk.room_id
        if command.scope.room is not None:
            room_id = command.scope.room
            if matrix_id(room_id, "#"):
                room_id = await self._client.resolve_alias(room_id)
        elif talk.is_direct:
            await self._talk.reply(talk, "which_room", verb=command.verb)
            return
        if room_id is None:
            await self._talk.reply(talk, "not_member")
        elif not (await self._settings.load_room(room_id)).enabled:
            await self._talk.reply(talk, "not_enabled" if room_id == talk.room_id else "not_member")
        else:
            await self._summaries.answer(talk, command, room_id)

    async def _is_too_much(self, talk: Conversation, job: Job) -> bool:
        """Whether so much waits already that this is refused."""
        of_person, of_all = await self._jobs.load_ahead(talk.asker, job.job)
        if of_person >= self._limits.max_queued_per_person:
            await self._talk.reply(talk, "busy_person", count=of_person)
        elif of_all >= self._limits.max_queued:
            await self._talk.reply(talk, "busy")
        else:
            return False
        return True


async def _nothing(job: Job) -> None:
    """A digest that comes too late: the next one will tell."""
    log.info("a digest of a time when the bot was down is left out: job %s", job.job)

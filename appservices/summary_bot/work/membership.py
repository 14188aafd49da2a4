"""What follows from comings and goings, and from redactions: no command, but jobs like any other."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import msgspec

from appservices.summary_bot.answers.render import markdown_pieces
from appservices.summary_bot.answers.split import split
from appservices.summary_bot.clock import Clock
from appservices.summary_bot.encryption.parts import Encryption
from appservices.summary_bot.matrix.client import MatrixClient, MatrixFailure
from appservices.summary_bot.matrix.courier import Courier, Target
from appservices.summary_bot.storage.answers import MAX_AT_ONCE, Answer, AnswerRepository
from appservices.summary_bot.storage.audit import AuditRepository
from appservices.summary_bot.storage.jobs import Job
from appservices.summary_bot.storage.settings import SettingsRepository
from appservices.summary_bot.texts import DEFAULT_LANGUAGE, say
from appservices.summary_bot.work.wardrobe import Wardrobe

log = logging.getLogger(__name__)


class Membership:
    """Handles the jobs "invite", "redacted", "gone" and "bot_gone"."""

    def __init__(
        self,
        client: MatrixClient,
        settings: SettingsRepository,
        answers: AnswerRepository,
        audit: AuditRepository,
        courier: Courier,
        wardrobe: Wardrobe,
        encryption: Encryption | None,
        clock: Clock,
    ) -> None:
        self._client = client
        self._settings = settings
        self._answers = answers
        self._audit = audit
        self._courier = courier
        self._wardrobe = wardrobe
        self._encryption = encryption
        self._clock = clock

    async def invite(self, job: Job) -> None:
        """Joins, and says hello; a direct chat is remembered as that with whoever invited."""
        try:
            await self._client.join(job.room_id)
        except MatrixFailure as failure:
            if failure.is_temporary:
                raise
            log.info("an invitation could not be followed: %s", failure)
            return
        await self._audit.persist_entry(self._clock(), job.asker, "invited", job.room_id)
        is_direct = msgspec.json.decode(job.payload) is True
        members = await self._client.load_joined_members(job.room_id)
        is_direct = is_direct and members.keys() <= {job.asker, self._client.user_id}
        if is_direct:
            await self._courier.set_direct_room(job.asker, job.room_id)
        person = await self._settings.load_person(job.asker)
        role = (person.role if is_direct else None) or (await self._settings.load_room(job.room_id)).role
        await self._wardrobe.dress(job.room_id, role)
        language = person.language or DEFAULT_LANGUAGE
        text = say(language, "welcome_direct" if is_direct else "welcome")
        await self._courier.send(split(markdown_pieces(text)), Target(job.room_id), f"hello-{job.event_id[1:]}")

    async def redacted(self, job: Job) -> None:
        """Takes back every answer that rests on an event that is gone. Cached facts went when the news came in."""
        while answers := await self._answers.load_by_sources([job.payload.decode()]):
            await self.take_back(answers)

    async def gone(self, job: Job) -> None:
        """Takes back what somebody was told about a room that they have left, or were made to leave."""
        while answers := await self._answers.load_by_reader(job.room_id, job.asker):
            await self.take_back(answers)
        if job.room_id in self._courier.direct_rooms and await self._settings.load_direct_partner(job.room_id):
            await self._leave_direct(job)

    async def bot_gone(self, job: Job) -> None:
        """Forgets a room that the bot is no longer in, and takes back what it told about it."""
        while answers := await self._answers.load_by_room(job.room_id):
            await self.take_back(answers)
        await self.forget_room(job.room_id)
        if self._encryption is not None:
            await self._encryption.forget_room(job.room_id)
        await self._audit.persist_entry(self._clock(), job.asker, "removed", job.room_id)

    async def opt_out(self, user_id: str) -> None:
        """Keeps somebody's words out of everything, and drops the facts that were drawn from them."""
        await self._settings.set_opted_out(user_id, True)

    async def take_back_unfinished(self, key: str) -> None:
        """Takes back what was shown of an answer that nobody is to get any more."""
        await self.take_back(await self._answers.load_by_key(key))

    async def forget_room(self, room_id: str) -> None:
        """Drops settings, facts and schedules of a room."""
        await self._settings.forget_room(room_id)
        self._courier.direct_rooms.discard(room_id)

    async def _leave_direct(self, job: Job) -> None:
        if await self._settings.load_direct_partner(job.room_id) == job.asker:
            await self.forget_room(job.room_id)
            try:
                await self._client.leave(job.room_id)
            except MatrixFailure as failure:
                if failure.is_temporary:
                    raise

    async def take_back(self, answers: Sequence[Answer]) -> None:
        """Takes answers back from where they were sent, and forgets them."""
        assert len(answers) <= MAX_AT_ONCE
        for answer in answers:
            await self._courier.redact(answer.target_room, answer.sent_event_ids)
            await self._answers.delete_answer(answer.answer)

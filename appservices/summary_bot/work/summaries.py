"""`!summary`, `!actions`, `!decisions`, `!ask` and `!why`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from appservices.summary_bot.answers.model import Summary
from appservices.summary_bot.answers.render import Place, name_of, pieces_of_lines, summary_pieces
from appservices.summary_bot.answers.split import Piece, split
from appservices.summary_bot.clock import DAY_MS, Clock
from appservices.summary_bot.commands.model import Command, Scope
from appservices.summary_bot.engines.contract import Ask, Purpose
from appservices.summary_bot.engines.extractive.process import ExtractiveEngine
from appservices.summary_bot.engines.summariser import Summariser
from appservices.summary_bot.events import build_messages, is_event
from appservices.summary_bot.history.reader import HistoryReader, HistoryRefused, Transcript
from appservices.summary_bot.matrix.client import MatrixClient
from appservices.summary_bot.matrix.courier import Target
from appservices.summary_bot.ranges import UNREAD, Range
from appservices.summary_bot.storage.answers import AnswerRepository
from appservices.summary_bot.storage.settings import SettingsRepository
from appservices.summary_bot.work.conversation import Conversation, Talk

DEFAULT_RANGES: dict[str, Range] = {
    "actions": Range("duration", duration_ms=7 * DAY_MS),
    "decisions": Range("duration", duration_ms=7 * DAY_MS),
    "ask": Range("duration", duration_ms=30 * DAY_MS),
}
"""What is read where the question does not say: only a summary asks what is new."""

EMPTY_LINES: dict[Purpose, str] = {
    "summary": "nothing_found",
    "actions": "no_actions",
    "decisions": "no_decisions",
    "ask": "no_answer",
}
MAX_QUOTE_CHARACTERS = 300


class Summaries:
    """Answers questions about a room's history."""

    def __init__(
        self,
        client: MatrixClient,
        settings: SettingsRepository,
        answers: AnswerRepository,
        history: HistoryReader,
        built_in: ExtractiveEngine,
        summariser: Summariser,
        talk: Talk,
        clock: Clock,
    ) -> None:
        self._client = client
        self._settings = settings
        self._answers = answers
        self._history = history
        self._built_in = built_in
        self._summariser = summariser
        self._talk = talk
        self._clock = clock

    async def answer(self, talk: Conversation, command: Command, room_id: str) -> None:
        """Reads, summarises, and sends what came out."""
        purpose: Purpose = command.verb  # type: ignore[assignment]
        scope = command.scope
        if scope.range is UNREAD and purpose in DEFAULT_RANGES and not scope.thread:
            scope = replace(scope, range=DEFAULT_RANGES[purpose])
        try:
            transcript = await self.read(room_id, talk, scope)
        except HistoryRefused as refused:
            await self._talk.reply(talk, refused.line)
            return
        own = [message.body for message in transcript.messages if message.sender == talk.asker]
        talk = talk.speaking([command.text or scope.about or "", *own[-20:]])
        room = await self._settings.load_room(room_id)
        ask = Ask(
            room_id, talk.asker, purpose, command.text, talk.language, room.role, room.local_models_only, scope.here
        )
        summary = await self._summariser.summarise(ask, transcript)
        await self.deliver(talk, ask, transcript, summary)

    async def read(self, room_id: str, talk: Conversation, scope: Scope) -> Transcript:
        """The messages of a scope; of those, where it has a subject, the ones about it."""
        transcript = await self._history.read(
            room_id,
            talk.asker,
            scope,
            now=self._clock(),
            thread=talk.thread if room_id == talk.room_id else None,
            ignored=talk.person.ignored,
        )
        if scope.about is None or not transcript.messages:
            return transcript
        messages = await self._built_in.relevant(transcript.messages, scope.about)
        coverage = replace(
            transcript.coverage,
            covered=len(messages),
            total=len(messages),
            first_ts=messages[0].ts if messages else 0,
            last_ts=messages[-1].ts if messages else 0,
        )
        return replace(transcript, messages=messages, coverage=coverage)

    async def deliver(self, talk: Conversation, ask: Ask, transcript: Transcript, summary: Summary) -> None:
        """Sends an answer, unless an event that it rests on was redacted meanwhile."""
        target = talk.in_room if ask.seen_by_all and ask.room_id == talk.room_id else await self._private(talk)
        summary = await self._without_redacted(summary)
        notes = [talk.text(line) for line in transcript.notes]
        if transcript.messages and not any(summary.sections.values()):
            notes.insert(0, talk.text(EMPTY_LINES[ask.purpose]))
        summary = replace(summary, notes=notes)
        title = talk.text("title", room=transcript.place.name)
        pieces = summary_pieces(summary, transcript.place, transcript.names, talk.language, title)
        await self.send(talk, ask.room_id, target, summary, pieces)
        if target.room_id != talk.room_id:
            await self._talk.sign(talk)

    async def send(
        self, talk: Conversation, room_id: str, target: Target, summary: Summary, pieces: Sequence[Piece]
    ) -> None:
        """Notes what an answer rests on, sends it, and takes it back if that was redacted in the same moment."""
        bullets = [bullet.event_ids for _, bullet in summary.bullets()]
        number = await self._answers.persist_answer(room_id, talk.asker, target.room_id, bullets, now=self._clock())
        sent = []
        for position, part in enumerate(split(pieces)):
            (event_id,) = await self._talk.courier.send([part], target, f"{talk.key}.p{position}")
            await self._answers.add_sent(number, event_id)
            sent.append(event_id)
        if await self._answers.load_redacted([event_id for bullet in bullets for event_id in bullet]):
            await self._talk.courier.redact(target.room_id, sent)
            await self._answers.delete_answer(number)

    async def _without_redacted(self, summary: Summary) -> Summary:
        sources = [event_id for _, bullet in summary.bullets() for event_id in bullet.event_ids]
        redacted = await self._answers.load_redacted(sources)
        if not redacted:
            return summary
        sections = {
            name: [bullet for bullet in bullets if not redacted & set(bullet.event_ids)]
            for name, bullets in summary.sections.items()
        }
        return replace(summary, sections=sections)

    async def _private(self, talk: Conversation) -> Target:
        return await self._talk.private_target(talk)

    async def why(self, talk: Conversation, command: Command) -> None:
        """Quotes what a line of an answer rests on, read anew from the room."""
        number = int(command.words[0]) if command.words else 1
        target = await self._private(talk)
        answer = None
        if talk.reply_to is not None:
            answer = await self._answers.load_by_event(talk.room_id, talk.reply_to)
        if answer is None:
            answer = await self._answers.load_last(target.room_id, talk.asker)
        if answer is None or answer.asker != talk.asker or number > len(answer.bullets):
            await self._talk.reply(talk, "why_nothing", number=number)
            return
        try:
            names = await self._history.check_member(answer.room_id, talk.asker)
        except HistoryRefused as refused:
            await self._talk.reply(talk, refused.line)
            return
        lines = []
        for event_id in answer.bullets[number - 1]:
            event = await self._client.load_event(answer.room_id, event_id)
            found = build_messages([event]) if event is not None and is_event(event) else []
            text = talk.text("why_gone")
            if found:
                body = found[0].body
                cut = body[:MAX_QUOTE_CHARACTERS] + ("…" if len(body) > MAX_QUOTE_CHARACTERS else "")
                text = f"{name_of(found[0].sender, names)}: {cut}"
            lines.append((text, [event_id]))
        place = Place(answer.room_id, "")
        pieces = pieces_of_lines(talk.text("why_title", number=number), lines, place.link)
        await self._talk.reply_directly(talk, pieces)

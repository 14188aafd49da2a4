"""`!summary`, `!actions`, `!decisions`, `!ask` and `!why`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

from appservices.summary_bot.answers.model import Engine, Summary
from appservices.summary_bot.answers.render import Place, name_of, pieces_of_lines, summary_pieces
from appservices.summary_bot.answers.split import Part, Piece, split
from appservices.summary_bot.clock import DAY_MS, Clock
from appservices.summary_bot.commands.model import Command, Scope
from appservices.summary_bot.engines.contract import Ask, Purpose
from appservices.summary_bot.engines.extractive.process import ExtractiveEngine
from appservices.summary_bot.engines.models.engine import Sections
from appservices.summary_bot.engines.summariser import Summariser
from appservices.summary_bot.events import build_messages
from appservices.summary_bot.history.reader import HistoryReader, HistoryRefused, Transcript
from appservices.summary_bot.matrix.courier import Target
from appservices.summary_bot.ranges import UNREAD, Range
from appservices.summary_bot.storage.answers import Answer, AnswerRepository, Bullets
from appservices.summary_bot.storage.settings import SettingsRepository
from appservices.summary_bot.work.conversation import Conversation, Talk
from appservices.summary_bot.work.quoting import Quoting, Rest
from appservices.summary_bot.work.streaming import Streamer

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
        settings: SettingsRepository,
        answers: AnswerRepository,
        history: HistoryReader,
        built_in: ExtractiveEngine,
        summariser: Summariser,
        talk: Talk,
        quoting: Quoting,
        clock: Clock,
        *,
        any_models: bool,
    ) -> None:
        """`any_models`: whether messages of encrypted rooms may be given to models that are not local."""
        self._settings = settings
        self._answers = answers
        self._history = history
        self._built_in = built_in
        self._summariser = summariser
        self._talk = talk
        self._quoting = quoting
        self._clock = clock
        self._any_models = any_models

    async def answer(self, talk: Conversation, command: Command, room_id: str, *, is_digest: bool = False) -> None:
        """Reads, summarises, and sends what came out. A digest is no reply, and stays away if there is nothing."""
        purpose: Purpose = command.verb  # type: ignore[assignment]
        scope = command.scope
        if scope.thread and talk.thread is None:
            await self._talk.reply(talk, "no_thread")
            return
        if scope.range is UNREAD and purpose in DEFAULT_RANGES and not scope.thread:
            scope = replace(scope, range=DEFAULT_RANGES[purpose])
        try:
            transcript = await self.read(room_id, talk, scope)
        except HistoryRefused as refused:
            if not is_digest:
                await self._talk.reply(talk, refused.line)
            return
        if is_digest and not transcript.messages:
            return
        own = [message.body for message in transcript.messages if message.sender == talk.asker]
        talk = talk.speaking([command.text or scope.about or "", *own[-20:]])
        room = await self._settings.load_room(room_id)
        role = room.role if scope.here else talk.person.role or room.role
        is_open = not transcript.encrypted
        local_only = room.local_models_only or not (is_open or self._any_models)
        ask = Ask(room_id, talk.asker, purpose, command.text, talk.language, role, local_only, scope.here, is_open)
        await self._deliver(talk, ask, transcript, is_digest=is_digest)

    async def read(self, room_id: str, talk: Conversation, scope: Scope) -> Transcript:
        """The messages of a scope, as the asker of a conversation sees them."""
        thread = talk.thread if room_id == talk.room_id else None
        return await self._read(room_id, talk.asker, scope, thread, talk.person.ignored, None)

    async def _read(
        self,
        room_id: str,
        asker: str,
        scope: Scope,
        thread: str | None,
        ignored: Sequence[str],
        unread_after: str | None,
    ) -> Transcript:
        """The messages of a scope; of those, where it has a subject, the ones about it."""
        transcript = await self._history.read(
            room_id, asker, scope, now=self._clock(), thread=thread, ignored=ignored, unread_after=unread_after
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

    async def compute(
        self, ask: Ask, scope: Scope, *, thread: str | None, ignored: Sequence[str], unread_after: str | None
    ) -> tuple[Transcript, Summary]:
        """An answer for a program. Raises HistoryRefused: for encrypted rooms, too, because the homeserver knows the
        tokens by which programs show who they are, and could ask in anybody's name."""
        if await self._history.is_encrypted(ask.room_id):
            raise HistoryRefused("encrypted")
        transcript = await self._read(ask.room_id, ask.asker, scope, thread, ignored, unread_after)
        return transcript, await self._without_redacted(await self._summariser.summarise(ask, transcript))

    async def _deliver(self, talk: Conversation, ask: Ask, transcript: Transcript, *, is_digest: bool) -> None:
        """Summarises, shows what is there so far, and sends the whole in the end."""
        in_room = Target(talk.room_id) if is_digest else talk.in_room
        target = in_room if ask.seen_by_all and ask.room_id == talk.room_id else await self._private(talk, transcript)
        number = await self._answers.persist_answer(
            ask.room_id, talk.asker, target.room_id, [], key=talk.key, now=self._clock()
        )
        answer = _Sending(self, talk, ask, transcript, target, number, is_digest=is_digest)
        async with answer.streaming():
            summary = await self._summariser.summarise(ask, transcript, answer.streamer.show)
        await answer.finish(await self._without_redacted(summary))
        if target.room_id != talk.room_id and not is_digest:
            await self._talk.sign(talk)

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

    async def send_parts(self, answer: _Sending, summary: Summary) -> None:
        """Notes what an answer rests on, sends it, and takes it back if that was redacted in the same moment."""
        bullets = [bullet.event_ids for _, bullet in summary.bullets()]
        await self._answers.add_sources(answer.number, bullets, answer.oldest_ts(bullets))
        sent = []
        for position, part in enumerate(split(answer.pieces(summary))):
            if position == 0:
                event_id = await answer.streamer.put(part)
            else:
                (event_id,) = await self._talk.courier.send([part], answer.target, f"{answer.talk.key}.p{position}")
            await self._answers.add_sent(answer.number, event_id)
            sent.append(event_id)
        if await self._answers.load_redacted([event_id for bullet in bullets for event_id in bullet]):
            await self._talk.courier.redact(answer.target.room_id, sent)
            await self._answers.delete_answer(answer.number)

    async def show_so_far(self, answer: _Sending, sections: Sections) -> Part:
        """What an answer looks like while it is being written."""
        coverage, working = answer.transcript.coverage, answer.talk.text("working")
        summary = await self._without_redacted(Summary(sections, coverage, Engine("model"), [working]))
        bullets = [bullet.event_ids for _, bullet in summary.bullets()]
        await self._answers.add_sources(answer.number, bullets, answer.oldest_ts(bullets))
        return split(answer.pieces(summary, is_whole=False))[0]

    def stream_to(self, answer: _Sending) -> Streamer:
        """What shows an answer while it is being written."""

        async def render(sections: Sections) -> Part:
            return await self.show_so_far(answer, sections)

        return Streamer(self._talk.courier, answer.target, answer.talk.key, render)

    async def note_sent(self, answer: _Sending) -> None:
        """Notes the message that shows an answer so far, so that a redaction finds it."""
        if answer.streamer.event_id is not None:
            await self._answers.add_sent(answer.number, answer.streamer.event_id)

    async def _private(self, talk: Conversation, transcript: Transcript) -> Target:
        return await self._talk.private_target(talk, encrypted=transcript.encrypted)

    async def why(self, talk: Conversation, command: Command) -> None:
        """Quotes what a line of an answer rests on, read anew from the room."""
        number = int(command.words[0]) if command.words else 1
        answer = await self._find_line(talk, number)
        if answer is None:
            await self._talk.reply(talk, "why_nothing", number=number)
            return
        try:
            names = await self._history.check_member(answer.room_id, talk.asker)
        except HistoryRefused as refused:
            await self._talk.reply(talk, refused.line)
            return
        lines, oldest_ts = [], None
        for event_id in answer.bullets[number - 1]:
            event = await self._history.load_event(answer.room_id, event_id)
            found = build_messages([event]) if event is not None else []
            text = talk.text("why_gone")
            if found:
                body = found[0].body
                cut = body[:MAX_QUOTE_CHARACTERS] + ("…" if len(body) > MAX_QUOTE_CHARACTERS else "")
                text = f"{name_of(found[0].sender, names)}: {cut}"
                oldest_ts = found[0].ts if oldest_ts is None else min(oldest_ts, found[0].ts)
            lines.append((text, [event_id]))
        place = Place(answer.room_id, "")
        pieces = pieces_of_lines(talk.text("why_title", number=number), lines, place.link)
        rest = Rest(answer.room_id, [], answer.bullets[number - 1], oldest_ts)
        encrypted = await self._history.is_encrypted(answer.room_id)
        target = await self._talk.private_target(talk, encrypted=encrypted)
        await self._quoting.send(pieces, target, talk.asker, talk.key, [rest])
        await self._talk.sign(talk)

    async def _find_line(self, talk: Conversation, number: int) -> Answer | None:
        """The answer that a line is of: the one replied to, else the newest that the asker got, here or in private.

        One that is about several rooms is kept as an answer for each, in which the lines of the others are empty.
        """
        answer = None
        if talk.reply_to is not None:
            answer = await self._answers.load_by_event(talk.room_id, talk.reply_to)
        if answer is None:
            rooms = {talk.room_id, talk.person.direct_room or talk.room_id}
            answer = await self._answers.load_last(sorted(rooms), talk.asker)
        if answer is None or answer.asker != talk.asker:
            return None
        for part in await self._answers.load_by_key(answer.key):
            if number <= len(part.bullets) and part.bullets[number - 1]:
                return part
        return None


class _Sending:
    """An answer on its way."""

    def __init__(
        self,
        summaries: Summaries,
        talk: Conversation,
        ask: Ask,
        transcript: Transcript,
        target: Target,
        number: int,
        *,
        is_digest: bool,
    ) -> None:
        self._summaries = summaries
        self.talk = talk
        self.ask = ask
        self.transcript = transcript
        self.target = target
        self.number = number
        self.title = "digest_title" if is_digest else "title"
        self._times = {message.event_id: message.ts for message in transcript.messages}
        self.streamer = summaries.stream_to(self)

    @asynccontextmanager
    async def streaming(self) -> AsyncIterator[None]:
        """Shows what is there so far inside the `with`."""
        task = asyncio.create_task(self.streamer.run())
        try:
            yield
        finally:
            self.streamer.end()
            await asyncio.wait([task])
            await self._summaries.note_sent(self)
            task.result()

    async def finish(self, summary: Summary) -> None:
        """Sends the whole."""
        notes = [self.talk.text(line) for line in self.transcript.notes]
        if self.transcript.messages and not any(summary.sections.values()):
            notes.insert(0, self.talk.text(EMPTY_LINES[self.ask.purpose]))
        await self._summaries.send_parts(self, replace(summary, notes=notes))

    def pieces(self, summary: Summary, *, is_whole: bool = True) -> list[Piece]:
        """The pieces of the answer."""
        place, names = self.transcript.place, self.transcript.names
        title = self.talk.text(self.title, room=place.name)
        return summary_pieces(summary, place, names, self.talk.language, title, is_whole=is_whole)

    def oldest_ts(self, bullets: Bullets) -> int | None:
        """When the oldest of the messages behind these lines was sent."""
        times = [self._times[event_id] for bullet in bullets for event_id in bullet if event_id in self._times]
        return min(times, default=None)

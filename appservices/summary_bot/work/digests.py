"""`!digest` and `!catchup`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from appservices.summary_bot.answers.model import Bullet
from appservices.summary_bot.answers.render import Place, bullet_piece, format_time, heading, paragraph, small
from appservices.summary_bot.answers.split import Piece
from appservices.summary_bot.clock import DAY_MS, Clock
from appservices.summary_bot.commands.model import Command, Scope
from appservices.summary_bot.engines.extractive.contract import Request
from appservices.summary_bot.engines.extractive.process import ExtractiveEngine
from appservices.summary_bot.history.reader import HistoryReader, HistoryRefused
from appservices.summary_bot.matrix.client import MatrixClient
from appservices.summary_bot.ranges import Range
from appservices.summary_bot.schedules.times import next_time
from appservices.summary_bot.storage.answers import Bullets
from appservices.summary_bot.storage.jobs import Job
from appservices.summary_bot.storage.schedules import ScheduleRepository, ScheduleRow
from appservices.summary_bot.storage.settings import SettingsRepository
from appservices.summary_bot.work.conversation import Conversation, Talk
from appservices.summary_bot.work.quoting import Quoting, Rest
from appservices.summary_bot.work.summaries import Summaries

MAX_ROOMS = 50
"""How many rooms a catch-up reads."""

MAX_ROOMS_ASKED = 500
"""Of how many rooms it is asked who is in them, where the homeserver does not say which are the asker's."""

LINES_PER_ROOM = 3


@dataclass(frozen=True, slots=True)
class _Room:
    """What is new in a room. `count`: of messages."""

    place: Place
    names: Mapping[str, str]
    count: int
    lines: Sequence[Bullet]
    weight: float
    oldest_ts: int | None
    encrypted: bool


class Digests:
    """What comes regularly, and what comes from many rooms."""

    def __init__(
        self,
        client: MatrixClient,
        settings: SettingsRepository,
        schedules: ScheduleRepository,
        history: HistoryReader,
        built_in: ExtractiveEngine,
        summaries: Summaries,
        talk: Talk,
        quoting: Quoting,
        changed: Callable[[], None],
        clock: Clock,
    ) -> None:
        self._client = client
        self._settings = settings
        self._schedules = schedules
        self._history = history
        self._built_in = built_in
        self._summaries = summaries
        self._talk = talk
        self._quoting = quoting
        self._changed = changed
        self._clock = clock

    async def order(self, talk: Conversation, command: Command) -> None:
        """Orders a digest, shows what is ordered, or ends it."""
        if command.schedule is None:
            if command.words == ("off",):
                await self._schedules.delete_schedule(talk.room_id, talk.asker)
                await self._talk.reply(talk, "digest_off")
                return
            row = await self._schedules.load_schedule(talk.room_id, talk.asker)
            await (self._talk.reply(talk, "digest_none") if row is None else self._describe(talk, row))
            return
        here = command.scope.here
        if here and not await self._talk.may_change_settings(talk.room_id, talk.asker):
            await self._talk.reply(talk, "no_power")
            return
        wanted = command.schedule
        next_ts = next_time(self._clock(), wanted.every, wanted.minute_of_day, wanted.zone)
        row = ScheduleRow(
            0,
            talk.room_id,
            talk.asker,
            talk.room_id if here else None,
            wanted.every,
            wanted.minute_of_day,
            wanted.zone,
            next_ts,
        )
        await self._schedules.set_schedule(row)
        self._changed()
        await self._describe(talk, row)

    async def _describe(self, talk: Conversation, row: ScheduleRow) -> None:
        clock = f"{row.minute_of_day // 60:02}:{row.minute_of_day % 60:02}"
        line = "digest_every_day" if row.every == "day" else "digest_every_week"
        when = talk.text(line, time=clock, zone=row.zone)
        await self._talk.reply(
            talk, "digest_here" if row.target_room else "digest_set", when=when, next=format_time(row.next_ts)
        )

    async def send(self, job: Job) -> None:
        """Sends a digest that is due: the last day, or the last week."""
        row = await self._schedules.load_schedule(job.room_id, job.asker)
        if row is None or not (await self._settings.load_room(job.room_id)).enabled:
            return
        talk = replace(await self._talk.begin(job), event_id="", is_direct=False)
        days = 1 if row.every == "day" else 7
        scope = Scope(Range("duration", duration_ms=days * DAY_MS), here=row.target_room is not None)
        await self._summaries.answer(talk, Command("summary", scope), job.room_id, is_digest=True)

    async def catch_up(self, talk: Conversation, _command: Command) -> None:
        """What is new in all of the asker's rooms that have the bot, the room that matters most first."""
        rooms = await self._rooms_of(talk.asker)
        found = []
        for room_id in rooms[:MAX_ROOMS]:
            room = await self._look(talk, room_id)
            if room is not None:
                found.append(room)
        more = len(rooms) - MAX_ROOMS
        closing = [small(talk.text("catchup_more", count=more))] if more > 0 else []
        if not found:
            await self._talk.reply_directly(talk, [paragraph(talk.text("catchup_none")), *closing])
            return
        found.sort(key=lambda room: -room.weight)
        pieces: list[Piece] = [heading(talk.text("catchup_title"))]
        number = 0
        for room in found:
            pieces.append(heading(talk.text("catchup_room", room=room.place.name, count=room.count), level=4))
            for bullet in room.lines:
                number += 1
                pieces.append(bullet_piece(bullet, number, room.place, room.names, talk.language))
        target = await self._talk.private_target(talk, encrypted=any(room.encrypted for room in found))
        pieces += [small(talk.text("by_engine")), *closing]
        await self._quoting.send(pieces, target, talk.asker, talk.key, _rests(found))
        await self._talk.sign(talk)

    async def _rooms_of(self, user_id: str) -> list[str]:
        """Somebody's rooms in which the bot is on."""
        enabled = await self._settings.load_enabled(await self._client.load_joined_rooms())
        mutual = await self._client.load_mutual_rooms(user_id)
        if mutual is not None:
            return sorted(enabled.intersection(mutual))
        asked = sorted(enabled)[:MAX_ROOMS_ASKED]
        return [room_id for room_id in asked if await self._client.is_joined(room_id, user_id)]

    async def _look(self, talk: Conversation, room_id: str) -> _Room | None:
        """A room's news: more weight for decisions, actions and mentions of the asker than for talk."""
        try:
            transcript = await self._history.read(
                room_id, talk.asker, Scope(), now=self._clock(), ignored=talk.person.ignored
            )
        except HistoryRefused:
            return None
        if not transcript.messages:
            return None
        sections = (await self._built_in.summarise(Request(list(transcript.messages)))).sections
        important = [b for name in ("decisions", "actions", "open_questions") for b in sections.get(name, ())]
        mine = sum(talk.asker in message.mentions for message in transcript.messages)
        weight = 5.0 * mine + 2.0 * len(important) + math.log1p(len(transcript.messages))
        lines = (important + sections.get("outcome", []))[:LINES_PER_ROOM]
        sources = {event_id for line in lines for event_id in line.event_ids}
        oldest_ts = min((m.ts for m in transcript.messages if m.event_id in sources), default=None)
        return _Room(
            transcript.place, transcript.names, len(transcript.messages), lines, weight, oldest_ts, transcript.encrypted
        )


def _rests(rooms: Sequence[_Room]) -> list[Rest]:
    """What the lines of a catch-up rest on, for each room: they are numbered through all rooms."""
    rests, before = [], 0
    for room in rooms:
        bullets: Bullets = [[]] * before + [list(line.event_ids) for line in room.lines]
        rests.append(Rest(room.place.room_id, bullets, (), room.oldest_ts))
        before += len(room.lines)
    return rests

"""Sends what quotes messages, so that it can be taken back when one of them is gone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from appservices.summary_bot.answers.split import Piece, split
from appservices.summary_bot.clock import Clock
from appservices.summary_bot.matrix.courier import Courier, Target
from appservices.summary_bot.storage.answers import AnswerRepository, Bullets


@dataclass(frozen=True, slots=True)
class Rest:
    """What a message of the bot rests on in one room.

    `bullets`: the events behind each numbered line, none behind a line that is about another room; `others`: events
    without a line; `oldest_ts`: when the oldest of all was sent.
    """

    room_id: str
    bullets: Bullets
    others: Sequence[str]
    oldest_ts: int | None

    @property
    def sources(self) -> list[str]:
        """All events."""
        return [event_id for bullet in self.bullets for event_id in bullet] + list(self.others)


class Quoting:
    """Notes first, sends then, and looks last whether anything went in between."""

    def __init__(self, answers: AnswerRepository, courier: Courier, clock: Clock) -> None:
        self._answers = answers
        self._courier = courier
        self._clock = clock

    async def send(self, pieces: Sequence[Piece], target: Target, asker: str, key: str, rests: Sequence[Rest]) -> None:
        """Sends pieces that rest on events of one room or of several."""
        numbers = [
            await self._answers.persist_answer(
                rest.room_id,
                asker,
                target.room_id,
                rest.bullets,
                key=key,
                now=self._clock(),
                others=rest.others,
                oldest_ts=rest.oldest_ts,
            )
            for rest in rests
        ]
        sent = []
        for position, part in enumerate(split(pieces)):
            (event_id,) = await self._courier.send([part], target, f"{key}.p{position}")
            sent.append(event_id)
            for number in numbers:
                await self._answers.add_sent(number, event_id)
        if await self._answers.load_redacted([event_id for rest in rests for event_id in rest.sources]):
            await self._courier.redact(target.room_id, sent)
            for number in numbers:
                await self._answers.delete_answer(number)

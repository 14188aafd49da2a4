"""Chooses the engine for a question: models where there are some that may be used, else the built-in one."""

from __future__ import annotations

from appservices.summary_bot.answers.model import Engine, Summary
from appservices.summary_bot.engines.contract import Ask
from appservices.summary_bot.engines.extractive.contract import Request
from appservices.summary_bot.engines.extractive.process import ExtractiveEngine
from appservices.summary_bot.history.reader import Transcript


class Summariser:
    """Answers questions about transcripts."""

    def __init__(self, built_in: ExtractiveEngine) -> None:
        self._built_in = built_in

    async def summarise(self, ask: Ask, transcript: Transcript) -> Summary:
        """The answer. Raises EngineError if even the built-in engine fails."""
        return await self._extract(ask, transcript, Engine("built-in"))

    async def _extract(self, ask: Ask, transcript: Transcript, engine: Engine) -> Summary:
        sections = {}
        if transcript.messages:
            request = Request(list(transcript.messages), ask.purpose, ask.question)
            sections = (await self._built_in.summarise(request)).sections
        return Summary(sections, transcript.coverage, engine)

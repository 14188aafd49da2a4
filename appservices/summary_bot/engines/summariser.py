"""Chooses the engine for a question: models where there are some that may be used, else the built-in one."""

from __future__ import annotations

from appservices.summary_bot.answers.model import Engine, Summary
from appservices.summary_bot.engines.contract import Ask
from appservices.summary_bot.engines.extractive.contract import Request
from appservices.summary_bot.engines.extractive.process import ExtractiveEngine
from appservices.summary_bot.engines.models.chain import NoModel
from appservices.summary_bot.engines.models.engine import ModelEngine, OnProgress
from appservices.summary_bot.history.reader import Transcript


class Summariser:
    """Answers questions about transcripts. `models` is None where no provider is configured."""

    def __init__(self, built_in: ExtractiveEngine, models: ModelEngine | None) -> None:
        self._built_in = built_in
        self._models = models

    async def summarise(self, ask: Ask, transcript: Transcript, on_progress: OnProgress | None = None) -> Summary:
        """The answer. Raises EngineError if even the built-in engine fails."""
        engine = Engine("built-in")
        if self._models is not None and transcript.messages:
            try:
                return await self._models.summarise(ask, transcript, on_progress)
            except NoModel as none:
                engine = Engine("built-in", fell_back=none.reason, fell_back_scope=none.scope)
        return await self._extract(ask, transcript, engine)

    async def _extract(self, ask: Ask, transcript: Transcript, engine: Engine) -> Summary:
        sections = {}
        if transcript.messages:
            request = Request(list(transcript.messages), ask.purpose, ask.question)
            sections = (await self._built_in.summarise(request)).sections
        return Summary(sections, transcript.coverage, engine)

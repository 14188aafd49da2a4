"""`POST /_weft/summary/v1/rooms/{roomId}`: who asks is found out from their Matrix access token."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Annotated, Any, Literal

import aiohttp
import msgspec
from aiohttp import web
from msgspec import Meta, Struct

from appservices.summary_bot.answers.model import Bullet, Summary
from appservices.summary_bot.answers.render import Place
from appservices.summary_bot.commands.model import Mistake, Scope
from appservices.summary_bot.commands.parse import parse_scope
from appservices.summary_bot.config import Limits
from appservices.summary_bot.engines.contract import Ask
from appservices.summary_bot.events import mapping, matrix_id, text
from appservices.summary_bot.history.reader import HistoryReader, HistoryRefused, Transcript
from appservices.summary_bot.http_api.document import BASE, openapi, page
from appservices.summary_bot.matrix.appservice import error
from appservices.summary_bot.matrix.client import MatrixFailure, Visitor
from appservices.summary_bot.storage.settings import SettingsRepository
from appservices.summary_bot.texts import DEFAULT_LANGUAGE
from appservices.summary_bot.work.summaries import DEFAULT_RANGES, Summaries

MAX_BODY_BYTES = 16 * 1024
MAX_AT_ONCE = 8
MAX_AT_ONCE_PER_PERSON = 2

Topic = Annotated[str, Meta(min_length=1, max_length=500)]


class Question(Struct, forbid_unknown_fields=True):
    """The body of a request."""

    purpose: Literal["summary", "actions", "decisions", "ask"] = "summary"
    range: Annotated[str, Meta(max_length=40)] | None = None
    sender: Annotated[str, Meta(pattern=r"^@[^\s\x00]+$", max_length=255)] | None = None
    thread: Annotated[str, Meta(pattern=r"^\$[^\s\x00]+$", max_length=255)] | None = None
    about: Topic | None = None
    question: Topic | None = None
    language: Annotated[str, Meta(pattern=r"^[a-z]{2,3}$")] | None = None


class SummaryApi:
    """The handlers."""

    def __init__(
        self,
        base_url: str,
        session: Callable[[], aiohttp.ClientSession],
        settings: SettingsRepository,
        history: HistoryReader,
        summaries: Summaries,
        limits: Limits,
    ) -> None:
        self._base_url = base_url
        self._session = session
        self._settings = settings
        self._history = history
        self._summaries = summaries
        self._limits = limits
        self._busy: dict[str, int] = {}

    def routes(self) -> Iterable[web.RouteDef]:
        """What is served."""
        return [
            web.post(f"{BASE}/rooms/{{room_id}}", self.summarise),
            web.get(f"{BASE}/openapi.json", self.describe),
            web.get(f"{BASE}/", self.show),
        ]

    async def describe(self, _request: web.Request) -> web.Response:
        """The OpenAPI description."""
        return web.json_response(openapi())

    async def show(self, _request: web.Request) -> web.Response:
        """The same for people."""
        headers = {"Content-Security-Policy": "default-src 'none'"}
        return web.Response(text=page(), content_type="text/html", headers=headers)

    async def summarise(self, request: web.Request) -> web.Response:
        """https://spec.matrix.org/v1.19/client-server-api/#client-authentication"""
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            return error(401, "M_MISSING_TOKEN", "An access token is needed")
        room_id = matrix_id(request.match_info["room_id"], "!")
        if room_id is None:
            return error(400, "M_INVALID_PARAM", "That is no room ID")
        try:
            body = await request.content.readexactly(MAX_BODY_BYTES + 1)
        except asyncio.IncompleteReadError as whole:
            body = whole.partial
        try:
            question = msgspec.json.decode(body or b"{}", type=Question)
        except (msgspec.DecodeError, UnicodeDecodeError) as problem:
            return error(400, "M_BAD_JSON", str(problem)[:200])
        try:
            visitor = Visitor(self._base_url, self._session())
            asker = await visitor.load_user_id(token)
            if asker is None:
                return error(401, "M_UNKNOWN_TOKEN", "The homeserver does not know this access token")
            return await self._answer(visitor, token, asker, room_id, question)
        except HistoryRefused as refused:
            return error(403, "M_FORBIDDEN", f"The room cannot be read: {refused.line}")
        except MatrixFailure:
            return error(502, "M_UNKNOWN", "The homeserver does not answer")

    async def _answer(self, visitor: Visitor, token: str, asker: str, room_id: str, question: Question) -> web.Response:
        if self._busy.get(asker, 0) >= MAX_AT_ONCE_PER_PERSON or sum(self._busy.values()) >= MAX_AT_ONCE:
            return error(429, "M_LIMIT_EXCEEDED", "Too much waits already")
        scope = self._scope(question)
        if isinstance(scope, Mistake):
            return error(400, "M_INVALID_PARAM", f"The range or question is wrong: {scope.hint}")
        self._busy[asker] = self._busy.get(asker, 0) + 1
        started = time.monotonic()
        try:
            async with asyncio.timeout(self._limits.answer_timeout_ms / 1000):
                transcript, summary = await self._summarise(visitor, token, asker, room_id, question, scope)
        except TimeoutError:
            return error(504, "M_UNKNOWN", "That took too long")
        finally:
            self._busy[asker] -= 1
            if not self._busy[asker]:
                del self._busy[asker]
        duration_ms = int((time.monotonic() - started) * 1000)
        return web.json_response(answer_json(summary, transcript.place) | {"duration_ms": duration_ms})

    def _scope(self, question: Question) -> Scope | Mistake:
        if (question.question is None) == (question.purpose == "ask"):
            return Mistake("ask_what")
        words = [question.range] if question.range is not None else []
        if any(word.startswith(("@", "#", "!")) or word in ("about", "here", "thread") for word in words):
            return Mistake("bad_range")
        scope = parse_scope(words, max_messages=self._limits.max_messages)
        if isinstance(scope, Mistake):
            return scope
        if question.range is None and question.purpose in DEFAULT_RANGES and question.thread is None:
            scope = replace(scope, range=DEFAULT_RANGES[question.purpose])
        return replace(scope, sender=question.sender, thread=question.thread is not None, about=question.about)

    async def _summarise(
        self, visitor: Visitor, token: str, asker: str, room_id: str, question: Question, scope: Scope
    ) -> tuple[Transcript, Summary]:
        await self._history.check_member(room_id, asker)
        room = await self._settings.load_room(room_id)
        if not room.enabled:
            raise HistoryRefused("not_enabled")
        person = await self._settings.load_person(asker)
        ignored = mapping((await visitor.load_account_data(token, asker, "m.ignored_user_list")).get("ignored_users"))
        unread_after = None
        if scope.range.kind == "unread":
            marker = await visitor.load_account_data(token, asker, "m.fully_read", room_id)
            unread_after = matrix_id(text(marker.get("event_id")), "$")
        ask = Ask(
            room_id,
            asker,
            question.purpose,
            question.question or "",
            question.language or person.language or DEFAULT_LANGUAGE,
            room.role,
            room.local_models_only,
        )
        return await self._summaries.compute(
            ask,
            scope,
            thread=question.thread,
            ignored=[*person.ignored, *ignored],
            unread_after=unread_after,
        )


def answer_json(summary: Summary, place: Place) -> dict[str, Any]:
    """An answer as JSON."""
    engine, coverage = summary.engine, summary.coverage
    return {
        "sections": [
            {"name": name, "items": [_item(bullet, place) for bullet in bullets]}
            for name, bullets in summary.sections.items()
            if bullets
        ],
        "coverage": msgspec.to_builtins(coverage),
        "engine": engine.name,
        "model": engine.model,
        "fell_back": engine.fell_back,
        "tokens": {"input": engine.input_tokens, "output": engine.output_tokens, "cached": engine.cached_tokens},
        "dropped": engine.dropped,
    }


def _item(bullet: Bullet, place: Place) -> dict[str, Any]:
    return {
        "text": bullet.text,
        "owner": bullet.owner,
        "speaker": bullet.speaker,
        "citations": [
            {"event_id": source.event_id, "quote": source.quote, "permalink": place.link(source.event_id)}
            for source in bullet.sources
        ],
    }

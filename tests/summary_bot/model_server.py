"""A model server for tests: the OpenAI API over real HTTP; it streams, fails, stalls, lies and obeys on demand."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

Items = list[dict[str, Any]]

KINDS = {
    "decided": "decision",
    "决定": "decision",
    "beschlossen": "decision",
    "?": "open_question",
    "？": "open_question",
    "I'll": "action",
    "disagree": "disagreement",
}


@dataclass
class ModelServer:
    """What it does next stands in `plan`, a step a request; with no plan left it is honest.

    Steps: "honest", "stall", "invalid", "lie", "silent" (no items), a status code, or a function from the request's
    data to items.
    """

    url: str = ""
    plan: list[object] = field(default_factory=list)
    always: object = "honest"
    requests: list[dict[str, Any]] = field(default_factory=list)
    stalled: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when a request stalls."""
    pause_s: float = 0.0
    """Between the pieces of a stream."""
    transcript: str = "hello from the recording"

    @property
    def prompts(self) -> str:
        """All that was ever sent to it."""
        return json.dumps(self.requests, ensure_ascii=False)

    @property
    def seen(self) -> set[str]:
        """The messages that it was shown."""
        prompts = [json.loads(request["messages"][1]["content"]) for request in self.requests if "messages" in request]
        return {message["text"] for data in prompts for message in data.get("messages", ())}

    @property
    def input_tokens(self) -> int:
        """What it would charge for all requests so far."""
        return sum(tokens_of(request) for request in self.requests)

    async def chat(self, request: web.Request) -> web.StreamResponse:
        """https://platform.openai.com/docs/api-reference/chat/create"""
        body = await request.json()
        body["authorization"] = request.headers.get("Authorization")
        self.requests.append(body)
        step = self.plan.pop(0) if self.plan else self.always
        if isinstance(step, int):
            return web.json_response({"error": {"message": "as planned", "type": "test"}}, status=step)
        if step == "stall":
            self.stalled.set()
            await asyncio.sleep(3600)
        data = json.loads(body["messages"][1]["content"])
        data = data.get("data", data)
        text = "no JSON at all" if step == "invalid" else json.dumps({"items": _items(step, data)}, ensure_ascii=False)
        usage = {"prompt_tokens": tokens_of(body), "completion_tokens": len(text) // 4}
        usage["total_tokens"] = sum(usage.values())
        if body.get("stream"):
            return await self._stream(request, text, usage)
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "finish_reason": "stop", "message": message}
        return web.json_response(
            {"id": "x", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice], "usage": usage}
        )

    async def _stream(self, request: web.Request, text: str, usage: dict[str, int]) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        common = {"id": "x", "object": "chat.completion.chunk", "created": 0, "model": "m"}
        for start in range(0, len(text), 40):
            delta = {"index": 0, "delta": {"content": text[start : start + 40]}, "finish_reason": None}
            await response.write(b"data: " + json.dumps(common | {"choices": [delta]}).encode() + b"\n\n")
            if self.pause_s:
                await asyncio.sleep(self.pause_s)
        await response.write(b"data: " + json.dumps(common | {"choices": [], "usage": usage}).encode() + b"\n\n")
        await response.write(b"data: [DONE]\n\n")
        return response

    async def transcribe(self, request: web.Request) -> web.Response:
        """https://platform.openai.com/docs/api-reference/audio/createTranscription"""
        form = await request.post()
        file = form["file"]
        assert isinstance(file, web.FileField)
        self.requests.append({"model": form["model"], "file": file.filename, "bytes": len(file.file.read())})
        return web.json_response({"text": self.transcript})


def tokens_of(body: dict[str, Any]) -> int:
    """What a request is charged for."""
    return sum(len(message["content"].encode()) // 4 for message in body.get("messages", []))


def _items(step: object, data: dict[str, Any]) -> Items:
    if callable(step):
        made: Items = step(data)
        return made
    if step == "silent":
        return []
    items = _fold(data) if "facts" in data else honest_facts(data)
    return [lie(item) for item in items] if step == "lie" else items


def honest_facts(data: dict[str, Any]) -> Items:
    """A fact for each message, in its own words."""
    found = []
    for message in data["messages"]:
        kind = next((kind for cue, kind in KINDS.items() if cue in message["text"]), "outcome")
        if "question" in data:
            words = {word for word in data["question"].lower().split() if len(word) > 4}
            if not words & set(message["text"].lower().replace(".", " ").split()):
                continue
            kind = "outcome"
        found.append(
            {
                "kind": kind,
                "text": message["text"][:300],
                "owner": message["from"] if kind == "action" else None,
                "sources": [{"message": message["id"], "quote": message["text"][:100]}],
            }
        )
    return found[:60]


def _fold(data: dict[str, Any]) -> Items:
    return [
        {"kind": fact["kind"], "text": fact["text"], "owner": None, "facts": [fact["id"]]} for fact in data["facts"]
    ][:60]


def lie(item: dict[str, Any]) -> dict[str, Any]:
    """An item that says something else than what it cites."""
    return item | {"text": "The company was sold for 900 million to a competitor yesterday."}


@asynccontextmanager
async def model_server() -> AsyncIterator[ModelServer]:
    """A model server that runs inside the `with`."""
    server = ModelServer()
    app = web.Application(client_max_size=32 * 1024 * 1024)
    app.router.add_post("/v1/chat/completions", server.chat)
    app.router.add_post("/v1/audio/transcriptions", server.transcribe)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    try:
        yield server
    finally:
        await runner.cleanup()


def provider(server: ModelServer, **more: Any) -> dict[str, Any]:
    """The configuration of a provider at this server."""
    model = {"name": "test-model", "input_price": 1.0, "output_price": 2.0} | more.pop("model", {})
    return {"name": "test", "base_url": server.url, "model": model} | more


Plan = Callable[[dict[str, Any]], Items]

"""A push gateway for tests: takes what it is sent, and fails, stalls and rejects when told to."""

from __future__ import annotations

import asyncio
import ipaddress
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from aiohttp import web

from config.schema import Config, Push
from tests.client import User
from tests.client_api.support import encode
from tests.conftest import make_config

PATIENCE_S = 20.0
PUSH = Push(
    allow_http=True,
    allowed_ip_ranges=(ipaddress.ip_network("127.0.0.0/8"),),
    min_retry_interval_ms=5,
    max_retry_interval_ms=20,
)


def push_config(data_dir: Path, **changes: Any) -> Config:
    """A server that may push to this machine, and tries again soon."""
    return replace(make_config(data_dir), push=replace(PUSH, **changes))


class Gateway:
    """`taken` are the notifications that were answered with 200, `tried` counts all; `status` is what to answer with.

    While `is_open` is cleared, requests wait.
    """

    def __init__(self) -> None:
        self.url = ""
        self.taken: list[dict[str, Any]] = []
        self.tried = 0
        self.status = 200
        self.headers: dict[str, str] = {}
        self.rejected: list[str] = []
        self.is_open = asyncio.Event()
        self.is_open.set()
        self._changed = asyncio.Condition()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Takes a notification."""
        body = await request.json()
        self.tried += 1
        async with self._changed:
            self._changed.notify_all()
        await self.is_open.wait()
        if self.status != 200:
            return web.json_response({}, status=self.status, headers=self.headers)
        self.taken.append(body["notification"])
        async with self._changed:
            self._changed.notify_all()
        return await self._answer(request, {"rejected": self.rejected})

    async def _answer(self, request: web.Request, answer: dict[str, Any]) -> web.StreamResponse:
        """Answers in two pieces, the second of which takes its time, as it may over the network."""
        body = json.dumps(answer).encode()
        response = web.StreamResponse()
        response.content_length = len(body)
        await response.prepare(request)
        await response.write(body[:5])
        await asyncio.sleep(0.001)
        await response.write(body[5:])
        return response

    async def wait(self, until: Callable[[], bool]) -> None:
        """Returns once something is so."""
        async with asyncio.timeout(PATIENCE_S), self._changed:
            await self._changed.wait_for(until)

    async def wait_for(self, event_id: str) -> dict[str, Any]:
        """The notification of an event."""
        await self.wait(lambda: event_id in self.event_ids())
        return next(taken for taken in self.taken if taken.get("event_id") == event_id)

    async def wait_for_count(self, unread: int) -> None:
        """Returns once the newest notification tells this count."""
        await self.wait(lambda: bool(self.taken) and self.taken[-1]["counts"].get("unread", 0) == unread)

    def event_ids(self, pushkey: str | None = None) -> list[str]:
        """Of which events there were notifications, in order."""
        return [
            taken["event_id"]
            for taken in self.taken
            if "event_id" in taken and (pushkey is None or taken["devices"][0]["pushkey"] == pushkey)
        ]


@asynccontextmanager
async def gateway_started() -> AsyncIterator[Gateway]:
    """A gateway on a socket."""
    gateway = Gateway()
    app = web.Application()
    app.router.add_post("/_matrix/push/v1/notify", gateway.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        gateway.url = f"http://{host}:{port}/_matrix/push/v1/notify"
        yield gateway
    finally:
        gateway.is_open.set()
        await runner.cleanup()


def pusher_body(url: str, pushkey: str = "key", **changes: Any) -> dict[str, Any]:
    """The body that sets an HTTP pusher; `data` is added to."""
    body = {
        "kind": "http",
        "app_id": "org.example.app",
        "pushkey": pushkey,
        "app_display_name": "App",
        "device_display_name": "Phone",
        "lang": "en",
        "data": {"url": url, **changes.pop("data", {})},
    }
    return {**body, **changes}


async def set_pusher(user: User, url: str, pushkey: str = "key", **changes: Any) -> None:
    """Lets a user be notified at a gateway."""
    (await user.request("POST", "pushers/set", pusher_body(url, pushkey, **changes))).ok()


async def read(user: User, room_id: str, event_id: str, **body: Any) -> None:
    """Sends a read receipt."""
    (await user.in_room("POST", room_id, f"receipt/m.read/{encode(event_id)}", body)).ok()

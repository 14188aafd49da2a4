"""An application service for tests: a real web server that notes what it is told, and answers as a test wants."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from aiohttp import web

from tests.client import Answer, Homeserver

_numbers = itertools.count(1)
WAIT_S = 20.0


class Asked:
    """A request that the service got."""

    def __init__(self, method: str, path: str, query: dict[str, str], token: str | None, body: Any) -> None:
        self.method = method
        self.path = path
        self.query = query
        self.token = token
        self.body = body

    @property
    def id(self) -> str:
        """The ID of a transaction, which is the same on older paths."""
        return self.path.rpartition("/")[2]


class Appservice:
    """A service with users `@_NAME_…`, aliases `#_NAME_…` and its sender `@NAME`. `status` is what it answers with.

    `answer` decides for one request: it returns (status, JSON, or bytes that may be none), or None for the usual one.
    """

    def __init__(self, name: str | None = None, **registration: Any) -> None:
        self.name = name or f"svc{next(_numbers)}"
        self.as_token = f"as token of {self.name}".replace(" ", "_")
        self.hs_token = f"hs token of {self.name}".replace(" ", "_")
        self.url: str | None = None
        self.changes = registration
        self.status = 200
        self.answer: Callable[[Asked], Any] = lambda _: None
        self.asked: list[Asked] = []
        self._news = asyncio.Condition()
        self._runner: web.AppRunner | None = None
        self.port = 0

    @property
    def sender(self) -> str:
        return f"@{self.name}:weft.test"

    def user(self, name: str) -> str:
        """The ID of one of its users."""
        return f"@_{self.name}_{name}:weft.test"

    def registration(self) -> dict[str, Any]:
        """What stands in its file."""
        return {
            "id": self.name,
            "url": self.url,
            "as_token": self.as_token,
            "hs_token": self.hs_token,
            "sender_localpart": self.name,
            "namespaces": {
                "users": [{"exclusive": True, "regex": f"@_{self.name}_.*"}],
                "aliases": [{"exclusive": True, "regex": f"#_{self.name}_.*"}],
                "rooms": [],
            },
            "rate_limited": False,
            **self.changes,
        }

    def write(self, data_dir: Path) -> Path:
        """Writes its file into the folder where registrations are picked up."""
        directory = data_dir / "appservices"
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / f"{self.name}.yaml"
        temporary = directory / f".{self.name}.new"
        temporary.write_text(json.dumps(self.registration()))
        temporary.replace(path)
        return path

    async def start(self, port: int = 0) -> None:
        """Begins to listen; on the same port as before where it has listened already."""
        app = web.Application(client_max_size=16 * 1024 * 1024)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", port or self.port).start()
        self.port = self._runner.addresses[0][1]
        self.url = f"http://127.0.0.1:{self.port}"

    async def stop(self) -> None:
        """Is down, as when the machine reboots."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _handle(self, request: web.Request) -> web.Response:
        token = request.headers.get("Authorization", "").removeprefix("Bearer ") or None
        body = json.loads(await request.read() or b"null")
        path = request.raw_path.partition("?")[0]
        asked = Asked(request.method, path, dict(request.query), token, body)
        async with self._news:
            self.asked.append(asked)
            self._news.notify_all()
        status, answer = self.answer(asked) or (self.status, {})
        if asyncio.iscoroutine(answer):
            answer = await answer
        if isinstance(answer, bytes):
            return web.Response(body=answer, status=status, content_type="application/json")
        return web.json_response(answer, status=status)

    def transactions(self) -> list[Asked]:
        """The transactions that it got, those that it did not take among them."""
        return [asked for asked in self.asked if "/transactions/" in asked.path]

    def events(self) -> list[dict[str, Any]]:
        """The events of its transactions, each transaction counted once by its ID."""
        taken = {asked.id: asked for asked in self.transactions()}
        return [event for asked in taken.values() for event in asked.body["events"]]

    def ephemeral(self, type: str) -> list[dict[str, Any]]:
        """The ephemeral events of a type."""
        return [
            event for asked in self.transactions() for event in asked.body.get("ephemeral", ()) if event["type"] == type
        ]

    async def wait(self, condition: Callable[[], Any]) -> Any:
        """Waits until what it was told fulfils a condition; returns what that is then."""
        async with asyncio.timeout(WAIT_S), self._news:
            while not (found := condition()):
                await self._news.wait()
            return found

    async def wait_for_event(self, event_id: str) -> dict[str, Any]:
        """Waits until it was told an event."""
        found: list[dict[str, Any]] = await self.wait(
            lambda: [event for event in self.events() if event["event_id"] == event_id]
        )
        return found[0]


class ServiceUser:
    """One of a service's users, as whom it acts with its own token; `user_id` None for the sender."""

    def __init__(self, homeserver: Homeserver, service: Appservice, user_id: str | None = None) -> None:
        self.homeserver = homeserver
        self.service = service
        self.user_id = user_id or service.sender
        self._query = {} if user_id is None else {"user_id": user_id}

    async def request(self, method: str, path: str, json: Any = None, **query: Any) -> Answer:
        """A request; a path without `/_matrix` is below `/_matrix/client/v3`."""
        if not path.startswith("/_"):
            path = f"/_matrix/client/v3/{path}"
        token = self.service.as_token
        return await self.homeserver.request(method, path, json, token=token, **{**self._query, **query})

    async def register(self, **more: Any) -> Answer:
        """Registers it."""
        body = {"type": "m.login.application_service", "username": self.user_id[1:].partition(":")[0], **more}
        token = self.service.as_token
        return await self.homeserver.request("POST", "/_matrix/client/v3/register", body, token=token)

    async def send(self, room_id: str, body: str, txn_id: str, **query: Any) -> Answer:
        """Sends a message."""
        content = {"msgtype": "m.text", "body": body}
        return await self.request("PUT", f"rooms/{room_id}/send/m.room.message/{quote(txn_id)}", content, **query)


@asynccontextmanager
async def listening(service: Appservice) -> AsyncIterator[Appservice]:
    """A service that listens."""
    await service.start()
    try:
        yield service
    finally:
        await service.stop()


async def ghost(homeserver: Homeserver, service: Appservice, name: str) -> ServiceUser:
    """A registered user of a service."""
    user = ServiceUser(homeserver, service, service.user(name))
    (await user.register(inhibit_login=True)).ok()
    return user

"""A thin client for tests: HTTP in, status and JSON out. Convenience for what most tests do, and nothing hidden."""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any, NamedTuple, Self
from urllib.parse import quote

import aiohttp

from homeserver.main import RunningServer
from tests import answers

_numbers = itertools.count(1)


class Answer:
    """What came back. `json` is the decoded body."""

    def __init__(self, status: int, json: Any, headers: Any) -> None:
        self.status = status
        self.json = json
        self.headers = headers

    def ok(self) -> Any:
        """The body of a 200; fails otherwise."""
        assert self.status == 200, f"{self.status}: {self.json}"
        return self.json

    def error(self, status: int, errcode: str) -> Any:
        """The body of an error, which has to be this one."""
        assert (self.status, self.json.get("errcode")) == (status, errcode), f"{self.status}: {self.json}"
        return self.json


class Fetched(NamedTuple):
    """An answer that need not be JSON."""

    status: int
    headers: Any
    body: bytes

    def ok(self) -> bytes:
        """The body of a 200; fails otherwise."""
        assert self.status == 200, f"{self.status}: {self.body[:200]!r}"
        return self.body

    def error(self, status: int, errcode: str) -> Any:
        """The body of an error, which has to be this one."""
        body = json.loads(self.body)
        assert (self.status, body.get("errcode")) == (status, errcode), f"{self.status}: {body}"
        return body


class Homeserver:
    """A server to talk to. `running` gives the services of one in this process, for what no API shows."""

    def __init__(self, base_url: str, running: RunningServer | None = None) -> None:
        self.base_url = base_url
        self.running = running
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._session is not None
        await self._session.close()

    async def request(
        self,
        method: str,
        path: str,
        json: Any = None,
        *,
        token: str | None = None,
        data: bytes | AsyncIterator[bytes] | None = None,
        headers: dict[str, str] | None = None,
        **query: Any,
    ) -> Answer:
        """One request. `path` is sent as it is (encode it); `data` is a raw body in place of `json`."""
        from yarl import URL

        assert self._session is not None
        headers = dict(headers or {})
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        url = self.base_url + path
        if query:
            url += "?" + "&".join(f"{key}={quote(str(value), safe='')}" for key, value in query.items())
        async with self._session.request(
            method, URL(url, encoded=True), json=json if data is None else None, data=data, headers=headers
        ) as response:
            is_json = response.content_type == "application/json"
            body = await response.json(encoding="utf-8") if is_json else await response.text()
            answers.note(method, path, response.status, body)
            return Answer(response.status, body, response.headers)

    async def fetch(
        self,
        method: str,
        path: str,
        /,
        *,
        token: str | None = None,
        data: Any = None,
        headers: dict[str, str] | None = None,
        **query: Any,
    ) -> Fetched:
        """One request for bytes; `data` may be bytes, or come as an iterator does. Redirects are not followed."""
        from yarl import URL

        assert self._session is not None
        headers = dict(headers or {})
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        url = self.base_url + path
        if query:
            url += "?" + "&".join(f"{key}={quote(str(value), safe='')}" for key, value in query.items())
        async with self._session.request(
            method, URL(url, encoded=True), data=data, headers=headers, allow_redirects=False
        ) as response:
            body = await response.read()
            if response.status >= 400 and response.content_type == "application/json":
                answers.note(method, path, response.status, await response.json())
            return Fetched(response.status, response.headers, body)

    async def register(self, name: str | None = None) -> User:
        """A new user, logged in."""
        name = name or f"user{next(_numbers)}"
        body = {"username": name, "password": f"password of {name}", "auth": {"type": "m.login.dummy"}}
        answer = (await self.request("POST", "/_matrix/client/v3/register", body)).ok()
        return User(self, answer["user_id"], answer["access_token"], answer["device_id"])


class User:
    """A logged-in user of a server."""

    def __init__(self, homeserver: Homeserver, user_id: str, token: str, device_id: str) -> None:
        self.homeserver = homeserver
        self.user_id = user_id
        self.token = token
        self.device_id = device_id

    async def request(self, method: str, path: str, json: Any = None, **more: Any) -> Answer:
        """A request with this user's token; a path without `/_matrix` is below `/_matrix/client/v3`."""
        if not path.startswith("/_"):
            path = f"/_matrix/client/v3/{path}"
        return await self.homeserver.request(method, path, json, token=self.token, **more)

    async def create_room(self, **options: Any) -> str:
        """A new room; its ID."""
        room_id: str = (await self.request("POST", "createRoom", options)).ok()["room_id"]
        return room_id

    async def join(self, room_id: str) -> None:
        """Joins a room."""
        (await self.request("POST", f"join/{quote(room_id, safe='')}", {})).ok()

    async def in_room(self, method: str, room_id: str, rest: str, json: Any = None, **more: Any) -> Answer:
        """A request below `/rooms/{roomId}/`."""
        return await self.request(method, f"rooms/{quote(room_id, safe='')}/{rest}", json, **more)

    async def send(
        self, room_id: str, body: str | dict[str, Any], *, type: str = "m.room.message", txn_id: str | None = None
    ) -> str:
        """Sends a message (text, or a whole content); its event ID."""
        content = {"msgtype": "m.text", "body": body} if isinstance(body, str) else body
        txn_id = txn_id or f"txn{next(_numbers)}"
        answer = await self.in_room("PUT", room_id, f"send/{quote(type, safe='')}/{quote(txn_id, safe='')}", content)
        event_id: str = answer.ok()["event_id"]
        return event_id

    async def set_state(self, room_id: str, type: str, content: dict[str, Any], state_key: str = "") -> str:
        """Sets state; its event ID."""
        path = f"state/{quote(type, safe='')}/{quote(state_key, safe='')}"
        event_id: str = (await self.in_room("PUT", room_id, path, content)).ok()["event_id"]
        return event_id

    async def sync(self, since: str | None = None, *, timeout: int = 0, **query: Any) -> dict[str, Any]:
        """One /sync, which does not say that the user is online: that is news of its own, and comes when it comes."""
        query.setdefault("set_presence", "offline")
        if since is not None:
            query["since"] = since
        answer: dict[str, Any] = (await self.request("GET", "sync", timeout=timeout, **query)).ok()
        return answer

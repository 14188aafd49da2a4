"""The network between the servers of a simulation: it delays, reorders, loses, repeats and cuts, as a seed has it."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import orjson
from aiohttp.test_utils import make_mocked_request

from federation.inbound.routes import ROUTES
from homeserver.http.context import Server
from homeserver.http.request import Request
from homeserver.http.router import Router
from homeserver.services.errors import MatrixError, NotFound
from homeserver.services.media.remote import RemoteFile
from homeserver.services.media.web import WebAnswer, WebFailure
from homeserver.services.remote import RemoteMisbehaved, RemoteRefused, RemoteUnreachable, TakeItems
from matrix.canonical_json import JsonError, encode_canonical_json, parse_json
from matrix.json_lists import ListSplitter
from matrix.signatures import SigningKey, VerifyKey
from storage.server_keys import ServerKeyAnswer
from tests.simulation.malice import Malice

TIMEOUT_S = 30.0
FOREVER_MS = 2**53 - 1


@dataclass
class Weather:
    """How bad the network is: shares of requests, and seconds."""

    lost: float = 0.0
    answers_lost: float = 0.0
    repeated: float = 0.0
    max_delay_s: float = 0.05


class Internet:
    """Carries requests between servers. `servers` has those that run."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._router = Router(ROUTES)
        self._repeats: set[asyncio.Task[Any]] = set()
        self.servers: dict[str, Server] = {}
        self.keys: dict[str, SigningKey] = {}
        self.weather = Weather()
        self.malice: Malice | None = None
        self.cut: set[frozenset[str]] = set()
        self.under_way = 0
        self.history = hashlib.blake2b(digest_size=8)
        """Of every request that came and every answer to it, and when."""

    async def request(self, origin: str, destination: str, method: str, target: str, content: Any) -> Any:
        """Carries a request there and its answer back. Raises RemoteFailure."""
        self.under_way += 1
        try:
            return await self._carry(origin, destination, method, target, content)
        finally:
            self.under_way -= 1

    async def _carry(self, origin: str, destination: str, method: str, target: str, content: Any) -> Any:
        weather = self.weather
        await asyncio.sleep(self._rng.random() * weather.max_delay_s)
        if self._is_lost(origin, destination, weather.lost):
            await asyncio.sleep(TIMEOUT_S)
            raise RemoteUnreachable(destination, "the request was lost")
        if self.malice is not None:
            content = self.malice.request(origin, target, content)
        body = None if content is None else encode_canonical_json(content)
        if self._rng.random() < weather.repeated:
            repeat = asyncio.create_task(self._deliver_again(origin, destination, method, target, body))
            self._repeats.add(repeat)
            repeat.add_done_callback(self._repeats.discard)
        status, answer = await self._deliver(origin, destination, method, target, body)
        await asyncio.sleep(self._rng.random() * weather.max_delay_s)
        if self._is_lost(origin, destination, weather.answers_lost):
            await asyncio.sleep(TIMEOUT_S)
            raise RemoteUnreachable(destination, "the answer was lost")
        value = parse_json(answer)
        if status != 200:
            raise RemoteRefused(destination, status, value.get("errcode", ""), value.get("error", ""))
        return value if self.malice is None else self.malice.answer(destination, target, value)

    def _is_lost(self, one: str, other: str, share: float) -> bool:
        return self._rng.random() < share or frozenset((one, other)) in self.cut

    async def _deliver_again(self, *request: Any) -> None:
        await asyncio.sleep(self._rng.random() * 5)
        self.under_way += 1
        try:
            await self._deliver(*request)
        except RemoteUnreachable:
            return
        finally:
            self.under_way -= 1

    async def _deliver(
        self, origin: str, destination: str, method: str, target: str, body: bytes | None
    ) -> tuple[int, bytes]:
        server = self.servers.get(destination)
        if server is None:
            raise RemoteUnreachable(destination, "nobody is there")
        status, answer = await self._answer(server, origin, method, target, body)
        now = asyncio.get_running_loop().time()
        self.history.update(repr((now, origin, destination, method, target, body, status, answer)).encode())
        return status, answer

    async def _answer(
        self, server: Server, origin: str, method: str, target: str, body: bytes | None
    ) -> tuple[int, bytes]:
        try:
            route, params = self._router.find(method, target.partition("?")[0])
            http = make_mocked_request(method, target)  # the body comes as what was signed
            request = Request(http, server, route, params)
            if route.signed:
                request.signed_by = origin
                request._signed_content = None if body is None else parse_json(body)
            result = await route.handler(request)
        except MatrixError as error:
            return error.status, orjson.dumps(error.body())
        except server.database.connection_errors:
            raise RemoteUnreachable(server.config.server_name, "it has crashed") from None
        return 200, result if isinstance(result, bytes) else orjson.dumps(result)


class SimulatedNetwork:
    """The `Network` of one server of a simulation: its requests go through the internet there, keys are known."""

    def __init__(self, internet: Internet, server_name: str) -> None:
        self._internet = internet
        self._server_name = server_name
        self.transport = self
        self.keys = self
        self.destinations = self
        self.media = self
        self.web = self
        self.on_recovered: list[Callable[[str], None]] = []

    async def request(
        self,
        destination: str,
        method: str,
        path: str,
        *,
        query: Sequence[tuple[str, str]] = (),
        content: Any = None,
        timeout_ms: int | None = None,
        max_bytes: int | None = None,
    ) -> Any:
        """See `Transport.request`."""
        target = f"{path}?{urlencode(query)}" if query else path
        return await self._internet.request(self._server_name, destination, method, target, content)

    async def request_lists(
        self,
        destination: str,
        method: str,
        path: str,
        *,
        query: Sequence[tuple[str, str]] = (),
        content: Any = None,
        lists: Mapping[str, int],
        take: TakeItems,
    ) -> dict[str, Any]:
        """See `Transport.request_lists`."""
        splitter = ListSplitter(lists)
        answer = await self.request(destination, method, path, query=query, content=content)
        try:
            items = splitter.feed(encode_canonical_json(answer))
            last, rest = splitter.finish()
        except JsonError as error:
            raise RemoteMisbehaved(destination, str(error)) from None
        await take([*items, *last])
        return rest

    async def verify_keys(
        self, server_name: str, key_ids: Iterable[str], *, valid_at_ms: int
    ) -> Mapping[str, VerifyKey]:
        """See `KeyRing.verify_keys`."""
        key = self._internet.keys.get(server_name)
        if key is None or key.key_id not in set(key_ids):
            return {}
        return {key.key_id: VerifyKey(key.key_id, key.public_key, FOREVER_MS)}

    def known_key(self, server_name: str, key_id: str, *, valid_at_ms: int) -> VerifyKey | None:
        """See `ServerKeys.known_key`."""
        key = self._internet.keys.get(server_name)
        return VerifyKey(key_id, key.public_key, FOREVER_MS) if key is not None and key.key_id == key_id else None

    async def load_answer(
        self, server_name: str, key_ids: Mapping[str, int], *, valid_at_ms: int
    ) -> ServerKeyAnswer | None:
        """See `ServerKeys.load_answer`."""
        return None

    def retry_ts(self, destination: str) -> int:
        """See `Reachability.retry_ts`: queues wait by themselves."""
        return 0

    def is_alive(self, destination: str) -> None:
        """See `Reachability.is_alive`."""

    def has_signed(self, origin: str) -> None:
        """See `Reachability.has_signed`."""

    def fetch_media(
        self, origin: str, media_id: str, *, timeout_ms: int, max_bytes: int
    ) -> AbstractAsyncContextManager[RemoteFile]:
        """See `RemoteMedia.fetch_media`: a simulation has no files."""
        raise NotFound("No such file")

    def get(self, url: str, *, accept: str, language: str | None = None) -> AbstractAsyncContextManager[WebAnswer]:
        """See `Web.get`: a simulation has no web sites."""
        raise WebFailure("there is no web")

    async def open(self) -> None:
        """Nothing is kept."""

    async def run_forever(self) -> None:
        """Nothing is to be done."""

    async def close(self) -> None:
        """Nothing is open."""

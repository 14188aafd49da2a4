"""Requests to other servers: signed, bounded in time, size and number, and not made to servers that are down."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from urllib.parse import quote, urlencode

import aiohttp
import orjson

from config.schema import Federation
from federation.outbound.destinations import Destinations
from federation.outbound.discovery import Discovery
from federation.outbound.https import Answer, ConnectionFailed, Https
from homeserver.clock import Clock
from homeserver.logs import get_logger
from homeserver.metrics import Metrics
from homeserver.services.remote import (
    NoFederation,
    RemoteFailure,
    RemoteMisbehaved,
    RemoteRefused,
    RemoteUnreachable,
    TakeItems,
)
from matrix.canonical_json import MAX_DEPTH, MAX_WRAPPED_DEPTH, JsonError, encode_canonical_json, parse_json
from matrix.identifiers import is_server_name
from matrix.json_lists import ListSplitter
from matrix.request_authentication import Authorization, sign_request
from matrix.signatures import SigningKey

log = get_logger(__name__)

MAX_TIMEOUT_MS = 600_000
MAX_ERROR_CHARS = 300
MAX_ERROR_BYTES = 64 * 1024
PARSE_IN_THREAD_FROM_BYTES = 256 * 1024
TAKE_ITEMS = 500
"""How many items of a list are handed on at a time, or a few more."""

# What users wait for is tried although the server failed before; the queues that work in the background do not try.
_waited_for = re.compile(
    r"/_matrix/(?:federation/v\d/(?:make_|send_join|send_leave|send_knock|invite|query|publicRooms|hierarchy|media|user"
    r"|timestamp_to_event|exchange_third_party_invite)|key/|policy/)"
)
# What is answered with events, each of which is checked by itself: none of them is to spoil the others.
_of_events = re.compile(r"/_matrix/federation/v\d/(?:backfill|event|get_missing_events)/")
# Answers of a proxy whose server is gone.
_DOWN = frozenset({502, 503, 504})


class _Slots:
    """How many requests to one destination are under way, and may be."""

    __slots__ = ("semaphore", "users")

    def __init__(self, limit: int) -> None:
        self.semaphore = asyncio.Semaphore(limit)
        self.users = 0


class FederationClient:
    """The `Transport` of this server."""

    def __init__(
        self,
        options: Federation,
        https: Https,
        discovery: Discovery,
        destinations: Destinations,
        metrics: Metrics,
        clock: Clock,
        *,
        server_name: str,
        signing_key: SigningKey,
    ) -> None:
        self._options = options
        self._https = https
        self._discovery = discovery
        self._destinations = destinations
        self._metrics = metrics
        self._clock = clock
        self._server_name = server_name
        self._signing_key = signing_key
        self._slots: dict[str, _Slots] = {}

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
        uri = path + (f"?{urlencode(query, quote_via=quote, safe='')}" if query else "")
        try:
            self._check_destination(destination, path)
            limit = min(max_bytes or self._options.max_response_bytes, self._options.max_response_bytes)
            answer = await self._ask_in_time(destination, method, uri, content, timeout_ms, limit)
            self._destinations.is_alive(destination)
            value = await self._value(destination, answer, MAX_WRAPPED_DEPTH if _of_events.match(path) else MAX_DEPTH)
        except RemoteFailure as failure:
            self._metrics.federation_requests.labels(_outcome(failure)).inc()
            log.debug("federation request failed", destination=destination, path=path, reason=failure.reason)
            raise
        self._metrics.federation_requests.labels("ok").inc()
        return value

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
        try:
            async with asyncio.timeout(MAX_TIMEOUT_MS / 1000):
                async with self.stream(destination, path, method=method, query=query, content=content) as response:
                    rest = await self._split(destination, response, ListSplitter(lists), take)
        except TimeoutError:
            self._metrics.federation_requests.labels("unreachable").inc()
            raise RemoteUnreachable(destination, f"no whole answer within {MAX_TIMEOUT_MS / 1000:g} s") from None
        except RemoteFailure as failure:
            self._metrics.federation_requests.labels(_outcome(failure)).inc()
            log.debug("federation request failed", destination=destination, path=path, reason=failure.reason)
            raise
        self._metrics.federation_requests.labels("ok").inc()
        return rest

    async def _split(
        self, destination: str, response: aiohttp.ClientResponse, splitter: ListSplitter, take: TakeItems
    ) -> dict[str, Any]:
        waiting: list[tuple[str, bytes]] = []
        try:
            async for piece in self._https.pieces(destination, response, self._options.max_response_bytes):
                waiting += splitter.feed(piece)
                if len(waiting) >= TAKE_ITEMS:
                    await take(waiting)
                    waiting = []
            last, rest = splitter.finish()
            if waiting or last:
                await take([*waiting, *last])
            return rest
        except JsonError as error:
            raise RemoteMisbehaved(destination, f"the answer is {error}") from None

    @asynccontextmanager
    async def stream(
        self,
        destination: str,
        path: str,
        *,
        method: str = "GET",
        query: Sequence[tuple[str, str]] = (),
        content: Any = None,
        wait_ms: int = 0,
        signed: bool = True,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The 2xx answer to a request, whose body is still to come. `path`, `query`, `content` are as in `request`.

        The server may wait `wait_ms` before it answers; how long the body takes is for the caller to bound.
        Raises RemoteFailure.
        """
        uri = path + (f"?{urlencode(query, quote_via=quote, safe='')}" if query else "")
        self._check_destination(destination, path)
        async with AsyncExitStack() as stack:
            try:
                async with asyncio.timeout((wait_ms + self._options.request_timeout_ms) / 1000):
                    await stack.enter_async_context(self._slot(destination))
                    response = await self._open(destination, method, uri, content, signed, stack)
                    refusal = None if 200 <= response.status < 300 else await self._error(destination, response)
            except TimeoutError:
                self._destinations.failed(destination)
                raise RemoteUnreachable(destination, "no answer in time") from None
            except RemoteUnreachable:
                self._destinations.failed(destination)
                raise
            # A file that is still to come, or too large, is answered with 504 or 502 by a server that is well.
            if refusal is not None and refusal.status in _DOWN and refusal.errcode == "M_UNKNOWN":
                self._destinations.failed(destination)
            else:
                self._destinations.is_alive(destination)
            if refusal is not None:
                raise refusal
            yield response

    async def _open(
        self, destination: str, method: str, uri: str, content: Any, signed: bool, stack: AsyncExitStack
    ) -> aiohttp.ClientResponse:
        headers, body = {"Accept": "*/*"}, None
        if signed:
            headers, body = self._signed(destination, method, uri, content)
        failure: ConnectionFailed | None = None
        for endpoint in await self._discovery.endpoints(destination):
            try:
                opening = self._https.stream(destination, endpoint, method, uri, headers=headers, body=body)
                return await stack.enter_async_context(opening)
            except ConnectionFailed as error:
                failure = failure or error
        self._discovery.doubt(destination)
        assert failure is not None, "there is always an endpoint"
        raise failure

    async def _error(self, destination: str, response: aiohttp.ClientResponse) -> RemoteRefused:
        body = await self._https.read(destination, response, MAX_ERROR_BYTES)
        return _refusal(destination, Answer(response.status, response.headers, body))

    def _check_destination(self, destination: str, path: str) -> None:
        if not self._options.enabled:
            raise NoFederation(destination)
        if not is_server_name(destination):
            raise RemoteUnreachable(destination, "this is not a server name")
        if destination == self._server_name:
            raise RemoteUnreachable(destination, "this is the server itself")
        wait_ms = self._destinations.retry_ts(destination) - self._clock()
        if wait_ms > 0 and not _waited_for.match(path):
            raise LeftAlone(destination, f"did not answer, and is tried again in {-(-wait_ms // 1000)} s")

    async def _ask_in_time(
        self, destination: str, method: str, uri: str, content: Any, timeout_ms: int | None, max_bytes: int
    ) -> Answer:
        """The answer of the first endpoint that can be connected to, of whatever status."""
        timeout_ms = min(timeout_ms or self._options.request_timeout_ms, MAX_TIMEOUT_MS)
        try:
            async with asyncio.timeout(timeout_ms / 1000), self._slot(destination):
                answer = await self._ask(destination, method, uri, content, max_bytes)
        except TimeoutError:
            self._destinations.failed(destination)
            raise RemoteUnreachable(destination, f"no answer within {timeout_ms / 1000:g} s") from None
        except RemoteUnreachable:
            self._destinations.failed(destination)
            raise
        if answer.status in _DOWN:
            self._destinations.failed(destination)
            raise _refusal(destination, answer)
        return answer

    @asynccontextmanager
    async def _slot(self, destination: str) -> AsyncIterator[None]:
        slots = self._slots.get(destination)
        if slots is None:
            slots = self._slots[destination] = _Slots(self._options.max_concurrent_requests)
        slots.users += 1
        try:
            async with slots.semaphore:
                yield
        finally:
            slots.users -= 1
            if not slots.users:
                del self._slots[destination]

    async def _ask(self, destination: str, method: str, uri: str, content: Any, max_bytes: int) -> Answer:
        headers, body = self._signed(destination, method, uri, content)
        headers["Accept"] = "application/json"
        failure: ConnectionFailed | None = None
        for endpoint in await self._discovery.endpoints(destination):
            try:
                return await self._https.ask(
                    destination, endpoint, method, uri, headers=headers, body=body, max_bytes=max_bytes
                )
            except ConnectionFailed as error:
                failure = failure or error
        self._discovery.doubt(destination)
        assert failure is not None, "there is always an endpoint"
        raise failure

    def _signed(self, destination: str, method: str, uri: str, content: Any) -> tuple[dict[str, str], bytes | None]:
        """The headers that sign a request, and its body."""
        body = signed_content = None
        headers = {"Accept": "*/*"}
        if content is not None:
            body = encode_canonical_json(content)
            signed_content = orjson.Fragment(body)  # it is encoded once, and goes into what is signed as it is
            headers["Content-Type"] = "application/json"
        headers["Authorization"] = str(self._authorization(method, uri, destination, signed_content))
        return headers, body

    def _authorization(self, method: str, uri: str, destination: str, content: Any) -> Authorization:
        return sign_request(
            method, uri, origin=self._server_name, destination=destination, content=content, key=self._signing_key
        )

    async def _value(self, destination: str, answer: Answer, max_depth: int) -> Any:
        if not 200 <= answer.status < 300:
            raise _refusal(destination, answer)
        try:
            if len(answer.body) >= PARSE_IN_THREAD_FROM_BYTES:
                return await asyncio.to_thread(parse_json, answer.body, max_depth=max_depth)
            return parse_json(answer.body, max_depth=max_depth)
        except JsonError as error:
            raise RemoteMisbehaved(destination, f"the answer is {error}") from None


class LeftAlone(RemoteUnreachable):
    """The server did not answer a while ago, and is not asked yet."""


def _refusal(destination: str, answer: Answer) -> RemoteRefused:
    """The failure that an error answer is; of a body that says nothing usable, the status remains."""
    try:
        content = parse_json(answer.body)
    except JsonError:
        content = None
    errcode = content.get("errcode") if isinstance(content, dict) else None
    message = content.get("error") if isinstance(content, dict) else None
    return RemoteRefused(
        destination,
        answer.status,
        errcode if isinstance(errcode, str) and re.fullmatch(r"[A-Z0-9_.a-z]{1,64}", errcode) else "M_UNKNOWN",
        _printable(message) if isinstance(message, str) else "",
    )


def _printable(message: str) -> str:
    return "".join(character for character in message[:MAX_ERROR_CHARS] if character.isprintable())


def _outcome(failure: RemoteFailure) -> str:
    """The label of a failure in the metrics."""
    if isinstance(failure, LeftAlone):
        return "left_alone"
    if isinstance(failure, RemoteRefused):
        return "refused"
    return "misbehaved" if isinstance(failure, RemoteMisbehaved) else "unreachable"

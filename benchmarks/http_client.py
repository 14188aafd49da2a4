"""An HTTP/1.1 client that does nearly nothing: it shares the machine with the server that it measures.

A `Connection` is one kept-alive TCP connection with one request under way at a time, as a browser's would be. Requests
are bytes made beforehand; of an answer only the status, the length and the body are looked at.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Collection
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, cast

import orjson

_CONTENT_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked", re.IGNORECASE)
_END_OF_HEAD = b"\r\n\r\n"
_LAST_CHUNK = b"0\r\n\r\n"


class HttpError(Exception):
    """The server gave an answer other than the one the benchmark needs, or none."""


@dataclass(frozen=True, slots=True)
class Response:
    """An answer, its body decoded from chunks if it came in chunks."""

    status: int
    body: bytes

    def json(self) -> Any:
        """The body as JSON."""
        return orjson.loads(self.body)


def request_bytes(
    method: str, path: str, token: str | None = None, content: object = None, *, authorization: str | None = None
) -> bytes:
    """A whole request. `path` holds the query and is already percent-encoded; `content` becomes a JSON body.

    `token` is a user's; `authorization` is a whole header, as servers send it. No `Accept-Encoding` goes out, so no
    server spends time on compression.
    """
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n"
    if token is not None:
        authorization = f"Bearer {token}"
    if authorization is not None:
        head += f"Authorization: {authorization}\r\n"
    if content is None:
        return (head + "\r\n").encode()
    body = orjson.dumps(content)
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def checked(request: bytes, response: Response, expected: Collection[int] = (200,)) -> Response:
    """The answer to a request. Raises HttpError unless its status is an expected one."""
    if response.status not in expected:
        what = request.split(b" HTTP/1.1", 1)[0].decode()
        raise HttpError(f"{what}: {response.status} {response.body[:300].decode(errors='replace')}")
    return response


def join_chunks(data: bytes) -> bytes | None:
    """The body of a chunked message without its framing; None when the last chunk has not come yet.

    https://www.rfc-editor.org/rfc/rfc9112#section-7.1 (trailers are taken to be empty, which both servers' are).
    """
    parts: list[bytes] = []
    position = 0
    while True:
        line_end = data.find(b"\r\n", position)
        if line_end < 0:
            return None
        size = int(data[position:line_end].split(b";")[0], 16)
        if size == 0:
            return b"".join(parts) if data.startswith(b"\r\n", line_end + 2) else None
        start = line_end + 2
        position = start + size + 2
        if position > len(data):
            return None
        parts.append(data[start : start + size])


class Connection(asyncio.Protocol):
    """One kept-alive connection to a server on this machine, by TLS where that is given; an async context manager."""

    def __init__(self, port: int, tls: ssl.SSLContext | None = None) -> None:
        self._port = port
        self._tls = tls
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[Response] | None = None
        self._buffer = bytearray()
        self._status = 0
        self._body_start = 0
        self._body_length: int | None = None

    async def __aenter__(self) -> Self:
        await self._connect()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Drop the connection, with whatever is under way on it."""
        if self._transport is not None:
            self._transport.abort()
            self._transport = None

    async def fetch(self, request: bytes) -> Response:
        """Send a request and wait for the whole answer. Raises `HttpError` if the connection breaks."""
        if self._transport is None or self._transport.is_closing():
            await self._connect()
        assert self._transport is not None
        assert self._waiter is None, "one request at a time"
        self._buffer.clear()
        self._body_start = 0
        self._waiter = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        try:
            return await self._waiter
        except asyncio.CancelledError:
            self.close()  # the answer may still come: nobody may take it for the next one's
            raise
        finally:
            self._waiter = None

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            name = None if self._tls is None else "localhost"
            await loop.create_connection(lambda: self, "127.0.0.1", self._port, ssl=self._tls, server_hostname=name)
        except OSError as error:
            raise HttpError(f"no connection to port {self._port}: {error}") from error

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's derive from nothing of asyncio's

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(HttpError(f"the server closed the connection: {error or 'no reason given'}"))

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer
        buffer += data
        if self._body_start == 0 and not self._read_head():
            return
        if self._body_length is not None:
            if len(buffer) >= self._body_start + self._body_length:
                self._answer(bytes(buffer[self._body_start :]))
        elif buffer.endswith(_LAST_CHUNK):
            # Looking at the end first keeps a long answer from being decoded again with every packet.
            body = join_chunks(bytes(buffer[self._body_start :]))
            if body is not None:
                self._answer(body)

    def _read_head(self) -> bool:
        end = self._buffer.find(_END_OF_HEAD)
        if end < 0:
            return False
        head = bytes(self._buffer[:end])
        self._status = int(head[9:12])
        self._body_start = end + len(_END_OF_HEAD)
        length = _CONTENT_LENGTH.search(head)
        if length is not None:
            self._body_length = int(length[1])
        else:
            self._body_length = None if _CHUNKED.search(head) else 0
        return True

    def _answer(self, body: bytes) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(Response(self._status, body))

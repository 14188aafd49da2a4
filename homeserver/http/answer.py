"""Small JSON answers, written in one piece.

`aiohttp.web.Response` prepares headers that may be anything, cookies, chunks and compression; nearly all answers here
are a 200 with the same headers and a body in memory. Writing those directly takes a tenth off the cost of a request
(docs/adr/0002). Whatever is not as simple goes through `web.Response`.
"""

from __future__ import annotations

from aiohttp import HttpVersion11, web
from aiohttp.abc import AbstractStreamWriter
from multidict import CIMultiDict

# https://spec.matrix.org/v1.19/client-server-api/#web-browser-clients
CORS_HEADERS = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Methods": "GET, HEAD, POST, PUT, DELETE, OPTIONS",
    "Access-Control-Allow-Headers": "X-Requested-With, Content-Type, Authorization, Date",
    "Access-Control-Expose-Headers": "Retry-After",
}
JSON_HEADERS = CIMultiDict({"Content-Type": "application/json", **CORS_HEADERS})
MAX_DIRECT_BYTES = 32 * 1024

_HEAD = (
    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
    + "".join(f"{name}: {value}\r\n" for name, value in CORS_HEADERS.items())
    + "Content-Length: %d\r\n\r\n"
).encode()


class DirectJson(web.Response):
    """A 200 with a JSON body on a connection that stays open."""

    def __init__(self, body: bytes) -> None:  # deliberately without super(): this is what it saves
        self._direct = body

    @property
    def status(self) -> int:
        """Always 200."""
        return 200

    @property
    def keep_alive(self) -> bool:
        """Always."""
        return True

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Writes it all."""
        transport = request.transport
        if transport is None:
            raise ConnectionResetError("the client went away")
        transport.write(_HEAD % len(self._direct) + self._direct)
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        """Everything is written."""


def json_answer(request: web.BaseRequest, body: bytes) -> web.Response:
    """A 200 with a JSON body, in the cheapest way that the request allows."""
    if (
        len(body) <= MAX_DIRECT_BYTES
        and request.version == HttpVersion11
        and request.keep_alive
        and request.method != "HEAD"
    ):
        return DirectJson(body)
    return json_response(body)


def json_response(body: bytes, status: int = 200) -> web.Response:
    """A JSON answer with the CORS headers."""
    return web.Response(body=body, status=status, headers=JSON_HEADERS)

"""Files, in and out: bodies that are read as they come, and answers that are sent piece by piece.

https://spec.matrix.org/v1.19/client-server-api/#content-repository
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Final, cast

import orjson
from aiohttp import HttpVersion11, web

from homeserver.http.answer import CORS_HEADERS, json_response
from homeserver.http.request import Request
from homeserver.logs import get_logger
from homeserver.services.errors import InvalidParam, MatrixError, MissingParam
from homeserver.services.media.downloads import DEFAULT_TIMEOUT_MS, MAX_TIMEOUT_MS
from homeserver.services.media.thumbnails import Wanted
from matrix.byte_ranges import matches_etag, select_part
from matrix.multipart import frame_file, frame_location
from matrix.thumbnail_sizes import MAX_DIMENSION, Method
from storage.blobs.base import BlobError, BlobReader

log = get_logger(__name__)

BOUNDARY_BYTES: Final = 16
STALLED_S: Final = 60.0
"""How long a client may neither send nor take anything."""

# https://spec.matrix.org/v1.19/client-server-api/#content-repository, word for word
CONTENT_SECURITY_POLICY: Final = (
    "sandbox; default-src 'none'; script-src 'none'; plugin-types application/pdf; "
    "style-src 'unsafe-inline'; object-src 'self';"
)
FILE_HEADERS: Final = {
    **CORS_HEADERS,
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "Cross-Origin-Resource-Policy": "cross-origin",
    "X-Content-Type-Options": "nosniff",
    "Accept-Ranges": "bytes",
}
# What stands under a name never changes, so it may be kept; not for ever, since it may be taken away.
CACHE_PRIVATELY: Final = "private, max-age=86400, immutable"
CACHE_PUBLICLY: Final = "public, max-age=86400, immutable"


@dataclass(frozen=True, slots=True)
class FileAnswer:
    """A file to send. `open` starts to read `length` bytes from `start` on."""

    size: int
    etag: str
    content_type: str
    disposition: str
    cache_control: str
    open: Callable[[int, int], Awaitable[BlobReader]]


async def body_chunks(request: Request) -> AsyncIterator[bytes]:
    """The body as it comes. Raises MatrixError (408) when nothing comes any more."""
    http = request.http
    if http.headers.get("Expect", "").lower() == "100-continue" and http.version == HttpVersion11:
        assert http.transport is not None
        http.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    while True:
        try:
            async with asyncio.timeout(STALLED_S):
                chunk = await http.content.readany()
        except TimeoutError:
            raise MatrixError(408, "M_UNKNOWN", "The upload has stopped") from None
        if not chunk:
            return
        yield chunk


async def send_file(request: Request, file: FileAnswer) -> web.StreamResponse:
    """Sends a file, the part of it that is asked for, or that the client has it already (304)."""
    headers = {**FILE_HEADERS, "ETag": file.etag, "Cache-Control": file.cache_control}
    none_match = request.headers.get("If-None-Match")
    if none_match is not None and matches_etag(none_match, file.etag):
        return web.Response(status=304, headers=headers)
    if_range = request.headers.get("If-Range")
    asked = request.headers.get("Range") if if_range is None or if_range.strip() == file.etag else None
    part = select_part(asked, file.size)
    if part is None:
        body = orjson.dumps({"errcode": "M_UNKNOWN", "error": "The file has no such part"})
        response = json_response(body, status=416)
        response.headers["Content-Range"] = f"bytes */{file.size}"
        return response
    headers |= {"Content-Type": file.content_type, "Content-Disposition": file.disposition}
    if part.is_asked:
        headers["Content-Range"] = f"bytes {part.start}-{part.start + part.length - 1}/{file.size}"
    answer = web.StreamResponse(status=206 if part.is_asked else 200, headers=headers)
    answer.content_length = part.length
    if request.http.method == "HEAD" or not part.length:
        await answer.prepare(request.http)
        return answer
    reader = await file.open(part.start, part.length)
    try:
        await answer.prepare(request.http)
        await _send(request, answer, reader)
    finally:
        await reader.close()
    return answer


async def _send(request: Request, answer: web.StreamResponse, reader: BlobReader) -> bool:
    """Sends all of it (True), or cuts the connection: an error has no other way to show once a part is sent."""
    sent = 0
    try:
        async for chunk in reader.chunks():
            async with asyncio.timeout(STALLED_S):
                await answer.write(chunk)
            sent += len(chunk)
        return True
    except ConnectionError:
        answer.force_close()  # the client has seen enough
    except (BlobError, TimeoutError) as error:
        log.warning("a file was not sent to its end", sent_bytes=sent, error=repr(error))
        answer.force_close()
        if request.http.transport is not None:
            request.http.transport.abort()
    finally:
        request.server.metrics.media_bytes.labels("out").inc(sent)
    return False


async def send_multipart(request: Request, file: FileAnswer, *, location: str | None) -> web.StreamResponse:
    """Sends a file as servers do to one another, or the `location` that it is at.

    https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1mediadownloadmediaid
    """
    boundary = secrets.token_hex(BOUNDARY_BYTES)
    if location is not None:
        frame = frame_location(boundary, location)
        return web.Response(body=frame.head + frame.tail, headers={"Content-Type": frame.content_type})
    frame = frame_file(boundary, content_type=file.content_type, disposition=file.disposition)
    answer = web.StreamResponse(headers={"Content-Type": frame.content_type})
    answer.content_length = len(frame.head) + file.size + len(frame.tail)
    reader = await file.open(0, file.size) if file.size else None
    try:
        await answer.prepare(request.http)
        if request.http.method != "HEAD":
            await answer.write(frame.head)
            if reader is None or await _send(request, answer, reader):
                await answer.write(frame.tail)
    finally:
        if reader is not None:
            await reader.close()
    return answer


def wait_ms(request: Request) -> int:
    """How long a request waits for a file that is still to be uploaded. Raises InvalidParam."""
    return request.query_integer("timeout_ms", DEFAULT_TIMEOUT_MS, maximum=MAX_TIMEOUT_MS)


def wanted_thumbnail(request: Request) -> Wanted:
    """The parameters of a thumbnail. Raises InvalidParam, MissingParam."""
    for name in ("width", "height"):
        if name not in request.query:
            raise MissingParam(f"{name} is missing")
    method = request.query.get("method", "scale")
    if method not in ("crop", "scale"):
        raise InvalidParam("method must be crop or scale")
    return Wanted(
        request.query_integer("width", 1, minimum=1, maximum=MAX_DIMENSION),
        request.query_integer("height", 1, minimum=1, maximum=MAX_DIMENSION),
        cast(Method, method),
        request.query_boolean("animated"),
    )

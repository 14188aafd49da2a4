"""JSON that may be too large to be in memory as a whole: sent as it is made."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator
from typing import Final

from aiohttp import web

from homeserver.http.answer import JSON_HEADERS
from homeserver.http.files import STALLED_S
from homeserver.http.handler import accepts_gzip
from homeserver.http.request import Request, Result
from homeserver.logs import get_logger

log = get_logger(__name__)

MAX_WHOLE_BYTES: Final = 1024 * 1024


async def send_json(request: Request, pieces: AsyncIterator[bytes]) -> Result:
    """A 200 of these pieces of JSON: as any other if they are small, and else one by one, as the client takes them.

    Where something fails after the first of them the connection is cut, as an error has no other way to show.
    """
    begun: list[bytes] = []
    async for piece in pieces:
        begun.append(piece)
        if sum(map(len, begun)) > MAX_WHOLE_BYTES:
            return await _stream(request, b"".join(begun), pieces)
    return b"".join(begun)


async def _stream(request: Request, piece: bytes, rest: AsyncIterator[bytes]) -> web.StreamResponse:
    answer = web.StreamResponse(headers=JSON_HEADERS)
    compressor = None
    if accepts_gzip(request.headers.get("Accept-Encoding", "")):
        compressor = zlib.compressobj(1, zlib.DEFLATED, 31)
        answer.headers.update({"Content-Encoding": "gzip", "Vary": "Accept-Encoding"})
    is_whole = False
    try:
        await answer.prepare(request.http)
        if request.http.method != "HEAD":
            await _write(answer, piece, compressor)
            async for piece in rest:
                await _write(answer, piece, compressor)
            if compressor is not None:
                await answer.write(compressor.flush())
        is_whole = True
    except (ConnectionError, TimeoutError) as error:
        log.info("an answer was not sent to its end", error=repr(error))
    finally:
        if not is_whole:
            answer.force_close()
            if request.http.transport is not None:
                request.http.transport.abort()
    return answer


async def _write(answer: web.StreamResponse, piece: bytes, compressor: zlib._Compress | None) -> None:
    if compressor is not None:
        piece = await asyncio.to_thread(compressor.compress, piece)
    async with asyncio.timeout(STALLED_S):
        await answer.write(piece)

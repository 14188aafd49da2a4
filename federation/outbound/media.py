"""Files of other servers, as they come.

https://spec.matrix.org/v1.19/server-server-api/#content-repository
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Final
from urllib.parse import quote, urljoin

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError

from federation.outbound.client import FederationClient
from homeserver.services.errors import MatrixError, NotFound
from homeserver.services.media.remote import RemoteFile
from homeserver.services.media.web import Web, WebFailure
from homeserver.services.remote import RemoteFailure, RemoteRefused, bad_gateway
from matrix.content_disposition import parse_filename

MAX_METADATA_BYTES: Final = 64 * 1024
MAX_REDIRECTS: Final = 3
PIECE_BYTES: Final = 64 * 1024
STALLED_S: Final = 20.0
FRAME_BYTES: Final = 64 * 1024
"""What the parts of an answer may add to a file."""

# What aiohttp's readers raise for answers that are not what they seem.
UNREADABLE: Final = (aiohttp.ClientError, HttpProcessingError, ValueError, AssertionError, LookupError, OSError)


class FederatedMedia:
    """The `RemoteMedia` of this server."""

    def __init__(self, client: FederationClient, web: Web) -> None:
        """`web` is for files that are not at the server itself."""
        self._client = client
        self._web = web

    @asynccontextmanager
    async def fetch_media(
        self, origin: str, media_id: str, *, timeout_ms: int, max_bytes: int
    ) -> AsyncIterator[RemoteFile]:
        """See `RemoteMedia.fetch_media`."""
        path = f"/_matrix/federation/v1/media/download/{quote(media_id, safe='')}"
        query = (("timeout_ms", str(timeout_ms)),)
        try:
            async with self._client.stream(origin, path, query=query, wait_ms=timeout_ms) as response:
                _check_length(response, max_bytes)
                async with self._second_part(response) as file:
                    yield file
            return
        except RemoteRefused as failure:
            if not _is_too_old(failure):
                raise _as_answer(failure) from None
        except RemoteFailure as failure:
            raise bad_gateway(failure) from None
        async with self._fetch_deprecated(origin, media_id, timeout_ms=timeout_ms, max_bytes=max_bytes) as file:
            yield file

    @asynccontextmanager
    async def _fetch_deprecated(
        self, origin: str, media_id: str, *, timeout_ms: int, max_bytes: int
    ) -> AsyncIterator[RemoteFile]:
        """From a server that is older than Matrix 1.11.

        https://spec.matrix.org/v1.19/client-server-api/#get_matrixmediav3downloadservernamemediaid
        """
        path = f"/_matrix/media/v3/download/{quote(origin, safe='')}/{quote(media_id, safe='')}"
        query = (("allow_remote", "false"), ("timeout_ms", str(timeout_ms)))
        try:
            async with self._client.stream(origin, path, query=query, wait_ms=timeout_ms, signed=False) as response:
                _check_length(response, max_bytes)
                yield _file(response.headers, _pieces(response.content))
        except RemoteFailure as failure:
            raise _as_answer(failure) if isinstance(failure, RemoteRefused) else bad_gateway(failure) from None

    @asynccontextmanager
    async def _second_part(self, response: aiohttp.ClientResponse) -> AsyncIterator[RemoteFile]:
        """The file in an answer of two parts, or where its second part says that it is. Raises MatrixError."""
        try:
            parts = aiohttp.MultipartReader.from_response(response).stream
            async with asyncio.timeout(STALLED_S):
                metadata = await parts.next()
                if not isinstance(metadata, aiohttp.BodyPartReader):
                    raise _misbehaved("the first part is missing")
                read = 0
                while chunk := await metadata.read_chunk(PIECE_BYTES):
                    read += len(chunk)
                    if read > MAX_METADATA_BYTES:
                        raise _misbehaved("the first part is too large")
                part = await parts.next()
            if not isinstance(part, aiohttp.BodyPartReader):
                raise _misbehaved("the second part is missing")
        except UNREADABLE as error:
            raise _misbehaved("the answer is not of two parts") from error
        location = part.headers.get("Location")
        if location is None:
            yield _file(part.headers, _part_pieces(part, parts))
            return
        async with self._elsewhere(location) as file:
            yield file

    @asynccontextmanager
    async def _elsewhere(self, location: str) -> AsyncIterator[RemoteFile]:
        """A file at a URL that another server has named: from no address that this server is not to connect to."""
        url = location
        try:
            for _ in range(MAX_REDIRECTS + 1):
                if not url.startswith("https://"):
                    raise WebFailure("the file is at no https URL")
                async with self._web.get(url, accept="*/*") as answer:
                    if answer.status == 200:
                        charset = f"; charset={answer.charset}" if answer.charset else ""
                        yield RemoteFile(answer.content_type + charset, answer.filename, answer.chunks)
                        return
                    if not 300 <= answer.status < 400 or answer.location is None:
                        raise WebFailure(f"the store answered {answer.status}")
                    url = urljoin(url, answer.location)
            raise WebFailure("redirected too often")
        except WebFailure as error:
            raise _misbehaved("the file is not where it is said to be") from error


def _file(headers: Mapping[str, str], chunks: AsyncIterator[bytes]) -> RemoteFile:
    return RemoteFile(headers.get("Content-Type"), parse_filename(headers.get("Content-Disposition", "")), chunks)


async def _pieces(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    while True:
        try:
            async with asyncio.timeout(STALLED_S):
                piece = await content.readany()
        except UNREADABLE as error:
            raise _misbehaved("the file broke off") from error
        if not piece:
            return
        yield piece


async def _part_pieces(part: aiohttp.BodyPartReader, parts: aiohttp.MultipartReader) -> AsyncIterator[bytes]:
    try:
        while True:
            async with asyncio.timeout(STALLED_S):
                piece = await part.read_chunk(PIECE_BYTES)
            if not piece:
                break
            yield piece
        async with asyncio.timeout(STALLED_S):
            await parts.next()  # without a boundary at its end, the file is not whole
    except UNREADABLE as error:
        raise _misbehaved("the file broke off") from error


def _check_length(response: aiohttp.ClientResponse, max_bytes: int) -> None:
    if (response.content_length or 0) > max_bytes + FRAME_BYTES:
        raise MatrixError(502, "M_TOO_LARGE", "The file is too large to be fetched")


def _is_too_old(failure: RemoteRefused) -> bool:
    """Whether the server does not know the operation, rather than the file."""
    return failure.errcode == "M_UNRECOGNIZED" or (failure.status in (404, 405) and failure.errcode == "M_UNKNOWN")


def _as_answer(failure: RemoteRefused) -> MatrixError:
    if failure.errcode == "M_NOT_YET_UPLOADED":
        return MatrixError(504, "M_NOT_YET_UPLOADED", "The file has not been uploaded yet")
    if failure.errcode == "M_TOO_LARGE":
        return MatrixError(502, "M_TOO_LARGE", "The file is too large for the server that has it")
    if failure.status in (403, 404, 410):
        return NotFound("The server that has it does not serve the file")
    return bad_gateway(failure)


def _misbehaved(what: str) -> MatrixError:
    return MatrixError(502, "M_UNKNOWN", f"The server of the file misbehaves: {what}")

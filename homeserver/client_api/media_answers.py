"""How files are asked for and sent: what downloads with and without an access token share."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

from aiohttp import web

from homeserver.http.answer import CORS_HEADERS
from homeserver.http.files import CACHE_PRIVATELY, FileAnswer, send_file, wait_ms
from homeserver.http.request import Request
from homeserver.services.errors import MatrixError, MissingParam
from homeserver.services.media.contents import Content
from homeserver.services.media.downloads import content_of
from homeserver.services.media.previews import check_url
from homeserver.services.media.thumbnails import Wanted
from matrix.content_disposition import format_disposition
from storage.media import MediaRow

EXTENSIONS = {"image/jpeg": "jpg", "image/png": "png", "image/gif": "gif", "image/webp": "webp"}


@dataclass(frozen=True, slots=True)
class MediaRequest:
    """A file that a client asks for: by which name, how long it waits, and how it may be answered."""

    name: tuple[str, str]
    timeout_ms: int
    may_redirect: bool = True
    cache_control: str = CACHE_PRIVATELY
    row: MediaRow | None = None

    @classmethod
    def of(cls, request: Request) -> MediaRequest:
        """What a request asks for. Raises InvalidParam, LimitExceeded."""
        asker = request.address if request.authenticated is None else request.authenticated.user_id
        request.server.rate_limits.check("media_download", asker)
        return cls((request.params["serverName"], request.params["mediaId"]), wait_ms(request))

    def found(self, row: MediaRow, *, may_redirect: bool, cache_control: str) -> MediaRequest:
        """The same with the file that was found."""
        return replace(self, row=row, may_redirect=may_redirect, cache_control=cache_control)

    @property
    def file(self) -> MediaRow:
        """The file, once it was found."""
        assert self.row is not None
        return self.row


async def send_content(request: Request, found: MediaRequest, filename: str | None) -> web.StreamResponse:
    """The file itself, under its own name or another."""
    content = content_of(found.file)
    disposition = format_disposition(content.content_type, filename or content.filename)
    return await _send(request, found, content, disposition)


async def send_thumbnail(request: Request, found: MediaRequest, wanted: Wanted) -> web.StreamResponse:
    """A thumbnail of the file. Raises what `Thumbnails.thumbnail` raises."""
    row = found.file
    thumbnail = await request.server.media.thumbnails.thumbnail(
        content_of(row), wanted, is_remote=row.origin != request.server.config.server_name
    )
    filename = f"thumbnail.{EXTENSIONS[thumbnail.content_type]}"
    return await _send(request, found, thumbnail, format_disposition(thumbnail.content_type, filename))


async def url_preview(request: Request) -> bytes:
    """What a page says of itself. Raises InvalidParam, MissingParam, and what `Previews.preview` raises."""
    request.server.rate_limits.check("url_preview", request.requester.user_id)
    previews = request.server.media.previews
    if previews is None:
        raise MatrixError(404, "M_UNRECOGNIZED", "This server makes no previews")
    if "url" not in request.query:
        raise MissingParam("url is missing")
    ts = request.query_integer("ts", 0) if "ts" in request.query else None
    check_url(request.query["url"])
    return await previews.preview(request.query["url"], ts=ts, language=request.headers.get("Accept-Language"))


async def _send(request: Request, found: MediaRequest, content: Content, disposition: str) -> web.StreamResponse:
    contents = request.server.media.contents
    if found.may_redirect and (url := await contents.presign(content, disposition)) is not None:
        # For less time than the URL is good for, and only by who asked.
        headers = {**CORS_HEADERS, "Location": url, "Cache-Control": "private, max-age=60"}
        return web.Response(status=307, headers=headers)
    answer = FileAnswer(
        size=content.size,
        etag=content.etag,
        content_type=content.content_type,
        disposition=disposition,
        cache_control=found.cache_control,
        open=partial(contents.open, content),
    )
    return await send_file(request, answer)

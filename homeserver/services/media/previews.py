"""URL previews: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1mediapreview_url

Anybody who has an account makes this server fetch what they like, so every step is bounded: the time, the bytes, the
redirects, how many at once; `Web` connects to no private address; robots.txt is heeded; pages and images are read by
workers. What cannot be had fails the same way whatever the reason is, so that nobody learns what is in the network.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final, NamedTuple
from urllib.parse import urljoin, urlsplit

import orjson

from homeserver.clock import Clock
from homeserver.logs import get_logger
from homeserver.metrics import Metrics
from homeserver.services.errors import InvalidParam, LimitExceeded, MatrixError
from homeserver.services.media.contents import Contents
from homeserver.services.media.robots import EVERYTHING, MAX_ROBOTS_BYTES, NOTHING, Robots, parse_robots
from homeserver.services.media.shared import SharedWork
from homeserver.services.media.uploads import new_media_id
from homeserver.services.media.web import Web, WebAnswer, WebFailure
from homeserver.services.media.workers import Workers
from matrix.mxc import format_mxc
from storage.media import MediaRepository, Outcome
from storage.url_previews import UrlPreviewRepository

log = get_logger(__name__)

MAX_URL_CHARACTERS: Final = 2048
MAX_PAGE_BYTES: Final = 1024 * 1024
"""What is read of a page: what is said of it stands near its beginning."""
MAX_OEMBED_BYTES: Final = 128 * 1024
MAX_REDIRECTS: Final = 5
TIMEOUT_S: Final = 20.0
MAX_AT_ONCE: Final = 8
MAX_WAITING: Final = 100
BUSY_RETRY_MS: Final = 2000
FRESH_MS: Final = 3600 * 1000
FAILED_MS: Final = 300 * 1000
MAX_FAILURES: Final = 5000
ROBOTS_MS: Final = 3600 * 1000
MAX_SITES: Final = 1000
PAGE_TYPES: Final = ("text/html", "application/xhtml+xml")
ACCEPT_PAGE: Final = "text/html, application/xhtml+xml, image/*;q=0.9"
MAX_TEXT_CHARACTERS: Final = 1000


class _Image(NamedTuple):
    """A picture that is kept here."""

    media_id: str
    fields: dict[str, Any]


class Previews:
    """Says what web pages say of themselves."""

    def __init__(
        self,
        rows: UrlPreviewRepository,
        media_rows: MediaRepository,
        contents: Contents,
        workers: Workers,
        web: Web,
        clock: Clock,
        metrics: Metrics,
        *,
        server_name: str,
        max_image_bytes: int,
    ) -> None:
        self._rows = rows
        self._media_rows = media_rows
        self._contents = contents
        self._workers = workers
        self._web = web
        self._clock = clock
        self._figures = metrics.cache("url_previews", lambda: len(self._failures))
        self._server_name = server_name
        self._max_image_bytes = max_image_bytes
        self._under_way: SharedWork[bytes, bytes] = SharedWork()
        self._at_once = asyncio.Semaphore(MAX_AT_ONCE)
        self._failures: OrderedDict[bytes, int] = OrderedDict()
        self._sites: OrderedDict[str, tuple[int, Robots]] = OrderedDict()

    async def preview(self, url: str, *, ts: int | None = None, language: str | None = None) -> bytes:
        """The answer for a URL, as JSON; at the time `ts` (ms) if what is kept is from about then.

        Raises InvalidParam, LimitExceeded, MatrixError (502) for a page that cannot be had.
        """
        url = check_url(url)
        key = hashlib.sha256(url.encode("utf-8", "surrogatepass")).digest()
        now = self._clock()
        row = await self._rows.load_preview(key)
        if row is not None and (now < row.expires_ts or (ts is not None and ts < row.expires_ts)):
            self._figures.hits += 1
            return row.answer
        self._figures.misses += 1
        if now - self._failures.get(key, -FAILED_MS) < FAILED_MS:
            raise _no_preview()
        if key not in self._under_way and len(self._under_way) >= MAX_WAITING:
            raise LimitExceeded(BUSY_RETRY_MS)
        return await self._under_way.run(key, lambda: self._make(key, url, language))

    async def close(self) -> None:
        """Breaks off what is being fetched."""
        await self._under_way.close()

    async def _make(self, key: bytes, url: str, language: str | None) -> bytes:
        row = await self._rows.load_preview(key)
        if row is not None and self._clock() < row.expires_ts:
            return row.answer  # somebody else has just had it made
        try:
            async with self._at_once, asyncio.timeout(TIMEOUT_S):
                answer, media_id = await self._look_at(url, language)
        except (WebFailure, TimeoutError) as error:
            log.debug("no preview", error=str(error) or repr(error))  # URLs are the users' own affair
            self._failures[key] = self._clock()
            if len(self._failures) > MAX_FAILURES:
                self._failures.popitem(last=False)
            raise _no_preview() from None
        now, body = self._clock(), orjson.dumps(answer)
        replaced = await self._rows.replace_preview(key, body, media_id, fetched_ts=now, expires_ts=now + FRESH_MS)
        if replaced is not None:
            await self._media_rows.delete_media(self._server_name, replaced)
        return body

    async def _look_at(self, url: str, language: str | None) -> tuple[dict[str, Any], str | None]:
        """The answer, and the media ID of the picture in it. Raises WebFailure."""
        async with self._fetched(url, accept=ACCEPT_PAGE, language=language) as (final_url, answer):
            if answer.content_type.startswith("image/"):
                image = await self._keep_image(answer)
                return ({}, None) if image is None else (image.fields, image.media_id)
            if answer.content_type not in PAGE_TYPES:
                return {}, None
            too_large = MatrixError(502, "M_TOO_LARGE", "The page is too large")
            start = _beginning(answer.chunks, MAX_PAGE_BYTES)
            async with self._contents.receive(start, max_bytes=MAX_PAGE_BYTES, too_large=too_large) as file:
                job = {"job": "page", "source": str(file.path), "url": final_url, "charset": answer.charset}
                page = await self._workers.run(job)
        if "error" in page:
            return {}, None
        og: dict[str, Any] = page["og"]
        image_url: str | None = page["image"]
        if page["oembed"] is not None and ("og:title" not in og or image_url is None):
            image_url = await self._ask_oembed(page["oembed"], og) or image_url
        image = None if image_url is None else await self._fetch_image(image_url)
        return (og, None) if image is None else ({**og, **image.fields}, image.media_id)

    async def _ask_oembed(self, url: str, og: dict[str, Any]) -> str | None:
        """Adds to `og` what it lacks; the URL of a picture. What cannot be had is left out."""
        try:
            async with self._fetched(url, accept="application/json") as (final_url, answer):
                data = b"".join([chunk async for chunk in _beginning(answer.chunks, MAX_OEMBED_BYTES)])
            found = orjson.loads(data)
        except (WebFailure, orjson.JSONDecodeError):
            return None
        if not isinstance(found, dict):
            return None
        names = (("title", "og:title"), ("author_name", "og:description"), ("provider_name", "og:site_name"))
        for name, field in names:
            if isinstance(text := found.get(name), str) and text.strip():
                og.setdefault(field, text.strip()[:MAX_TEXT_CHARACTERS])
        picture = found.get("thumbnail_url") or (found.get("url") if found.get("type") == "photo" else None)
        try:
            return urljoin(final_url, picture) if isinstance(picture, str) else None
        except ValueError:
            return None

    async def _fetch_image(self, url: str) -> _Image | None:
        try:
            async with self._fetched(url, accept="image/*") as (_, answer):
                return await self._keep_image(answer)
        except WebFailure:
            return None

    async def _keep_image(self, answer: WebAnswer) -> _Image | None:
        """Keeps a picture that is one, and not too large; None otherwise. Raises WebFailure."""
        too_large = MatrixError(502, "M_TOO_LARGE", "The picture is too large")
        if answer.content_length is not None and answer.content_length > self._max_image_bytes:
            return None
        try:
            async with self._contents.receive(
                answer.chunks, max_bytes=self._max_image_bytes, too_large=too_large
            ) as file:
                if not file.size:
                    return None
                found = await self._workers.run({"job": "measure", "source": str(file.path)})
                if "error" in found:
                    return None
                media_id, content_type = new_media_id(), found["content_type"]

                async def name(blob: int) -> Outcome:
                    return await self._media_rows.insert_media(
                        blob,
                        self._server_name,
                        media_id,
                        uploader=None,
                        content_type=content_type,
                        filename=None,
                        now_ms=self._clock(),
                    )

                await self._contents.keep(file, name)
                return _Image(
                    media_id,
                    {
                        "og:image": format_mxc(self._server_name, media_id),
                        "og:image:type": content_type,
                        "og:image:width": found["width"],
                        "og:image:height": found["height"],
                        "matrix:image:size": file.size,
                    },
                )
        except MatrixError as error:
            if error is too_large:
                return None
            raise

    @asynccontextmanager
    async def _fetched(
        self, url: str, *, accept: str, language: str | None = None
    ) -> AsyncIterator[tuple[str, WebAnswer]]:
        """The URL that redirects lead to, and its answer (200). Raises WebFailure."""
        for _ in range(MAX_REDIRECTS + 1):
            url = _checked(url)
            if not (await self._robots(url)).allow(url):
                raise WebFailure(f"{url} is not for programs, by the site's robots.txt")
            async with self._web.get(url, accept=accept, language=language) as answer:
                if answer.status == 200:
                    yield url, answer
                    return
                url = _redirected(url, answer)
        raise WebFailure("redirected too often")

    async def _robots(self, url: str) -> Robots:
        parts = urlsplit(url)
        site = f"{parts.scheme}://{parts.netloc.lower()}"
        now = self._clock()
        known = self._sites.get(site)
        if known is None or now - known[0] >= ROBOTS_MS:
            known = self._sites[site] = (now, await self._fetch_robots(f"{site}/robots.txt"))
        self._sites.move_to_end(site)
        if len(self._sites) > MAX_SITES:
            self._sites.popitem(last=False)
        return known[1]

    async def _fetch_robots(self, url: str) -> Robots:
        """A site that fails is left alone, one that has no rules is not.

        https://www.rfc-editor.org/rfc/rfc9309#section-2.3.1
        """
        try:
            for _ in range(MAX_REDIRECTS + 1):
                async with self._web.get(_checked(url), accept="text/plain") as answer:
                    if 300 <= answer.status < 400:
                        url = _redirected(url, answer)
                    elif answer.status == 200:
                        data = b"".join([chunk async for chunk in _beginning(answer.chunks, MAX_ROBOTS_BYTES)])
                        return parse_robots(data.decode("utf-8", "replace"))
                    else:
                        return EVERYTHING if answer.status < 500 else NOTHING
        except WebFailure:
            return NOTHING
        return EVERYTHING


def check_url(url: str) -> str:
    """A URL that may be fetched, without its fragment. Raises InvalidParam."""
    try:
        return _checked(url)
    except WebFailure as error:
        raise InvalidParam(f"url {error}") from None


def _checked(url: str) -> str:
    url = url.strip().partition("#")[0]
    try:
        parts = urlsplit(url)
        _port = parts.port
    except ValueError:
        raise WebFailure("is not a URL") from None
    if parts.scheme.lower() not in ("http", "https") or not parts.hostname:
        raise WebFailure("must begin with http:// or https:// and a host")
    if parts.username is not None or len(url) > MAX_URL_CHARACTERS or not url.isprintable() or " " in url:
        raise WebFailure(f"must have no user name, no spaces and at most {MAX_URL_CHARACTERS} characters")
    return url


def _redirected(url: str, answer: WebAnswer) -> str:
    if not 300 <= answer.status < 400 or not answer.location:
        raise WebFailure(f"{url} answered {answer.status}")
    try:
        return urljoin(url, answer.location)
    except ValueError:
        raise WebFailure(f"{url} leads to what is no URL") from None


async def _beginning(chunks: AsyncIterator[bytes], max_bytes: int) -> AsyncIterator[bytes]:
    """The first bytes of a body; the rest is left."""
    left = max_bytes
    async for chunk in chunks:
        yield chunk[:left]
        left -= len(chunk)
        if left <= 0:
            return


def _no_preview() -> MatrixError:
    return MatrixError(502, "M_UNKNOWN", "The page cannot be previewed")

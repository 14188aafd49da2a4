"""Thumbnails: made when they are asked for, kept, and few for each image.

https://spec.matrix.org/v1.19/client-server-api/#thumbnails
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, NamedTuple

from homeserver.logs import get_logger
from homeserver.metrics import Metrics
from homeserver.services.errors import MatrixError
from homeserver.services.media.contents import Content, Contents
from homeserver.services.media.shared import SharedWork
from homeserver.services.media.workers import Workers
from matrix.thumbnail_sizes import Method, standard_size
from storage.blobs.base import BlobError
from storage.media import MediaRepository, Outcome

log = get_logger(__name__)

MAX_CROPS: Final = 32
"""Thumbnails of one image, from which on crops in yet other proportions are not made: a scaled one is served, of
which there is one for each of a few sizes."""
NO_IMAGES: Final = ("audio/", "video/", "text/")
"""Files that say they are no images are taken at their word, and not read."""
MAX_REMEMBERED_FAILURES: Final = 10_000

Key = tuple[int, int, str, bool]


class Wanted(NamedTuple):
    """What a client asks for."""

    width: int
    height: int
    method: Method
    animated: bool


class Thumbnails:
    """Serves thumbnails of contents, those of equal contents once."""

    def __init__(self, rows: MediaRepository, contents: Contents, workers: Workers, metrics: Metrics) -> None:
        self._rows = rows
        self._contents = contents
        self._workers = workers
        self._metrics = metrics
        self._under_way: SharedWork[tuple[int, Key], Content] = SharedWork()
        self._failures: OrderedDict[tuple[int, bool], str] = OrderedDict()
        """By blob, and whether it was to be animated: of whatever size, an image fails alike, and may take long to."""

    async def thumbnail(self, of: Content, wanted: Wanted, *, is_remote: bool) -> Content:
        """The thumbnail to serve: not smaller than `wanted`, unless the image is.

        Raises MatrixError: 400 for what is no image, 413 (502 for another server's) for what is too large a one,
        LimitExceeded.
        """
        if of.content_type.startswith(NO_IMAGES):
            raise _no_thumbnail("unreadable", is_remote=is_remote)
        key = _key(wanted)
        kept = {row.of: row for row in await self._rows.load_thumbnails(of.blob)}
        if key not in kept and len(kept) >= MAX_CROPS:
            key = _key(wanted._replace(method="scale"))
        if (row := kept.get(key)) is not None:
            self._metrics.media_thumbnails.labels("kept").inc()
            return Content(row.blob, row.sha256, row.size, row.content_type)
        if (failure := self._failures.get((of.blob, wanted.animated))) is not None:
            raise _no_thumbnail(failure, is_remote=is_remote)
        try:
            return await self._under_way.run((of.blob, key), lambda: self._make(of, key))
        except _Failed as error:
            raise _no_thumbnail(error.kind, is_remote=is_remote) from None

    async def close(self) -> None:
        """Breaks off what is being made."""
        await self._under_way.close()

    async def _make(self, of: Content, key: Key) -> Content:
        width, height, method, animated = key
        async with self._contents.made() as file:
            job = {"job": "thumbnail", "width": width, "height": height, "method": method, "animated": animated}
            try:
                async with self._contents.as_file(of) as source:
                    answer = await self._workers.run({**job, "source": str(source), "target": str(file.path)})
                if "error" in answer:
                    self._fail(of.blob, animated, answer["error"])
                self._metrics.media_thumbnails.labels("made").inc()
                if "original" in answer:
                    return await self._keep_original(of, key, answer["original"])
                await file.adopt()
            except BlobError as error:
                log.error("a thumbnail cannot be made", error=str(error))
                raise MatrixError(503, "M_UNKNOWN", "The thumbnail cannot be made") from error
            made: list[Content] = []

            async def name(blob: int) -> Outcome:
                made[:] = [Content(blob, file.sha256, file.size, answer["made"])]
                return await self._rows.insert_thumbnail(blob, of.blob, key, answer["made"])

            await self._contents.keep(file, name)
            return made[0]

    async def _keep_original(self, of: Content, key: Key, content_type: str) -> Content:
        await self._rows.insert_thumbnail(of.blob, of.blob, key, content_type)
        return Content(of.blob, of.sha256, of.size, content_type)

    def _fail(self, blob: int, animated: bool, kind: str) -> None:
        self._metrics.media_thumbnails.labels("failed").inc()
        self._failures[blob, animated] = kind
        if len(self._failures) > MAX_REMEMBERED_FAILURES:
            self._failures.popitem(last=False)
        raise _Failed(kind)


def _key(wanted: Wanted) -> Key:
    return (*standard_size(wanted.width, wanted.height, wanted.method), wanted.method, wanted.animated)


class _Failed(Exception):
    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind


def _no_thumbnail(kind: str, *, is_remote: bool) -> MatrixError:
    if kind == "too_large":
        return MatrixError(502 if is_remote else 413, "M_TOO_LARGE", "The image is too large for a thumbnail")
    return MatrixError(400, "M_UNKNOWN", "There is no thumbnail of this file")

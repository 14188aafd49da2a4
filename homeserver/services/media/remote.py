"""Files of other servers, kept here for a while after they were fetched."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final, NamedTuple, Protocol

from homeserver.clock import Clock
from homeserver.metrics import Metrics
from homeserver.services.errors import LimitExceeded, MatrixError
from homeserver.services.media.contents import Contents
from homeserver.services.media.shared import SharedWork
from matrix.content_disposition import clean_content_type, is_filename
from storage.media import MediaRepository, MediaRow, Outcome

MAX_FETCHES: Final = 16
"""Files that are fetched at once."""
MAX_WAITING_FETCHES: Final = 200
MAX_FETCH_S: Final = 900.0
BUSY_RETRY_MS: Final = 2000
FAILED_MS: Final = 30_000
"""How long a file that was not to be had is not asked for again."""
MAX_FAILURES: Final = 5000


class RemoteFile(NamedTuple):
    """A file as another server sends it."""

    content_type: str | None
    filename: str | None
    chunks: AsyncIterator[bytes]


class RemoteMedia(Protocol):
    """How files of other servers are got."""

    def fetch_media(
        self, origin: str, media_id: str, *, timeout_ms: int, max_bytes: int
    ) -> AbstractAsyncContextManager[RemoteFile]:
        """A file while its bytes come; the server may wait `timeout_ms` for its upload.

        Raises NotFound; MatrixError: 502 for a server that cannot be reached, 504 M_NOT_YET_UPLOADED.
        """


class RemoteCache:
    """Fetches each file of another server once, however many ask for it."""

    def __init__(
        self,
        rows: MediaRepository,
        contents: Contents,
        remote: RemoteMedia,
        clock: Clock,
        metrics: Metrics,
        *,
        max_bytes: int,
    ) -> None:
        self._rows = rows
        self._contents = contents
        self._remote = remote
        self._clock = clock
        self._metrics = metrics
        self._max_bytes = max_bytes
        self._fetches: SharedWork[tuple[str, str], None] = SharedWork()
        self._at_once = asyncio.Semaphore(MAX_FETCHES)
        self._failures: OrderedDict[tuple[str, str], tuple[int, tuple[int, str, str]]] = OrderedDict()

    async def load(self, origin: str, media_id: str, *, timeout_ms: int) -> MediaRow | None:
        """The file, which is not here yet. Raises what `RemoteMedia` raises, and LimitExceeded."""
        failed = self._failures.get((origin, media_id))
        if failed is not None and self._clock() - failed[0] < FAILED_MS:
            raise MatrixError(*failed[1])
        if (origin, media_id) not in self._fetches and len(self._fetches) >= MAX_WAITING_FETCHES:
            raise LimitExceeded(BUSY_RETRY_MS)
        await self._fetches.run((origin, media_id), lambda: self._try(origin, media_id, timeout_ms))
        return await self._rows.load_media(origin, media_id)

    async def close(self) -> None:
        """Breaks off what is being fetched."""
        await self._fetches.close()

    async def _try(self, origin: str, media_id: str, timeout_ms: int) -> None:
        try:
            await self._fetch(origin, media_id, timeout_ms)
        except MatrixError as error:
            self._metrics.media_fetches.labels("failed").inc()
            if error.errcode != "M_NOT_YET_UPLOADED":
                self._failures[origin, media_id] = (self._clock(), (error.status, error.errcode, error.message))
                if len(self._failures) > MAX_FAILURES:
                    self._failures.popitem(last=False)
            raise
        self._metrics.media_fetches.labels("fetched").inc()

    async def _fetch(self, origin: str, media_id: str, timeout_ms: int) -> None:
        too_large = MatrixError(502, "M_TOO_LARGE", "The file is too large to be fetched")
        async with (
            self._at_once,
            _in_time(),
            self._remote.fetch_media(origin, media_id, timeout_ms=timeout_ms, max_bytes=self._max_bytes) as found,
            self._contents.receive(found.chunks, max_bytes=self._max_bytes, too_large=too_large) as file,
        ):

            async def name(blob: int) -> Outcome:
                return await self._rows.insert_media(
                    blob,
                    origin,
                    media_id,
                    uploader=None,
                    content_type=clean_content_type(found.content_type),
                    filename=found.filename if found.filename and is_filename(found.filename) else None,
                    now_ms=self._clock(),
                )

            await self._contents.keep(file, name)


@asynccontextmanager
async def _in_time() -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(MAX_FETCH_S):
            yield
    except TimeoutError:
        raise MatrixError(502, "M_UNKNOWN", "The server of the file is too slow") from None

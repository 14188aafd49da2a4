"""Contents of files: taken in from anywhere, put into the store, given a name, read again.

What is kept has its bytes in the store before a name for it is committed, so whatever moment the server dies at, no
name leads to half a file: at worst there are bytes without a name, which `retention` finds (docs/adr/0010).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Final, NamedTuple

from homeserver.clock import Clock
from homeserver.logs import get_logger
from homeserver.metrics import Metrics
from homeserver.services.errors import MatrixError, NotFound
from storage.blobs.base import BlobError, BlobMissing, BlobReader, BlobStore
from storage.blobs.spool import Spool, SpooledFile
from storage.media import MediaRepository, Outcome, blob_name

log = get_logger(__name__)

MAX_ATTEMPTS: Final = 3
"""How often a content is stored again because a deletion of the same content was faster."""


class Content(NamedTuple):
    """What is served: a blob, and the type to serve it as."""

    blob: int
    sha256: bytes
    size: int
    content_type: str
    filename: str | None = None

    @property
    def etag(self) -> str:
        return f'"{self.sha256.hex()}"'


class Contents:
    """Reads and writes what files consist of."""

    def __init__(self, rows: MediaRepository, store: BlobStore, spool: Spool, clock: Clock, metrics: Metrics) -> None:
        self._rows = rows
        self._store = store
        self._spool = spool
        self._clock = clock
        self._metrics = metrics

    @asynccontextmanager
    async def receive(
        self, chunks: AsyncIterator[bytes], *, max_bytes: int, too_large: MatrixError
    ) -> AsyncIterator[SpooledFile]:
        """A file on this machine with all the bytes, as long as they are no more than `max_bytes`.

        Raises `too_large`, and MatrixError (503) when the disk does not take it.
        """
        try:
            async with self._spool.file() as file:
                async for chunk in chunks:
                    if file.size + len(chunk) > max_bytes:
                        raise too_large
                    await file.write(chunk)
                await file.finish()
                yield file
        except BlobError as error:
            log.error("a file cannot be taken in", error=str(error))
            raise MatrixError(503, "M_UNKNOWN", "The file cannot be stored") from error

    @asynccontextmanager
    async def made(self) -> AsyncIterator[SpooledFile]:
        """An empty file on this machine to write to, which `keep` takes."""
        async with self._spool.file() as file:
            yield file

    async def keep(self, file: SpooledFile, name: Callable[[int], Awaitable[Outcome]]) -> bool:
        """Stores a finished file and gives it a name by `name`, which is told the blob; False if that is taken.

        Raises MatrixError (503).
        """
        for _ in range(MAX_ATTEMPTS):
            row = await self._rows.reserve_blob(file.sha256, file.size, self._clock())
            if not row.stored:
                try:
                    await self._store.put(blob_name(row.sha256, row.blob), file.path)
                except BlobError as error:
                    log.error("a file cannot be stored", error=str(error))
                    raise MatrixError(503, "M_UNKNOWN", "The file cannot be stored") from error
            outcome = await name(row.blob)
            if outcome != "doomed":
                return outcome == "kept"
        raise MatrixError(503, "M_UNKNOWN", "The same file is being deleted")

    async def open(self, content: Content, start: int, length: int) -> BlobReader:
        """Starts to read a part of a content. Raises NotFound, MatrixError (503)."""
        try:
            reader = await self._store.open(blob_name(content.sha256, content.blob), start, length)
        except BlobMissing as error:
            log.error("the store has lost a file", error=str(error))
            raise NotFound("No such file") from error
        except BlobError as error:
            log.error("a file cannot be read", error=str(error))
            raise MatrixError(503, "M_UNKNOWN", "The file cannot be read") from error
        return reader

    def as_file(self, content: Content) -> AbstractAsyncContextManager[Path]:
        """The content as a local file. Raises BlobError on entering."""
        return self._store.as_file(blob_name(content.sha256, content.blob))

    async def presign(self, content: Content, disposition: str) -> str | None:
        """A URL at which a client gets it from the store itself; None if this server has to send it."""
        name = blob_name(content.sha256, content.blob)
        return await self._store.presign(name, content_type=content.content_type, disposition=disposition)

    def count_bytes(self, direction: str, count: int) -> None:
        """Counts what came `in` or went `out`."""
        self._metrics.media_bytes.labels(direction).inc(count)

"""What a blob store can do, whichever it is."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Final, Protocol

CHUNK_BYTES: Final = 256 * 1024
"""How much of a file is in memory at once while it is sent."""


class BlobError(Exception):
    """The store cannot do what it should: it is full, broken or out of reach. For the log."""


class BlobMissing(BlobError):
    """The store has no such blob, though it should."""


class BlobReader(Protocol):
    """A blob, or a part of one, that is being read."""

    def chunks(self) -> AsyncIterator[bytes]:
        """Its bytes, in pieces. Raises BlobError."""

    async def close(self) -> None:
        """Ends the reading, at whatever point."""


class BlobStore(Protocol):
    """Keeps bytes under names. Names are of letters, digits and `-`, and say what the content is (storage.media)."""

    async def put(self, name: str, path: Path) -> None:
        """Keeps a file's content for good: it is durable when this returns. The file may be gone then.

        The same name may be put again, with the same content. Raises BlobError.
        """

    async def open(self, name: str, start: int, length: int) -> BlobReader:
        """Starts to read `length` bytes from `start` on, which are there. Raises BlobError."""

    def as_file(self, name: str) -> AbstractAsyncContextManager[Path]:
        """The content as a local file, to be read and not to be changed. Raises BlobError."""

    async def delete(self, name: str) -> None:
        """Deletes it, if it is there. Raises BlobError."""

    async def presign(self, name: str, *, content_type: str, disposition: str) -> str | None:
        """A URL at which a client gets it from the store itself for a while; None if there is none to be had."""

    async def close(self) -> None:
        """Ends connections."""

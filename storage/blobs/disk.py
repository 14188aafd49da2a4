"""Blobs in a local directory, in a tree by the first digits of their hashes."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from storage.blobs.base import CHUNK_BYTES, BlobMissing
from storage.blobs.spool import FileThreads


class DiskBlobStore:
    """A `BlobStore` on a local file system, the same that the spool is on: what comes in is moved, not copied."""

    def __init__(self, directory: Path, threads: FileThreads) -> None:
        self._directory = directory
        self._threads = threads

    def path(self, name: str) -> Path:
        """Where a blob is: `ab/cd/` and its name."""
        assert name.replace("-", "").isalnum(), name
        return self._directory / name[:2] / name[2:4] / name

    async def put(self, name: str, path: Path) -> None:
        """Moves the file, which has to be durable already, to its place. Raises BlobError."""
        target = self.path(name)

        def move() -> None:
            missing = [parent for parent in (target.parent, target.parent.parent) if not parent.exists()]
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.replace(target)
            for directory in {target.parent, *(parent.parent for parent in missing)}:
                _sync_directory(directory)

        await self._threads.run(move)

    async def open(self, name: str, start: int, length: int) -> DiskBlobReader:
        """Starts to read a part. Raises BlobError."""
        return DiskBlobReader(await self._threads.run(lambda: _open(self.path(name))), start, length, self._threads)

    @asynccontextmanager
    async def as_file(self, name: str) -> AsyncIterator[Path]:
        """The file itself. Raises BlobError."""
        path = self.path(name)
        if not await self._threads.run(path.exists):
            raise BlobMissing(f"{path} is not there")
        yield path

    async def delete(self, name: str) -> None:
        """Deletes the file, if it is there. Raises BlobError."""

        def unlink() -> None:
            path = self.path(name)
            path.unlink(missing_ok=True)
            if path.parent.exists():
                _sync_directory(path.parent)

        await self._threads.run(unlink)

    async def presign(self, name: str, *, content_type: str, disposition: str) -> str | None:
        """None: this server is the only way to the file."""
        return None

    async def close(self) -> None:
        """Waits for what is being written."""
        self._threads.close()


class DiskBlobReader:
    """A file, or a part of one, that is being read."""

    def __init__(self, fd: int, start: int, length: int, threads: FileThreads) -> None:
        self._fd = fd
        self._position = start
        self._end = start + length
        self._threads = threads

    async def chunks(self) -> AsyncIterator[bytes]:
        """Its bytes, in pieces. Raises BlobError."""
        while self._position < self._end:
            size = min(CHUNK_BYTES, self._end - self._position)
            chunk = await self._threads.run(lambda size=size: os.pread(self._fd, size, self._position))  # type: ignore[misc]
            if not chunk:
                raise BlobMissing("the file is shorter than it was")
            self._position += len(chunk)
            yield chunk

    async def close(self) -> None:
        """Closes the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise BlobMissing(f"{path} is not there") from error


def _sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)

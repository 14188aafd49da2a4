"""Files that are coming in: written to disk piece by piece, hashed on the way, made durable in the end."""

from __future__ import annotations

import asyncio
import hashlib
import os
import secrets
import shutil
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, TypeVar

from storage.blobs.base import BlobError

WRITE_BYTES: Final = 1024 * 1024
"""Pieces are gathered up to this before a thread writes them."""
MAX_THREADS: Final = 4

T = TypeVar("T")


class FileThreads:
    """Threads for files alone, so that a slow disk holds up no passwords."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(MAX_THREADS, thread_name_prefix="files")

    async def run(self, work: Callable[[], T]) -> T:
        """What `work` returns, once a thread has done it. Raises BlobError for an OSError."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work)
        except OSError as error:
            raise BlobError(str(error)) from error

    def close(self) -> None:
        """Waits for what they are doing."""
        self._pool.shutdown()


class SpooledFile:
    """A file that is being written. `sha256` and `size` are those of what was written so far."""

    def __init__(self, path: Path, threads: FileThreads) -> None:
        self.path = path
        self.size = 0
        self._threads = threads
        self._hash = hashlib.sha256()
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._fd = -1
        # A request that is cancelled leaves its write with a thread: that must not meet a descriptor of others.
        self._lock = threading.Lock()
        self._discarded = False

    @property
    def sha256(self) -> bytes:
        return self._hash.digest()

    async def write(self, chunk: bytes) -> None:
        """Adds some bytes. Raises BlobError."""
        self.size += len(chunk)
        self._waiting.append(chunk)
        self._waiting_bytes += len(chunk)
        if self._waiting_bytes >= WRITE_BYTES:
            await self._flush()

    async def finish(self) -> None:
        """Writes what is left, and makes the file durable. Raises BlobError."""
        await self._flush()
        await self._threads.run(self._sync)

    async def adopt(self) -> None:
        """Takes what another program has written to `path` as the content. Raises BlobError."""
        await self._threads.run(self._adopt)

    def _adopt(self) -> None:
        with self._lock:
            if self._discarded:
                return
            self._fd = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
            while piece := os.read(self._fd, WRITE_BYTES):
                self._hash.update(piece)
                self.size += len(piece)
            os.fsync(self._fd)

    async def _flush(self) -> None:
        data, self._waiting, self._waiting_bytes = b"".join(self._waiting), [], 0
        await self._threads.run(lambda: self._write(data))

    def _write(self, data: bytes) -> None:
        with self._lock:
            if self._discarded:
                return
            if self._fd < 0:
                self._fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            self._hash.update(data)
            view = memoryview(data)
            while view:
                view = view[os.write(self._fd, view) :]

    def _sync(self) -> None:
        with self._lock:
            if not self._discarded:
                os.fsync(self._fd)

    def discard(self) -> None:
        """Closes the file, and deletes it unless the store has taken it."""
        with self._lock:
            self._discarded = True
            if self._fd >= 0:
                os.close(self._fd)
            self.path.unlink(missing_ok=True)


class Spool:
    """The directory of files that are coming in. It belongs to one process, which empties it at its start."""

    def __init__(self, directory: Path, threads: FileThreads) -> None:
        self._directory = directory
        self._threads = threads

    def open(self) -> None:
        """Makes the directory, empty. Raises OSError."""
        shutil.rmtree(self._directory, ignore_errors=True)
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    @asynccontextmanager
    async def file(self) -> AsyncIterator[SpooledFile]:
        """A new file; it is deleted in the end, unless it was moved."""
        file = SpooledFile(self.path(), self._threads)
        try:
            yield file
        finally:
            await asyncio.shield(self._threads.run(file.discard))

    def path(self) -> Path:
        """A path in the spool that nothing has used."""
        return self._directory / secrets.token_hex(16)

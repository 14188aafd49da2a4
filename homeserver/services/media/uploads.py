"""Uploads, at once or to a name that was made before: https://spec.matrix.org/v1.19/client-server-api/#content-repository"""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final, NamedTuple
from weakref import WeakValueDictionary

from config.media import Media
from homeserver.clock import Clock
from homeserver.services.errors import Forbidden, InvalidParam, LimitExceeded, MatrixError, NotFound, TooLarge
from homeserver.services.media.arrivals import Arrivals
from homeserver.services.media.contents import Contents
from matrix.content_disposition import MAX_FILENAME_BYTES, clean_content_type, is_filename
from storage.blobs.spool import SpooledFile
from storage.media import MediaRepository, MediaRow, Outcome

MEDIA_ID_BYTES: Final = 18
AWAITED_LIFETIME_MS: Final = 24 * 3600 * 1000
MAX_AWAITED_UPLOADS: Final = 100
"""Names without a file that one user may have."""
MAX_CONCURRENT_UPLOADS: Final = 20
"""Uploads of one user that may be under way."""
BUSY_RETRY_MS: Final = 5000


class IncomingFile(NamedTuple):
    """What a client sends: the bytes as they come, how many it has announced, and what it says they are."""

    chunks: AsyncIterator[bytes]
    announced_bytes: int | None
    content_type: str | None
    filename: str | None


class Uploads:
    """Takes files of users in."""

    def __init__(
        self,
        rows: MediaRepository,
        contents: Contents,
        arrivals: Arrivals,
        clock: Clock,
        *,
        server_name: str,
        limits: Media,
    ) -> None:
        self._rows = rows
        self._contents = contents
        self._arrivals = arrivals
        self._clock = clock
        self._server_name = server_name
        self._limits = limits
        self._under_way: Counter[str] = Counter()
        self._quota_locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def upload(self, uploader: str, incoming: IncomingFile) -> str:
        """Keeps a file under a new name; its media ID.

        Raises TooLarge, Forbidden (the quota), LimitExceeded, InvalidParam.
        """
        media_id = new_media_id()

        async def name(blob: int) -> Outcome:
            return await self._rows.insert_media(
                blob,
                self._server_name,
                media_id,
                uploader=uploader,
                content_type=clean_content_type(incoming.content_type),
                filename=incoming.filename or None,
                now_ms=self._clock(),
            )

        async with self._received(uploader, incoming) as file:
            kept = await self._keep(uploader, file, name)
            assert kept, "a random name was taken"
        return media_id

    async def create(self, uploader: str) -> tuple[str, int]:
        """A name for a file that comes later: its media ID, and until when it is awaited.

        Raises LimitExceeded, Forbidden (no byte of it would fit into the quota).
        """
        await self._check_quota(uploader, 1)
        now = self._clock()
        media_id, expires_ts = new_media_id(), now + AWAITED_LIFETIME_MS
        if not await self._rows.insert_awaited(
            self._server_name,
            media_id,
            uploader=uploader,
            now_ms=now,
            expires_ts=expires_ts,
            max_awaited=MAX_AWAITED_UPLOADS,
        ):
            next_ts = await self._rows.load_next_expiry(uploader, now)
            raise LimitExceeded(BUSY_RETRY_MS if next_ts is None else next_ts - now)
        return media_id, expires_ts

    async def upload_to(self, uploader: str, origin: str, media_id: str, incoming: IncomingFile) -> None:
        """Keeps a file under a name that `create` made.

        Raises NotFound, Forbidden, MatrixError (409 M_CANNOT_OVERWRITE_MEDIA), and what `upload` raises.
        """
        if origin != self._server_name:
            raise NotFound("No such media ID")
        self._check_awaited(uploader, await self._rows.load_media(origin, media_id))

        async def name(blob: int) -> Outcome:
            return await self._rows.fill_awaited(
                blob,
                origin,
                media_id,
                uploader=uploader,
                content_type=clean_content_type(incoming.content_type),
                filename=incoming.filename or None,
                now_ms=self._clock(),
            )

        async with self._received(uploader, incoming) as file:
            self._check_awaited(uploader, await self._rows.load_media(origin, media_id))
            if not await self._keep(uploader, file, name):
                self._check_awaited(uploader, await self._rows.load_media(origin, media_id))  # says why
                raise cannot_overwrite()
        self._arrivals.announce(origin, media_id)

    def _check_awaited(self, uploader: str, row: MediaRow | None) -> None:
        if row is None or (not row.blob and row.expires_ts is not None and row.expires_ts <= self._clock()):
            raise NotFound("No such media ID, or it has expired")
        if row.uploader != uploader:
            raise Forbidden("The media ID was made by somebody else")
        if row.blob:
            raise cannot_overwrite()

    @asynccontextmanager
    async def _received(self, uploader: str, incoming: IncomingFile) -> AsyncIterator[SpooledFile]:
        if incoming.filename is not None and not is_filename(incoming.filename):
            raise InvalidParam(f"filename must not have more than {MAX_FILENAME_BYTES} bytes, nor a NUL character")
        max_bytes = self._limits.max_upload_bytes
        too_large = TooLarge(f"A file may not have more than {max_bytes} bytes")
        if (incoming.announced_bytes or 0) > max_bytes:
            raise too_large
        await self._check_quota(uploader, incoming.announced_bytes or 0)
        if self._under_way[uploader] >= MAX_CONCURRENT_UPLOADS:
            raise LimitExceeded(BUSY_RETRY_MS)
        self._under_way[uploader] += 1
        try:
            async with self._contents.receive(incoming.chunks, max_bytes=max_bytes, too_large=too_large) as file:
                self._contents.count_bytes("in", file.size)
                yield file
        finally:
            self._under_way[uploader] -= 1
            if not self._under_way[uploader]:
                del self._under_way[uploader]

    async def _keep(self, uploader: str, file: SpooledFile, name: Callable[[int], Awaitable[Outcome]]) -> bool:
        if self._limits.user_quota_bytes is None:
            return await self._contents.keep(file, name)
        lock = self._quota_locks.setdefault(uploader, asyncio.Lock())
        async with lock:  # two uploads that fit each alone may not fit together
            await self._check_quota(uploader, file.size)
            return await self._contents.keep(file, name)

    async def _check_quota(self, uploader: str, more_bytes: int) -> None:
        quota = self._limits.user_quota_bytes
        if quota is not None and await self._rows.load_usage(uploader) + more_bytes > quota:
            raise Forbidden(f"You may not keep more than {quota} bytes of files here")


def new_media_id() -> str:
    """A name that nobody guesses."""
    return secrets.token_urlsafe(MEDIA_ID_BYTES)


def cannot_overwrite() -> MatrixError:
    """409: the name has its file."""
    return MatrixError(409, "M_CANNOT_OVERWRITE_MEDIA", "The file has been uploaded already")

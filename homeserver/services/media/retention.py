"""Deletes what nothing refers to any more, and what has been kept long enough.

Whoever deletes a name, a command beside the server too, notes its content in the database; here the bytes go.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import Final

from config.media import Media
from homeserver.clock import Clock
from homeserver.logs import get_logger
from storage.blobs.base import BlobError, BlobStore
from storage.media import MediaRepository, blob_name
from storage.url_previews import UrlPreviewRepository

log = get_logger(__name__)

LOOK_EVERY_S: Final = 30.0
SWEEP_EVERY_MS: Final = 3600 * 1000
MAX_AT_ONCE: Final = 500
PREVIEWS_KEPT_MS: Final = 3 * 24 * 3600 * 1000
"""How long a preview and its picture are kept; clients show pictures from their own caches after that."""
UNFINISHED_AFTER_MS: Final = 24 * 3600 * 1000
"""How long a content may take from the disk to the store, before what is there of it is taken for left over."""


class Retention:
    """Cleans up."""

    def __init__(
        self,
        rows: MediaRepository,
        previews: UrlPreviewRepository,
        store: BlobStore,
        clock: Clock,
        *,
        server_name: str,
        limits: Media,
        connection_errors: tuple[type[BaseException], ...],
    ) -> None:
        self._rows = rows
        self._previews = previews
        self._store = store
        self._clock = clock
        self._server_name = server_name
        self._limits = limits
        self._passing_errors: tuple[type[BaseException], ...] = (*connection_errors, BlobError)
        self._wake = asyncio.Event()
        self._swept_ts = 0

    def wake(self) -> None:
        """Something was deleted: let its bytes go now."""
        self._wake.set()

    async def clean_forever(self) -> None:
        """Cleans up whenever there is something, and looks now and then what others have deleted."""
        while True:
            try:
                await self.clean()
            except self._passing_errors as error:
                log.warning("files could not be cleaned up", error=repr(error))
                self._swept_ts = 0  # what was begun is found again by looking at all
            self._wake.clear()
            try:
                async with asyncio.timeout(LOOK_EVERY_S):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def clean(self) -> None:
        """Deletes what is due now. Raises BlobError."""
        now = self._clock()
        if now - self._swept_ts >= SWEEP_EVERY_MS:
            await self._sweep(now)
            self._swept_ts = now
        while garbage := await self._rows.load_garbage(limit=MAX_AT_ONCE):
            by_blob: defaultdict[int, list[int]] = defaultdict(list)
            for number, blob in garbage:
                by_blob[blob].append(number)
            for blob, numbers in by_blob.items():
                await self._delete_unused(blob, numbers)

    async def _sweep(self, now: int) -> None:
        await self._rows.delete_expired(now)
        while await self._previews.delete_previews(
            self._server_name, before_ts=now - PREVIEWS_KEPT_MS, limit=MAX_AT_ONCE
        ):
            log.debug("old previews were deleted")
        limits = self._limits
        if limits.remote_retention_ms is not None:
            before_ts = now - limits.remote_retention_ms
            while await self._rows.delete_unused(self._server_name, before_ts=before_ts, limit=MAX_AT_ONCE):
                log.info("files of other servers that nobody asked for were deleted")
        if limits.max_remote_bytes is not None:
            await self._rows.delete_beyond(self._server_name, max_bytes=limits.max_remote_bytes)
        for blob in await self._rows.load_unfinished(before_ts=now - UNFINISHED_AFTER_MS, limit=MAX_AT_ONCE):
            await self._delete_unused(blob, [])

    async def _delete_unused(self, blob: int, garbage: list[int]) -> None:
        row = await self._rows.doom_blob(blob, garbage)
        if row is not None:
            await self._store.delete(blob_name(row.sha256, row.blob))
            await self._rows.remove_blob(blob)

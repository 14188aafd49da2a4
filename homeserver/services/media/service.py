"""The content repository as one: what handlers and commands ask for."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Final

from config.schema import Config
from homeserver.clock import Clock
from homeserver.metrics import Metrics
from homeserver.services.media.arrivals import Arrivals
from homeserver.services.media.contents import Contents
from homeserver.services.media.downloads import Downloads
from homeserver.services.media.moderation import MediaModeration
from homeserver.services.media.previews import Previews
from homeserver.services.media.remote import RemoteCache, RemoteMedia
from homeserver.services.media.retention import Retention
from homeserver.services.media.thumbnails import Thumbnails
from homeserver.services.media.uploads import Uploads
from homeserver.services.media.web import Web
from homeserver.services.media.workers import Workers
from storage.blobs.base import BlobStore
from storage.blobs.disk import DiskBlobStore
from storage.blobs.spool import FileThreads, Spool
from storage.database import Database
from storage.media import MediaRepository
from storage.url_previews import UrlPreviewRepository

MAX_PREVIEW_IMAGE_BYTES: Final = 10 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class ContentRepository:
    """The parts of the content repository."""

    contents: Contents
    uploads: Uploads
    downloads: Downloads
    thumbnails: Thumbnails
    previews: Previews | None
    """None where the configuration has them off."""
    remote: RemoteCache
    retention: Retention
    moderation: MediaModeration
    arrivals: Arrivals
    workers: Workers
    store: BlobStore
    spool: Spool

    threads: FileThreads

    def open(self) -> None:
        """Makes ready for files. Raises OSError."""
        self.spool.open()

    async def close(self) -> None:
        """Breaks off what is under way for nobody any more, and ends processes and connections."""
        await self.remote.close()
        await self.thumbnails.close()
        if self.previews is not None:
            await self.previews.close()
        await self.workers.close()
        await self.store.close()
        self.threads.close()


def build_content_repository(
    config: Config, database: Database, clock: Clock, metrics: Metrics, remote: RemoteMedia, web: Web
) -> ContentRepository:
    """Puts the parts together."""
    name, limits = config.server_name, config.media
    rows, threads, arrivals = MediaRepository(database.pool), FileThreads(), Arrivals()
    spool = Spool(config.media_dir / "incoming", threads)
    store = open_store(config, threads, spool)
    contents = Contents(rows, store, spool, clock, metrics)
    cache = RemoteCache(rows, contents, remote, clock, metrics, max_bytes=limits.max_upload_bytes)
    workers = Workers(max_pixels=limits.max_image_pixels)
    preview_rows = UrlPreviewRepository(database.pool)
    previews = Previews(
        preview_rows,
        rows,
        contents,
        workers,
        web,
        clock,
        metrics,
        server_name=name,
        max_image_bytes=min(limits.max_upload_bytes, MAX_PREVIEW_IMAGE_BYTES),
    )
    retention = Retention(
        rows,
        preview_rows,
        store,
        clock,
        server_name=name,
        limits=limits,
        connection_errors=database.connection_errors,
    )
    frozen_from = frozen_from_ts(limits.unauthenticated_until)
    return ContentRepository(
        contents=contents,
        uploads=Uploads(rows, contents, arrivals, clock, server_name=name, limits=limits),
        downloads=Downloads(rows, arrivals, cache, clock, server_name=name, frozen_from_ts=frozen_from),
        thumbnails=Thumbnails(rows, contents, workers, metrics),
        previews=previews if limits.url_previews else None,
        remote=cache,
        retention=retention,
        moderation=MediaModeration(rows, clock, server_name=name, on_deleted=retention.wake),
        arrivals=arrivals,
        workers=workers,
        store=store,
        spool=spool,
        threads=threads,
    )


def open_store(config: Config, threads: FileThreads, spool: Spool) -> BlobStore:
    """The blob store of the configuration; it connects when it is first used."""
    if config.s3.bucket is None:
        return DiskBlobStore(config.media_dir / "files", threads)
    from storage.blobs.s3 import S3BlobStore

    return S3BlobStore(config.s3, spool, threads)


def frozen_from_ts(day: str | None) -> int:
    """From when on what comes is not served without an access token; 0 for what was always so."""
    if day is None:
        return 0
    return int(datetime.datetime.fromisoformat(day).replace(tzinfo=datetime.UTC).timestamp() * 1000)

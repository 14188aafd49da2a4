"""What web pages said of themselves, kept for who asks next."""

from __future__ import annotations

from typing import NamedTuple

import asyncpg


class PreviewRow(NamedTuple):
    """A preview: the answer as JSON, and until when it is taken for new."""

    answer: bytes
    fetched_ts: int
    expires_ts: int


PREVIEW = "SELECT answer, fetched_ts, expires_ts FROM url_previews WHERE url_hash = $1"
REPLACE_PREVIEW = """
WITH old AS (SELECT media_id FROM url_previews WHERE url_hash = $1)
INSERT INTO url_previews (url_hash, answer, media_id, fetched_ts, expires_ts) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (url_hash) DO UPDATE SET answer = $2, media_id = $3, fetched_ts = $4, expires_ts = $5
RETURNING (SELECT media_id FROM old)
"""
# Their pictures go with them; what refers to the contents is for `blob_garbage` (storage.media).
DELETE_PREVIEWS = """
WITH old AS (
    DELETE FROM url_previews WHERE url_hash IN (SELECT url_hash FROM url_previews WHERE fetched_ts < $2 LIMIT $3)
    RETURNING media_id
), gone AS (
    DELETE FROM media m USING old WHERE m.origin = $1 AND m.media_id = old.media_id RETURNING m.blob
), noted AS (
    INSERT INTO blob_garbage (blob) SELECT DISTINCT blob FROM gone WHERE blob IS NOT NULL
) SELECT count(*) FROM old
"""


class UrlPreviewRepository:
    """Keeps previews by the hashes of their URLs."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def load_preview(self, url_hash: bytes) -> PreviewRow | None:
        """The preview that was made last."""
        row = await self._pool.fetchrow(PREVIEW, url_hash)
        return PreviewRow(*row) if row else None

    async def replace_preview(
        self, url_hash: bytes, answer: bytes, media_id: str | None, *, fetched_ts: int, expires_ts: int
    ) -> str | None:
        """Keeps a preview; the media ID of the picture of the one before, which nothing shows any more."""
        values = (url_hash, answer, media_id, fetched_ts, expires_ts)
        replaced: str | None = await self._pool.fetchval(REPLACE_PREVIEW, *values)
        return replaced

    async def delete_previews(self, server_name: str, *, before_ts: int, limit: int) -> int:
        """Forgets up to `limit` previews that were made before a time, with their pictures; how many that were."""
        count: int = await self._pool.fetchval(DELETE_PREVIEWS, server_name, before_ts, limit)
        return count

"""What files the content repository has: names, contents, thumbnails. The bytes are in `storage.blobs`.

A blob is a content, `media` is a name for one. What refers to a blob is a row of `media` or of `thumbnails`; when such
a row goes, the blob is noted in `blob_garbage`, and whoever cleans up dooms it if nothing refers to it any more. A
doomed blob gets no new reference: the same content stored again becomes another blob (docs/adr/0010).
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import asyncpg

Outcome = Literal["kept", "doomed", "taken"]
"""Of giving a blob a name: it has it; the blob is being deleted, take another; the name is no longer to be had."""


class MediaRow(NamedTuple):
    """A file under a name. `blob` is 0 while its upload is awaited, until `expires_ts`."""

    origin: str
    media_id: str
    uploader: str | None
    content_type: str
    filename: str | None
    created_ts: int
    expires_ts: int | None
    last_access_ts: int
    blob: int
    sha256: bytes
    size: int
    quarantined: bool


class BlobRow(NamedTuple):
    """A content. `stored` once the store has all of it."""

    blob: int
    sha256: bytes
    size: int
    stored: bool


class ThumbnailRow(NamedTuple):
    """A thumbnail of a blob; `of` says which: width, height, method, whether animated."""

    of: tuple[int, int, str, bool]
    content_type: str
    blob: int
    sha256: bytes
    size: int


_ROW = """
m.origin, m.media_id, m.uploader, m.content_type, m.filename, m.created_ts, m.expires_ts, m.last_access_ts,
coalesce(b.blob, 0), coalesce(b.sha256, ''), coalesce(b.bytes, 0),
EXISTS (SELECT FROM quarantined_contents q WHERE q.sha256 = b.sha256)
"""
MEDIA = f"SELECT {_ROW} FROM media m LEFT JOIN blobs b USING (blob) WHERE m.origin = $1 AND m.media_id = $2"
MEDIA_OF_USER = f"""
SELECT {_ROW} FROM media m LEFT JOIN blobs b USING (blob)
WHERE m.uploader = $1 AND (m.created_ts, m.media_id) > ($2, $3) ORDER BY m.created_ts, m.media_id LIMIT $4
"""
USAGE = "SELECT coalesce(sum(b.bytes), 0)::bigint FROM media m JOIN blobs b USING (blob) WHERE m.uploader = $1"
TOUCH = "UPDATE media SET last_access_ts = $3 WHERE origin = $1 AND media_id = $2"

# A blob that is there already is taken; one that never became whole gets its time anew.
RESERVE_BLOB = """
INSERT INTO blobs AS b (sha256, bytes, created_ts) VALUES ($1, $2, $3)
ON CONFLICT (sha256) WHERE NOT doomed DO UPDATE
SET created_ts = CASE WHEN b.stored THEN b.created_ts ELSE excluded.created_ts END
RETURNING blob, sha256, bytes, stored
"""
# These three wait for whoever dooms the blob, and then find it doomed.
INSERT_MEDIA = """
WITH kept AS (UPDATE blobs SET stored = true WHERE blob = $1 AND NOT doomed RETURNING blob)
INSERT INTO media (origin, media_id, blob, uploader, content_type, filename, created_ts, last_access_ts)
SELECT $2, $3, blob, $4, $5, $6, $7, $7 FROM kept ON CONFLICT (origin, media_id) DO NOTHING RETURNING 1
"""
FILL_AWAITED = """
WITH kept AS (UPDATE blobs SET stored = true WHERE blob = $1 AND NOT doomed RETURNING blob)
UPDATE media m SET blob = kept.blob, content_type = $5, filename = $6, created_ts = $7, last_access_ts = $7,
    expires_ts = NULL
FROM kept WHERE m.origin = $2 AND m.media_id = $3 AND m.uploader = $4 AND m.blob IS NULL RETURNING 1
"""
INSERT_THUMBNAIL = """
WITH kept AS (UPDATE blobs SET stored = true WHERE blob = $1 AND NOT doomed RETURNING blob)
INSERT INTO thumbnails (blob, width, height, method, animated, thumbnail, content_type)
SELECT b.blob, $3, $4, $5, $6, kept.blob, $7 FROM kept, (SELECT blob FROM blobs WHERE blob = $2 FOR SHARE) b
ON CONFLICT DO NOTHING RETURNING 1
"""
IS_DOOMED = "SELECT NOT EXISTS (SELECT FROM blobs WHERE blob = $1 AND NOT doomed)"
NOTE_GARBAGE = "INSERT INTO blob_garbage (blob) VALUES ($1)"

INSERT_AWAITED = """
INSERT INTO media (origin, media_id, uploader, content_type, created_ts, expires_ts, last_access_ts)
SELECT $1, $2, $3, '', $4, $5, $4
WHERE (SELECT count(*) FROM media WHERE uploader = $3 AND blob IS NULL AND expires_ts > $4) < $6 RETURNING 1
"""
OLDEST_AWAITED = "SELECT min(expires_ts) FROM media WHERE uploader = $1 AND blob IS NULL AND expires_ts > $2"
DELETE_EXPIRED = "DELETE FROM media WHERE blob IS NULL AND expires_ts <= $1"

THUMBNAILS = """
SELECT t.width, t.height, t.method, t.animated, t.content_type, b.blob, b.sha256, b.bytes
FROM thumbnails t JOIN blobs b ON b.blob = t.thumbnail WHERE t.blob = $1
"""

_NOTE_GONE = "INSERT INTO blob_garbage (blob) SELECT DISTINCT blob FROM gone WHERE blob IS NOT NULL"
DELETE_MEDIA = f"""
WITH gone AS (DELETE FROM media WHERE origin = $1 AND media_id = $2 RETURNING blob),
noted AS ({_NOTE_GONE}) SELECT count(*) FROM gone
"""
DELETE_OF_USER = f"""
WITH gone AS (DELETE FROM media WHERE uploader = $1 RETURNING blob), noted AS ({_NOTE_GONE}) SELECT count(*) FROM gone
"""
# Files of other servers that nobody asked for since a time, in portions.
DELETE_UNUSED = f"""
WITH gone AS (
    DELETE FROM media WHERE (origin, media_id) IN (
        SELECT origin, media_id FROM media WHERE uploader IS NULL AND origin <> $1 AND last_access_ts < $2 LIMIT $3)
    RETURNING blob
), noted AS ({_NOTE_GONE}) SELECT count(*) FROM gone
"""
# Those that go beyond what they may have together, the least recently used.
DELETE_BEYOND = f"""
WITH ordered AS (
    SELECT m.origin, m.media_id, sum(b.bytes) OVER (ORDER BY m.last_access_ts DESC, m.origin, m.media_id) AS total
    FROM media m JOIN blobs b USING (blob) WHERE m.uploader IS NULL AND m.origin <> $1
), gone AS (
    DELETE FROM media m USING ordered o
    WHERE o.total > $2 AND m.origin = o.origin AND m.media_id = o.media_id RETURNING m.blob
), noted AS ({_NOTE_GONE}) SELECT count(*) FROM gone
"""
_SHA256 = "SELECT b.sha256 FROM media m JOIN blobs b USING (blob) WHERE m.origin = $1 AND m.media_id = $2"
QUARANTINE = f"""
WITH named AS ({_SHA256}),
noted AS (INSERT INTO quarantined_contents SELECT sha256, $3 FROM named ON CONFLICT DO NOTHING)
SELECT count(*) FROM named
"""
END_QUARANTINE = f"""
WITH named AS ({_SHA256}), ended AS (DELETE FROM quarantined_contents q USING named n WHERE q.sha256 = n.sha256)
SELECT count(*) FROM named
"""

GARBAGE = "SELECT garbage, blob FROM blob_garbage ORDER BY garbage LIMIT $1"
FORGET_GARBAGE = "DELETE FROM blob_garbage WHERE garbage = ANY($1::bigint[])"
LOCK_BLOB = "SELECT blob FROM blobs WHERE blob = $1 FOR UPDATE"
DOOM_BLOB = """
UPDATE blobs b SET doomed = true WHERE blob = $1 AND NOT EXISTS (SELECT FROM media m WHERE m.blob = b.blob)
AND NOT EXISTS (SELECT FROM thumbnails t WHERE t.thumbnail = b.blob AND t.blob <> b.blob)
RETURNING blob, sha256, bytes, stored
"""
UNFINISHED = """
SELECT blob FROM blobs WHERE (NOT stored OR doomed) AND (doomed OR created_ts < $1) ORDER BY created_ts LIMIT $2
"""
DELETE_THUMBNAILS = """
WITH gone AS (DELETE FROM thumbnails WHERE blob = $1 RETURNING thumbnail)
INSERT INTO blob_garbage (blob) SELECT DISTINCT thumbnail FROM gone WHERE thumbnail <> $1
"""
DELETE_BLOB = "DELETE FROM blobs WHERE blob = $1"


def blob_name(sha256: bytes, blob: int) -> str:
    """What the store knows a blob by."""
    return f"{sha256.hex()}-{blob}"


class MediaRepository:
    """Reads and writes files' names. Each method is one transaction."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def load_media(self, origin: str, media_id: str) -> MediaRow | None:
        """The file of a name; also one whose upload is awaited, or was until it expired."""
        row = await self._pool.fetchrow(MEDIA, origin, media_id)
        return MediaRow(*row) if row else None

    async def load_media_of(self, uploader: str, *, after: tuple[int, str] = (0, ""), limit: int) -> list[MediaRow]:
        """Up to `limit` files of a user after one (`created_ts`, `media_id`), oldest first."""
        return [MediaRow(*row) for row in await self._pool.fetch(MEDIA_OF_USER, uploader, *after, limit)]

    async def load_usage(self, uploader: str) -> int:
        """How many bytes a user has uploaded and not deleted."""
        usage: int = await self._pool.fetchval(USAGE, uploader)
        return usage

    async def touch_media(self, origin: str, media_id: str, now_ms: int) -> None:
        """Notes that a file was asked for."""
        await self._pool.execute(TOUCH, origin, media_id, now_ms)

    # Contents and their names ----------------------------------------------------------------------------------------

    async def reserve_blob(self, sha256: bytes, size: int, now_ms: int) -> BlobRow:
        """The blob of a content, made unless it is there; what is not `stored` has to be put into the store now."""
        return BlobRow(*await self._pool.fetchrow(RESERVE_BLOB, sha256, size, now_ms))

    async def insert_media(
        self,
        blob: int,
        origin: str,
        media_id: str,
        *,
        uploader: str | None,
        content_type: str,
        filename: str | None,
        now_ms: int,
    ) -> Outcome:
        """Gives a blob that is in the store a name."""
        return await self._name(blob, INSERT_MEDIA, blob, origin, media_id, uploader, content_type, filename, now_ms)

    async def fill_awaited(
        self,
        blob: int,
        origin: str,
        media_id: str,
        *,
        uploader: str,
        content_type: str,
        filename: str | None,
        now_ms: int,
    ) -> Outcome:
        """Gives a blob that is in the store a name that awaits its upload."""
        return await self._name(blob, FILL_AWAITED, blob, origin, media_id, uploader, content_type, filename, now_ms)

    async def insert_thumbnail(
        self, thumbnail: int, of: int, key: tuple[int, int, str, bool], content_type: str
    ) -> Outcome:
        """Makes a blob that is in the store a thumbnail of another, or of itself."""
        return await self._name(thumbnail, INSERT_THUMBNAIL, thumbnail, of, *key, content_type)

    async def _name(self, blob: int, statement: str, *values: object) -> Outcome:
        async with self._pool.acquire() as connection, connection.transaction():
            if await connection.fetchval(statement, *values):
                return "kept"
            if await connection.fetchval(IS_DOOMED, blob):
                return "doomed"
            await connection.execute(NOTE_GARBAGE, blob)
            return "taken"

    async def insert_awaited(
        self, origin: str, media_id: str, *, uploader: str, now_ms: int, expires_ts: int, max_awaited: int
    ) -> bool:
        """A name whose upload is awaited; False if the user has `max_awaited` of them."""
        values = (origin, media_id, uploader, now_ms, expires_ts, max_awaited)
        return bool(await self._pool.fetchval(INSERT_AWAITED, *values))

    async def load_next_expiry(self, uploader: str, now_ms: int) -> int | None:
        """When the first of the uploads that a user is awaited for expires."""
        expires_ts: int | None = await self._pool.fetchval(OLDEST_AWAITED, uploader, now_ms)
        return expires_ts

    async def load_thumbnails(self, blob: int) -> list[ThumbnailRow]:
        """All thumbnails of a blob."""
        return [ThumbnailRow(tuple(row)[:4], *tuple(row)[4:]) for row in await self._pool.fetch(THUMBNAILS, blob)]

    # Deleting --------------------------------------------------------------------------------------------------------

    async def delete_media(self, origin: str, media_id: str) -> bool:
        """Deletes a name; its content goes too, soon after the last name."""
        return bool(await self._pool.fetchval(DELETE_MEDIA, origin, media_id))

    async def delete_media_of(self, uploader: str) -> int:
        """Deletes all that a user has uploaded; how many that were."""
        count: int = await self._pool.fetchval(DELETE_OF_USER, uploader)
        return count

    async def delete_unused(self, server_name: str, *, before_ts: int, limit: int) -> int:
        """Deletes up to `limit` files of other servers that nobody asked for since; how many that were."""
        count: int = await self._pool.fetchval(DELETE_UNUSED, server_name, before_ts, limit)
        return count

    async def delete_beyond(self, server_name: str, *, max_bytes: int) -> int:
        """Deletes the least recently used files of other servers, until they fit; how many that were."""
        count: int = await self._pool.fetchval(DELETE_BEYOND, server_name, max_bytes)
        return count

    async def delete_expired(self, now_ms: int) -> None:
        """Forgets names whose upload did not come in time."""
        await self._pool.execute(DELETE_EXPIRED, now_ms)

    async def quarantine(self, origin: str, media_id: str, now_ms: int) -> bool:
        """Hides a content under all its names, those to come too; False if there is no such name with a content."""
        return bool(await self._pool.fetchval(QUARANTINE, origin, media_id, now_ms))

    async def end_quarantine(self, origin: str, media_id: str) -> bool:
        """Shows a content again; False if there is no such name with a content."""
        return bool(await self._pool.fetchval(END_QUARANTINE, origin, media_id))

    async def load_garbage(self, *, limit: int) -> list[tuple[int, int]]:
        """Up to `limit` pairs of a number in the garbage and a blob to look at."""
        return [(row[0], row[1]) for row in await self._pool.fetch(GARBAGE, limit)]

    async def load_unfinished(self, *, before_ts: int, limit: int) -> list[int]:
        """Blobs that never became whole since, and those whose deletion was interrupted."""
        return [row[0] for row in await self._pool.fetch(UNFINISHED, before_ts, limit)]

    async def doom_blob(self, blob: int, garbage: list[int]) -> BlobRow | None:
        """Takes these numbers off the garbage, and dooms the blob if nothing refers to it: then it is returned."""
        async with self._pool.acquire() as connection, connection.transaction():
            await connection.execute(FORGET_GARBAGE, garbage)
            await connection.execute(LOCK_BLOB, blob)  # before the next statement looks at what refers to it
            row = await connection.fetchrow(DOOM_BLOB, blob)
            return BlobRow(*row) if row else None

    async def remove_blob(self, blob: int) -> None:
        """Forgets a doomed blob whose bytes are gone, and its thumbnails."""
        async with self._pool.acquire() as connection, connection.transaction():
            await connection.execute(DELETE_THUMBNAILS, blob)
            await connection.execute(DELETE_BLOB, blob)

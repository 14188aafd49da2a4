"""Files that the bot has uploaded: each once."""

from __future__ import annotations

from appservices.summary_bot.storage.database import Database

LOAD_UPLOAD = "SELECT url FROM uploads WHERE digest = $1"
INSERT_UPLOAD = "INSERT INTO uploads (digest, url) VALUES ($1, $2) ON CONFLICT DO NOTHING"


class UploadRepository:
    """Reads and writes where files went, by the digest of their contents."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def load_url(self, digest: bytes) -> str | None:
        """The address of a file; None if it has not been uploaded."""
        found: str | None = await self._database.pool.fetchval(LOAD_UPLOAD, digest)
        return found

    async def persist_url(self, digest: bytes, url: str) -> None:
        """Remembers the address of a file."""
        await self._database.pool.execute(INSERT_UPLOAD, digest, url)

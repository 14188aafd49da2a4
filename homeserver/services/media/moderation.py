"""What administrators do with files: the admin API and `weft media` go through here."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Final

from homeserver.clock import Clock
from homeserver.services.errors import InvalidParam, NotFound
from matrix.mxc import parse_mxc
from storage.media import MediaRepository, MediaRow

ROWS_AT_ONCE: Final = 500


class MediaModeration:
    """Lists, hides and deletes files."""

    def __init__(
        self, rows: MediaRepository, clock: Clock, *, server_name: str, on_deleted: Callable[[], None] | None = None
    ) -> None:
        """`on_deleted` is told that names are gone, so that the bytes go at once; the server looks for them anyway."""
        self._rows = rows
        self._clock = clock
        self._server_name = server_name
        self._on_deleted = on_deleted

    async def files_of(self, user_id: str) -> AsyncIterator[MediaRow]:
        """All files of a user, oldest first."""
        after = (0, "")
        while rows := await self._rows.load_media_of(user_id, after=after, limit=ROWS_AT_ONCE):
            for row in rows:
                yield row
            after = (rows[-1].created_ts, rows[-1].media_id)

    async def delete(self, mxc: str) -> None:
        """Deletes a file, of this server for good, of another until somebody asks for it. Raises NotFound."""
        if not await self._rows.delete_media(*_name(mxc)):
            raise NotFound(f"There is no file {mxc}")
        self._deleted()

    async def delete_files_of(self, user_id: str) -> int:
        """Deletes all files of a user; how many that were."""
        count = await self._rows.delete_media_of(user_id)
        self._deleted()
        return count

    def _deleted(self) -> None:
        if self._on_deleted is not None:
            self._on_deleted()

    async def quarantine(self, mxc: str) -> None:
        """Hides a file, and the same content under every other name now and later. Raises NotFound."""
        if not await self._rows.quarantine(*_name(mxc), self._clock()):
            raise NotFound(f"There is no file {mxc}")

    async def end_quarantine(self, mxc: str) -> None:
        """Shows a file again, under all its names. Raises NotFound."""
        if not await self._rows.end_quarantine(*_name(mxc)):
            raise NotFound(f"There is no file {mxc}")

    async def purge_remote(self, *, before_ts: int) -> int:
        """Deletes the files of other servers that nobody has asked for since (ms); how many that were."""
        total = 0
        while count := await self._rows.delete_unused(self._server_name, before_ts=before_ts, limit=ROWS_AT_ONCE):
            total += count
        self._deleted()
        return total


def _name(mxc: str) -> tuple[str, str]:
    name = parse_mxc(mxc)
    if name is None:
        raise InvalidParam(f"{mxc[:200]!r} is not a URI such as mxc://example.org/abc")
    return name

"""From a name to a file: of this server, awaited here, or of another server."""

from __future__ import annotations

import asyncio
from typing import Final

from homeserver.clock import Clock
from homeserver.services.errors import MatrixError, NotFound
from homeserver.services.media.arrivals import Arrivals
from homeserver.services.media.contents import Content
from homeserver.services.media.remote import RemoteCache
from matrix.mxc import is_media_name
from storage.media import MediaRepository, MediaRow

DEFAULT_TIMEOUT_MS: Final = 20_000
MAX_TIMEOUT_MS: Final = 60_000
TOUCH_EVERY_MS: Final = 6 * 3600 * 1000
"""How exactly it is known when a file was asked for: often enough for a retention of days."""


class Downloads:
    """Finds files."""

    def __init__(
        self,
        rows: MediaRepository,
        arrivals: Arrivals,
        remote: RemoteCache,
        clock: Clock,
        *,
        server_name: str,
        frozen_from_ts: int,
    ) -> None:
        """Without an access token, what came before `frozen_from_ts` is found."""
        self._rows = rows
        self._arrivals = arrivals
        self._remote = remote
        self._clock = clock
        self._server_name = server_name
        self._frozen_from_ts = frozen_from_ts

    async def find(self, origin: str, media_id: str, *, timeout_ms: int, allow_remote: bool = True) -> MediaRow:
        """The file of a name, awaited for `timeout_ms` if it is still to be uploaded.

        Raises NotFound, MatrixError (504 M_NOT_YET_UPLOADED; 502 where another server does not give it).
        """
        if not is_media_name(origin, media_id):
            raise NotFound("No such file")
        row = await self._rows.load_media(origin, media_id)
        if row is None and origin != self._server_name and allow_remote:
            row = await self._remote.load(origin, media_id, timeout_ms=timeout_ms)
        if row is not None and not row.blob:
            row = await self._wait(row, timeout_ms)
        if row is None or row.quarantined:
            raise NotFound("No such file")
        now = self._clock()
        if now - row.last_access_ts > TOUCH_EVERY_MS:
            await self._rows.touch_media(origin, media_id, now)
        return row

    async def find_unfrozen(self, origin: str, media_id: str, *, timeout_ms: int, allow_remote: bool) -> MediaRow:
        """The same for who shows no access token: what came after the freeze is not found.

        https://spec.matrix.org/v1.19/client-server-api/#content-repo-client-behaviour
        """
        is_frozen = self._clock() >= self._frozen_from_ts  # what comes now, came too late
        if is_frozen:
            allow_remote, timeout_ms = False, 0
            row = await self._rows.load_media(origin, media_id) if is_media_name(origin, media_id) else None
            if row is None or row.created_ts >= self._frozen_from_ts:
                raise NotFound("No such file, or an access token is needed for it")
        return await self.find(origin, media_id, timeout_ms=timeout_ms, allow_remote=allow_remote)

    async def _wait(self, row: MediaRow, timeout_ms: int) -> MediaRow | None:
        """The file once it is there. None where it has expired. Raises MatrixError (504)."""
        with self._arrivals.expected(row.origin, row.media_id) as arrived:
            current = await self._rows.load_media(row.origin, row.media_id)  # it may have come just now
            if current is None or current.blob:
                return current
            if current.expires_ts is not None and current.expires_ts <= self._clock():
                return None
            if timeout_ms and not self._arrivals.is_full:
                try:
                    await asyncio.wait_for(arrived.wait(), timeout_ms / 1000)
                except TimeoutError:
                    raise not_yet_uploaded() from None
                current = await self._rows.load_media(row.origin, row.media_id)
                if current is None or current.blob:
                    return current
        raise not_yet_uploaded()


def content_of(row: MediaRow) -> Content:
    """What is served of a file."""
    return Content(row.blob, row.sha256, row.size, row.content_type, row.filename)


def not_yet_uploaded() -> MatrixError:
    """504: the name is known, and the file is to come."""
    return MatrixError(504, "M_NOT_YET_UPLOADED", "The file has not been uploaded yet")

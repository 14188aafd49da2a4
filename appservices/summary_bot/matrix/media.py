"""Downloads from the homeserver's media repository."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from urllib.parse import quote

import aiohttp

from appservices.summary_bot.events import mapping
from appservices.summary_bot.matrix.client import MatrixFailure

MAX_MEDIA_BYTES = 25 * 1024 * 1024
TIMEOUT_S = 60.0
_MXC = re.compile(r"mxc://([A-Za-z0-9.:\[\]-]{1,255})/([A-Za-z0-9_-]{1,255})")


class Media:
    """Files, by their `mxc://` addresses."""

    def __init__(self, base_url: str, token: str, session: Callable[[], aiohttp.ClientSession]) -> None:
        self._base_url = base_url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {token}"}
        self._session = session

    async def upload(self, data: bytes, content_type: str) -> str:
        """Uploads a file; its address. Raises MatrixFailure.

        https://spec.matrix.org/v1.19/client-server-api/#post_matrixmediav3upload
        """
        address = f"{self._base_url}/_matrix/media/v3/upload"
        headers = self._headers | {"Content-Type": content_type}
        try:
            async with (
                asyncio.timeout(TIMEOUT_S),
                self._session().post(address, data=data, headers=headers) as response,
            ):
                if response.status != 200:
                    raise MatrixFailure(f"an upload: status {response.status}", status=response.status)
                url = mapping(await response.json()).get("content_uri")
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise MatrixFailure(f"an upload: {type(error).__name__}", is_temporary=True) from None
        if not isinstance(url, str) or _MXC.fullmatch(url) is None:
            raise MatrixFailure("an upload: the homeserver's answer lacks content_uri")
        return url

    async def load(self, url: str) -> bytes:
        """A file of at most MAX_MEDIA_BYTES. Raises MatrixFailure.

        https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1mediadownloadservernamemediaid
        """
        match = _MXC.fullmatch(url)
        if match is None:
            raise MatrixFailure("no address of a file")
        server, media_id = (quote(part, safe=":") for part in match.groups())
        address = f"{self._base_url}/_matrix/client/v1/media/download/{server}/{media_id}"
        try:
            async with (
                asyncio.timeout(TIMEOUT_S),
                self._session().get(address, headers=self._headers) as response,
            ):
                if response.status != 200:
                    raise MatrixFailure(f"a file: status {response.status}", status=response.status)
                data = bytearray()
                async for piece in response.content.iter_chunked(64 * 1024):
                    data += piece
                    if len(data) > MAX_MEDIA_BYTES:
                        raise MatrixFailure("a file is too large")
                return bytes(data)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise MatrixFailure(f"a file: {type(error).__name__}", is_temporary=True) from None

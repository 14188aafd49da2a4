"""The HTTP client that application services are reached with: bounded answers, bounded time, no redirects."""

from __future__ import annotations

from collections.abc import Mapping

import aiohttp
from yarl import URL

from homeserver.services.appservices.calls import ServiceAnswer, ServiceUnreachable

CONNECT_TIMEOUT_S = 10.0
MAX_CONNECTIONS_PER_SERVICE = 16
MAX_ANSWER_HEADER_BYTES = 8190


class HttpServiceClient:
    """Requests to application services (a `ServiceClient`). Connections are kept and used again."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    async def request(
        self, method: str, url: str, *, headers: Mapping[str, str], body: bytes | None, timeout_s: float, max_bytes: int
    ) -> ServiceAnswer:
        """One request; of the answer's body at most `max_bytes` are read. Raises ServiceUnreachable.

        The URL goes out as it is: its path is percent-encoded already.
        """
        if self._session is None:
            self._session = self._open()
        timeout = aiohttp.ClientTimeout(total=timeout_s, sock_connect=CONNECT_TIMEOUT_S)
        try:
            async with self._session.request(
                method, URL(url, encoded=True), headers=headers, data=body, timeout=timeout, allow_redirects=False
            ) as response:
                return ServiceAnswer(response.status, await _read(response, max_bytes))
        except TimeoutError:
            raise ServiceUnreachable("it did not answer in time", timed_out=True) from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            # Without the URL, which can have a token in it.
            raise ServiceUnreachable(f"{type(error).__name__}: {_reason(error)}") from None

    async def close(self) -> None:
        """Closes the connections."""
        if self._session is not None:
            await self._session.close()

    def _open(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, limit_per_host=MAX_CONNECTIONS_PER_SERVICE),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            skip_auto_headers=("Accept-Encoding",),
            headers={"Accept-Encoding": "identity"},
            max_field_size=MAX_ANSWER_HEADER_BYTES,
        )


async def _read(response: aiohttp.ClientResponse, max_bytes: int) -> bytes:
    """The beginning of the body. A connection with more in it is not used again."""
    body = bytearray()
    async for chunk in response.content.iter_chunked(64 * 1024):
        body += chunk
        if len(body) > max_bytes:
            response.close()
            break
    return bytes(body[:max_bytes])


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return "no usable answer"

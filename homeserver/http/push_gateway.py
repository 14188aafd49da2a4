"""Takes notifications to push gateways over HTTP.

https://spec.matrix.org/v1.19/push-gateway-api/
"""

from __future__ import annotations

import asyncio
import ssl
from urllib.parse import urlsplit

import aiohttp
import msgspec

from config.schema import Push
from homeserver.http.outgoing import AddressGuard
from homeserver.services.push.gateway import PushFailed

MAX_REQUESTS = 256
MAX_REQUESTS_PER_HOST = 32
MAX_ANSWER_BYTES = 65_536
MAX_RETRY_AFTER_S = 3600


class _Answer(msgspec.Struct):
    rejected: list[str] = []


class HttpPushGateway:
    """A `PushGateway` that has so many requests under way at once, and fewer to a single host, so that one that hangs
    does not hold up the others.
    """

    def __init__(self, config: Push) -> None:
        self._config = config
        self._guard = AddressGuard(config.allowed_ip_ranges, config.denied_ip_ranges)
        self._session: aiohttp.ClientSession | None = None
        self._slots = asyncio.Semaphore(MAX_REQUESTS)
        self._by_host: dict[str, tuple[asyncio.Semaphore, int]] = {}

    async def notify(self, url: str, body: bytes) -> frozenset[str]:
        """Posts a notification (JSON); returns the pushkeys that are rejected. Raises PushFailed."""
        host = urlsplit(url).netloc
        gate, waiting = self._by_host.get(host, (asyncio.Semaphore(MAX_REQUESTS_PER_HOST), 0))
        self._by_host[host] = (gate, waiting + 1)
        try:
            async with gate, self._slots:
                return await self._post(url, body)
        finally:
            gate, waiting = self._by_host.pop(host)
            if waiting > 1:
                self._by_host[host] = (gate, waiting - 1)

    async def _post(self, url: str, body: bytes) -> frozenset[str]:
        if self._session is None:
            self._session = aiohttp.ClientSession(connector=self._guard.connector(limit=0), trust_env=False)
        headers = {"Content-Type": "application/json"}
        try:
            async with (
                asyncio.timeout(self._config.request_timeout_ms / 1000),
                self._session.post(url, data=body, headers=headers, allow_redirects=False) as response,
            ):
                if response.status != 200:
                    raise PushFailed(f"answered {response.status}", retry_after_ms=_retry_after_ms(response))
                return _rejected(await _read(response.content))
        except TimeoutError:
            raise PushFailed("did not answer in time") from None
        except (aiohttp.ClientError, OSError, ssl.SSLError, ValueError) as error:
            raise PushFailed(f"cannot be reached: {type(error).__name__}") from None

    async def close(self) -> None:
        """Closes all connections."""
        if self._session is not None:
            await self._session.close()


async def _read(content: aiohttp.StreamReader) -> bytes:
    """The whole answer, however it comes; of one that is too long the beginning, which is no JSON."""
    body = b""
    while len(body) < MAX_ANSWER_BYTES and (chunk := await content.readany()):
        body += chunk
    return body[:MAX_ANSWER_BYTES]


def _retry_after_ms(response: aiohttp.ClientResponse) -> int | None:
    """What a gateway that is busy asks for. https://www.rfc-editor.org/rfc/rfc9110#section-10.2.3"""
    text = response.headers.get("Retry-After", "")
    if not (text.isascii() and text.isdigit() and len(text) < 9):
        return None
    return min(int(text), MAX_RETRY_AFTER_S) * 1000


def _rejected(body: bytes) -> frozenset[str]:
    """The rejected pushkeys of an answer; what is no such answer rejects none."""
    try:
        return frozenset(msgspec.json.decode(body, type=_Answer).rejected)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return frozenset()

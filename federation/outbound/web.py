"""Web sites that users name: fetched for previews, from no address that this server is not to connect to."""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import metadata
from typing import Final

import aiohttp
from yarl import URL

from config.schema import Federation
from federation.outbound.addresses import AddressPolicy
from homeserver.services.media.web import WebAnswer, WebFailure
from matrix.content_disposition import parse_filename

# A name that robots.txt may have rules for (homeserver.services.media.robots), and what it is.
USER_AGENT: Final = f"Weft/{metadata.version('weft-homeserver')} (Matrix URL previews)"
CONNECT_TIMEOUT_S: Final = 5.0
READ_TIMEOUT_S: Final = 10.0
MAX_CONNECTIONS: Final = 50
MAX_HEADER_BYTES: Final = 16_384
_is_language = re.compile(r"[A-Za-z0-9 ,;=.*-]{1,200}").fullmatch


class WebSites:
    """The `Web` of this server. Certificates are checked against the system's authorities, and a custom one."""

    def __init__(self, options: Federation) -> None:
        self._options = options
        self._policy = AddressPolicy(options.allowed_ip_ranges, options.denied_ip_ranges)
        self._session: aiohttp.ClientSession | None = None

    def _open_session(self) -> aiohttp.ClientSession:
        if self._session is None:  # it wants a running event loop
            tls = ssl.create_default_context()
            if self._options.custom_ca_file is not None:
                tls.load_verify_locations(self._options.custom_ca_file)
            connector = aiohttp.TCPConnector(
                ssl=tls,
                # Judged where a socket is made: whatever a name means by then, and wherever a redirect leads.
                socket_factory=self._policy.make_socket,
                use_dns_cache=False,
                limit=MAX_CONNECTIONS,
                force_close=True,
            )
            self._session = aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"User-Agent": USER_AGENT},
                timeout=aiohttp.ClientTimeout(total=None, connect=CONNECT_TIMEOUT_S, sock_read=READ_TIMEOUT_S),
                max_line_size=MAX_HEADER_BYTES,
                max_field_size=MAX_HEADER_BYTES,
            )
        return self._session

    @asynccontextmanager
    async def get(self, url: str, *, accept: str, language: str | None = None) -> AsyncIterator[WebAnswer]:
        """See `Web.get`."""
        headers = {"Accept": accept}
        if language is not None and _is_language(language):
            headers["Accept-Language"] = language
        try:
            async with self._open_session().get(URL(url), headers=headers, allow_redirects=False) as response:
                yield WebAnswer(
                    response.status,
                    response.headers.get("Location"),
                    response.content_type.lower() if "Content-Type" in response.headers else "",
                    response.charset,
                    parse_filename(response.headers.get("Content-Disposition", "")),
                    response.content_length,
                    _chunks(response),
                )
                response.close()  # what is left unread is not wanted
        except (aiohttp.ClientError, OSError, ValueError, asyncio.IncompleteReadError) as error:
            raise WebFailure(f"{url} cannot be fetched: {error!r}") from error

    async def close(self) -> None:
        """Closes all connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None


async def _chunks(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    try:
        while chunk := await response.content.readany():
            yield chunk
    except (aiohttp.ClientError, OSError) as error:
        raise WebFailure(f"the answer broke off: {error!r}") from error

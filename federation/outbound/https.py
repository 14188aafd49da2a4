"""HTTPS to hosts that may be hostile: where it connects, what it waits for and how much it reads is bounded."""

from __future__ import annotations

import asyncio
import errno
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib import metadata

import aiohttp
from yarl import URL

from config.schema import Federation
from federation.outbound.addresses import AddressPolicy
from federation.outbound.names import Names
from homeserver.services.remote import RemoteMisbehaved, RemoteUnreachable

USER_AGENT = f"Weft/{metadata.version('weft-homeserver')}"
MAX_CONNECTIONS = 1000
IDLE_CONNECTION_S = 30.0
MAX_HEADER_BYTES = 8192
MAX_HEADERS = 64
# Who sends less than this in a while is slow on purpose, or as good as gone.
MIN_PROGRESS_BYTES = 4096
PROGRESS_WINDOW_S = 15.0


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Whom to connect to, and as whom: `host` is a name to look up or an IP address, without brackets.

    `host_header` goes into the request, and the certificate has to be good for `certificate_name`.
    """

    host: str
    port: int
    host_header: str
    certificate_name: str

    @property
    def base_url(self) -> str:
        """The URL that paths are added to."""
        return f"https://[{self.host}]:{self.port}" if ":" in self.host else f"https://{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer of any status; header names may be asked for in any case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class ConnectionFailed(RemoteUnreachable):
    """There is no connection with the endpoint, so that nothing was asked: another one may be tried."""


class Https:
    """One pool of connections. Certificates are checked against the system's authorities, and a custom one."""

    def __init__(self, options: Federation, names: Names, *, progress_window_s: float = PROGRESS_WINDOW_S) -> None:
        """Raises OSError for a `custom_ca_file` that cannot be used."""
        self._names = names
        self._policy = AddressPolicy(options.allowed_ip_ranges, options.denied_ip_ranges)
        self._connect_timeout_s = options.connect_timeout_ms / 1000
        self._progress_window_s = progress_window_s
        self._tls = ssl.create_default_context()
        if options.custom_ca_file is not None:
            try:
                self._tls.load_verify_locations(options.custom_ca_file)
            except ssl.SSLError:
                raise OSError(errno.EINVAL, "not a file of PEM certificates", str(options.custom_ca_file)) from None
        self._session: aiohttp.ClientSession | None = None

    def _open_session(self) -> aiohttp.ClientSession:
        if self._session is None:  # it wants a running event loop
            connector = aiohttp.TCPConnector(
                resolver=self._names,
                use_dns_cache=False,  # the resolver keeps answers for as long as they say
                socket_factory=self._policy.make_socket,
                ssl=self._tls,
                limit=MAX_CONNECTIONS,
                keepalive_timeout=IDLE_CONNECTION_S,
            )
            self._session = aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"User-Agent": USER_AGENT},
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._connect_timeout_s),
                max_line_size=MAX_HEADER_BYTES,
                max_field_size=MAX_HEADER_BYTES,
                max_headers=MAX_HEADERS,
            )
        return self._session

    async def ask(
        self,
        destination: str,
        endpoint: Endpoint,
        method: str,
        uri: str,
        *,
        headers: Mapping[str, str],
        body: bytes | None = None,
        max_bytes: int,
    ) -> Answer:
        """One request, no redirects; `uri` is path and query, encoded. `destination` is the name for failures.

        The caller bounds the time. Raises ConnectionFailed, RemoteUnreachable, RemoteMisbehaved.
        """
        async with self.stream(destination, endpoint, method, uri, headers=headers, body=body) as response:
            return Answer(response.status, response.headers, await self.read(destination, response, max_bytes))

    @asynccontextmanager
    async def stream(
        self,
        destination: str,
        endpoint: Endpoint,
        method: str,
        uri: str,
        *,
        headers: Mapping[str, str],
        body: bytes | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The same with a body that is still to be read, by `read` or in pieces. Raises what `ask` raises."""
        try:
            async with self._open_session().request(
                method,
                URL(endpoint.base_url + uri, encoded=True),
                headers={"Host": endpoint.host_header, **headers},
                data=body,
                server_hostname=endpoint.certificate_name,
                allow_redirects=False,
            ) as response:
                try:
                    yield response
                except BaseException:
                    response.close()  # what is left unread is not wanted on the connection
                    raise
        except aiohttp.ClientConnectorCertificateError as error:
            reason = getattr(error.certificate_error, "verify_message", "") or "not valid"
            raise ConnectionFailed(destination, f"its certificate is refused: {reason}") from error
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise ConnectionFailed(destination, f"no connection: {_reason(error)}") from error
        except aiohttp.ClientResponseError as error:
            raise RemoteMisbehaved(destination, "the answer is not HTTP that can be read") from error
        except (aiohttp.ClientError, ssl.SSLError, OSError) as error:
            raise RemoteUnreachable(destination, f"the connection broke: {_reason(error)}") from error

    async def read(self, destination: str, response: aiohttp.ClientResponse, max_bytes: int) -> bytes:
        """The body as it is after decompression, which has to arrive at some speed."""
        return b"".join([piece async for piece in self.pieces(destination, response, max_bytes)])

    async def pieces(self, destination: str, response: aiohttp.ClientResponse, max_bytes: int) -> AsyncIterator[bytes]:
        """The same as it arrives. While a piece is being worked on, no more than the next one is read."""
        if (response.content_length or 0) > max_bytes:
            raise RemoteMisbehaved(destination, f"the answer has more than {max_bytes} bytes")
        size = 0
        while True:
            chunks: list[bytes] = []
            enough = size + MIN_PROGRESS_BYTES
            try:
                async with asyncio.timeout(self._progress_window_s):
                    while size < enough and (chunk := await response.content.readany()):
                        chunks.append(chunk)
                        size += len(chunk)
            except TimeoutError:
                raise RemoteUnreachable(destination, "the answer arrives too slowly") from None
            if size > max_bytes:
                raise RemoteMisbehaved(destination, f"the answer has more than {max_bytes} bytes")
            if chunks:
                yield b"".join(chunks)
            if size < enough:
                return

    async def close(self) -> None:
        """Closes all connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None
        await self._names.close()


def _reason(error: BaseException) -> str:
    """What went wrong in a few words, without the addresses and objects that the library's own texts are full of."""
    cause = getattr(error, "os_error", error)
    if isinstance(cause, ssl.SSLError):
        return f"TLS, {cause.reason or 'failed'}".lower().replace("_", " ")
    if isinstance(cause, ConnectionResetError | aiohttp.ServerDisconnectedError):
        return "closed by the server"
    if isinstance(cause, TimeoutError):
        return "no answer in time"
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror
    return type(cause).__name__

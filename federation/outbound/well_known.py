"""Delegation: what a host says in /.well-known/matrix/server, and how long that holds.

https://spec.matrix.org/v1.19/server-server-api/#getwell-knownmatrixserver
"""

from __future__ import annotations

import asyncio
import email.utils
import re
import secrets
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, replace

from yarl import URL

from federation.outbound.https import Answer, Endpoint, Https
from homeserver.clock import Clock
from homeserver.services.remote import RemoteFailure, RemoteMisbehaved, RemoteUnreachable
from matrix.canonical_json import JsonError, parse_json
from matrix.identifiers import is_server_name

PATH = "/.well-known/matrix/server"
MAX_REDIRECTS = 5
MAX_BYTES = 51_200
TIMEOUT_MS = 15_000
MAX_CACHED_HOSTS = 10_000

# The specification recommends the default and both bounds. The lower bound of a minute is ours: a host that forbids
# caching would be asked before each request to it.
DEFAULT_TTL_MS = 24 * 3600 * 1000
MAX_TTL_MS = 48 * 3600 * 1000
MIN_TTL_MS = 60_000
FIRST_ERROR_TTL_MS = 60_000
MAX_ERROR_TTL_MS = 3600 * 1000

_max_age = re.compile(r'(?:^|,)\s*max-age\s*=\s*"?(\d{1,10})"?\s*(?:,|$)', re.IGNORECASE)
_not_cached = re.compile(r"(?:^|,)\s*no-(?:store|cache)\s*(?:,|=|$)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class _Known:
    """What a host said: `server` None for nothing. `said_ts` is when it did, of how many failures since."""

    server: str | None
    said_ts: int
    expires_ts: int
    failures: int = 0


class WellKnown:
    """Asks hosts whom they delegate to, and keeps their answers in a bounded cache. Hosts that fail are asked less."""

    def __init__(self, https: Https, clock: Clock, *, port: int = 443) -> None:
        """`port` is another one for tests alone."""
        self._https = https
        self._clock = clock
        self._port = port
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._asking: dict[str, asyncio.Task[_Known]] = {}

    async def delegated_server(self, hostname: str) -> str | None:
        """The server name that the host delegates to; None where it has no valid answer. Raises nothing."""
        known = self._known.get(hostname)
        if known is not None and self._clock() < known.expires_ts:
            self._known.move_to_end(hostname)
            return known.server
        task = self._asking.get(hostname)
        if task is None:
            task = asyncio.create_task(self._ask(hostname, known), name=f"well-known of {hostname}")
            self._asking[hostname] = task
            task.add_done_callback(lambda _: self._asking.pop(hostname, None))
        return (await asyncio.shield(task)).server

    def doubt(self, hostname: str) -> None:
        """The delegation did not lead to a server: it is asked for again soon, whatever the last answer allows."""
        known = self._known.get(hostname)
        if known is not None:
            soon = max(self._clock(), known.said_ts + MAX_ERROR_TTL_MS)
            self._known[hostname] = replace(known, expires_ts=min(known.expires_ts, soon))

    async def close(self) -> None:
        """Ends what is under way."""
        tasks = tuple(self._asking.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _ask(self, hostname: str, before: _Known | None) -> _Known:
        try:
            async with asyncio.timeout(TIMEOUT_MS / 1000):
                answer = await self._fetch(hostname)
            server = _server_in(hostname, answer)
        except (RemoteFailure, TimeoutError):
            known = self._failed(before)
        else:
            now = self._clock()
            known = _Known(server, now, now + cache_ttl_ms(answer.headers, now))
        self._known[hostname] = known
        self._known.move_to_end(hostname)
        if len(self._known) > MAX_CACHED_HOSTS:
            self._known.popitem(last=False)
        return known

    def _failed(self, before: _Known | None) -> _Known:
        """The next try is put off, longer each time; what the host said last holds for as long as any answer may."""
        now = self._clock()
        failures = 0 if before is None else before.failures + 1
        ttl = min(FIRST_ERROR_TTL_MS << min(failures, 10), MAX_ERROR_TTL_MS)
        ttl -= secrets.randbelow(ttl // 4)
        if before is None or before.server is None or now >= before.said_ts + MAX_TTL_MS:
            return _Known(None, now, now + ttl, failures)
        return replace(before, expires_ts=min(now + ttl, before.said_ts + MAX_TTL_MS), failures=failures)

    async def _fetch(self, hostname: str) -> Answer:
        url = URL.build(scheme="https", host=hostname, port=self._port, path=PATH)
        for _ in range(MAX_REDIRECTS + 1):
            answer = await self._get(hostname, url)
            if answer.status not in (301, 302, 303, 307, 308):
                return answer
            try:
                url = url.join(URL(answer.headers.get("Location", "")))
            except ValueError:
                raise RemoteMisbehaved(hostname, "the redirect leads nowhere") from None
        raise RemoteMisbehaved(hostname, f"more than {MAX_REDIRECTS} redirects")

    async def _get(self, hostname: str, url: URL) -> Answer:
        """One step. Only HTTPS is followed: what plain HTTP says could come from anybody."""
        if url.scheme != "https" or not url.raw_host or url.port is None:
            raise RemoteMisbehaved(hostname, "the redirect does not lead to HTTPS")
        host = url.raw_host
        header = f"[{host}]" if ":" in host else host
        if not url.is_default_port():
            header += f":{url.port}"
        endpoint = Endpoint(host, url.port, header, host)
        return await self._https.ask(hostname, endpoint, "GET", url.raw_path_qs, headers={}, max_bytes=MAX_BYTES)


def _server_in(hostname: str, answer: Answer) -> str:
    """The server name in an answer. Raises RemoteFailure for every other answer."""
    if answer.status != 200:
        raise RemoteUnreachable(hostname, f"{PATH} is answered with {answer.status}")
    try:
        content = parse_json(answer.body)
    except JsonError as error:
        raise RemoteMisbehaved(hostname, f"{PATH} is {error}") from None
    server = content.get("m.server") if isinstance(content, dict) else None
    if not is_server_name(server):
        raise RemoteMisbehaved(hostname, f"{PATH} names no server")
    return server


def cache_ttl_ms(headers: Mapping[str, str], now_ms: int) -> int:
    """How long an answer may be kept by its headers, within bounds of our own, in ms.

    https://www.rfc-editor.org/rfc/rfc9111#section-4.2
    """
    control = headers.get("Cache-Control", "")
    if _not_cached.search(control):
        return MIN_TTL_MS
    if match := _max_age.search(control):
        age = headers.get("Age", "0")
        left = int(match[1]) - (int(age) if re.fullmatch(r"\d{1,10}", age, re.ASCII) else 0)
        return max(MIN_TTL_MS, min(left * 1000, MAX_TTL_MS))
    if "Expires" in headers:
        try:
            expires = email.utils.parsedate_to_datetime(headers["Expires"]).timestamp()
        except (ValueError, OverflowError):
            return MIN_TTL_MS  # "0" and the like: expired already
        return max(MIN_TTL_MS, min(int(expires * 1000) - now_ms, MAX_TTL_MS))
    return DEFAULT_TTL_MS

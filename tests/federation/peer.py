"""A server that signs and answers what it is told to, for what no honest one does."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from aiohttp import web
from yarl import URL

from benchmarks.authority import Authority
from matrix.canonical_json import encode_canonical_json
from matrix.request_authentication import sign_request
from matrix.signatures import SigningKey, sign_json
from tests.client import Answer
from tests.ports import free_port

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

KEYS = "/_matrix/key/v2/server"


def json(content: Any, status: int = 200, **headers: str) -> Handler:
    """A handler that answers with this JSON."""

    async def answer(_request: web.BaseRequest) -> web.StreamResponse:
        return web.json_response(content, status=status, headers=headers)

    return answer


def raw(body: bytes, status: int = 200, **headers: str) -> Handler:
    """A handler that answers with these bytes."""

    async def answer(_request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(body=body, status=status, headers=headers)

    return answer


class Peer:
    """Answers on a port of loopback, over TLS. `asked` is what came in.

    `handlers` are by path, or by all of it but the last part, with a slash at the end.
    """

    def __init__(self, host: str, port: int, ca_file: Any) -> None:
        self.host, self.port = host, port
        self.name = f"{host}:{port}"
        self.key = SigningKey.from_seed("peer", b"p" * 32)
        self.handlers: dict[str, Handler] = {KEYS: self._keys}
        self.asked: list[web.BaseRequest] = []
        self.keys_changed: Callable[[dict[str, Any]], dict[str, Any]] = lambda keys: keys
        self.tls = ssl.create_default_context(cafile=ca_file)

    def count(self, path: str) -> int:
        """How often a path was asked for."""
        return sum(request.path == path for request in self.asked)

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answers a request."""
        self.asked.append(request)
        handler = self.handlers.get(request.path) or self.handlers.get(request.path.rpartition("/")[0] + "/")
        if handler is None:
            return web.json_response({"errcode": "M_UNRECOGNIZED", "error": "Unrecognized"}, status=404)
        return await handler(request)

    def keys(self, **changes: Any) -> dict[str, Any]:
        """What it publishes of its keys, signed; with fields changed before."""
        keys = {
            "server_name": self.name,
            "valid_until_ts": int(time.time() * 1000) + 3_600_000,
            "verify_keys": {self.key.key_id: {"key": self.key.public_key_base64}},
            "old_verify_keys": {},
            **changes,
        }
        return sign_json(keys, self.name, self.key)

    async def _keys(self, _request: web.BaseRequest) -> web.StreamResponse:
        return web.json_response(self.keys_changed(self.keys()))

    async def ask(
        self,
        server_name: str,
        method: str,
        uri: str,
        content: Any = None,
        *,
        key: SigningKey | None = None,
        origin: str | None = None,
        destination: str | None = None,
        signed_uri: str | None = None,
        signed_content: Any = None,
        authorization: list[str] | None = None,
        body: bytes | None = None,
    ) -> Answer:
        """A signed request, or one that is signed as something else than what it is."""
        signed = sign_request(
            method,
            signed_uri or uri,
            origin=origin or self.name,
            destination=destination or server_name,
            content=content if signed_content is None else signed_content,
            key=key or self.key,
        )
        headers = [("Authorization", value) for value in ([str(signed)] if authorization is None else authorization)]
        if body is None and content is not None:
            body = encode_canonical_json(content)
        async with (
            aiohttp.ClientSession() as session,
            session.request(
                method, URL(f"https://{server_name}{uri}", encoded=True), data=body, headers=headers, ssl=self.tls
            ) as response,
        ):
            return Answer(response.status, await response.json(), response.headers)


@asynccontextmanager
async def running_peer(
    authority: Authority, host: str, *names: str, address: str = "127.0.0.1", port: int = 0
) -> AsyncIterator[Peer]:
    """A peer that answers on loopback as `host`, with a certificate for it and for other names."""
    tls = authority.server_context(host, *names)
    loop = asyncio.get_running_loop()
    holder: list[Peer] = []

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        return await holder[0](request)

    server = web.Server(handle)
    listening = await loop.create_server(server, address, port or free_port(), ssl=tls)
    try:
        holder.append(Peer(host, listening.sockets[0].getsockname()[1], authority.ca_file))
        yield holder[0]
    finally:
        listening.close()
        await server.shutdown(0.1)
        await listening.wait_closed()

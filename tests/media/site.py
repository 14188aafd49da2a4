"""A web site on this machine that says what a test tells it to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from aiohttp import web

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class Site:
    """Answers on a port of loopback. `pages` are by path; `asked` has the paths that were asked for, in order."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.port = port
        self.pages: dict[str, Handler] = {}
        self.asked: list[str] = []

    def add(self, path: str, body: bytes | str, content_type: str = "text/html", status: int = 200, **more: str) -> str:
        """Puts a page at a path; its URL."""
        data = body.encode() if isinstance(body, str) else body
        headers = {"Content-Type": content_type, **{name.replace("_", "-"): value for name, value in more.items()}}

        async def answer(_request: web.BaseRequest) -> web.StreamResponse:
            return web.Response(body=data, status=status, headers=headers)

        self.pages[path] = answer
        return self.url + path

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answers a request."""
        self.asked.append(request.path)
        handler = self.pages.get(request.path)
        return web.Response(status=404) if handler is None else await handler(request)


@asynccontextmanager
async def running_site() -> AsyncIterator[Site]:
    """A site that answers inside the `async with`."""
    holder: list[Site] = []

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        return await holder[0](request)

    server = web.Server(handle)
    listening = await asyncio.get_running_loop().create_server(server, "127.0.0.1", 0)
    try:
        holder.append(Site(listening.sockets[0].getsockname()[1]))
        yield holder[0]
    finally:
        listening.close()
        await server.shutdown(0.1)
        await listening.wait_closed()

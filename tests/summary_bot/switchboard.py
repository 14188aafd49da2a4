"""Stands between the homeserver and the bots of the tests, so that the homeserver never finds nobody there.

A homeserver that cannot reach an application service waits longer and longer before it tries again, which would make
the first test after a bot has stopped wait, too.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
from aiohttp import web


class Switchboard:
    """Passes requests on to the bot that runs, or takes them itself where none does."""

    def __init__(self) -> None:
        self.port = 0
        self.bot_url: str | None = None
        self._session: aiohttp.ClientSession | None = None

    @asynccontextmanager
    async def running(self, port: int) -> AsyncIterator[None]:
        """Listens inside the `with`."""
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_route("*", "/{path:.*}", self._pass_on)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        async with aiohttp.ClientSession() as self._session:
            try:
                yield
            finally:
                await runner.cleanup()

    async def _pass_on(self, request: web.Request) -> web.Response:
        assert self._session is not None
        body = await request.read()
        if self.bot_url is None:
            return web.json_response({})
        headers = {name: request.headers[name] for name in ("Authorization", "Content-Type") if name in request.headers}
        try:
            async with self._session.request(
                request.method, self.bot_url + request.raw_path, data=body, headers=headers
            ) as answer:
                return web.Response(
                    status=answer.status, body=await answer.read(), content_type=answer.content_type or None
                )
        except aiohttp.ClientError:
            return web.json_response({})

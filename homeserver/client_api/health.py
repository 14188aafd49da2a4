"""Pages and probes beside the Matrix API: the landing page, liveness, readiness, metrics."""

from __future__ import annotations

import asyncio

from aiohttp import web

from homeserver.http.pages import html_page
from homeserver.http.request import Request, Result, Route
from homeserver.services.errors import MatrixError

READY_TIMEOUT_S = 5


async def landing_page(request: Request) -> Result:
    """What this is, and how to connect a client."""
    config = request.server.config
    return html_page("index.html", {"server_name": config.server_name, "base_url": config.base_url})


async def health(_request: Request) -> Result:
    """The process is alive."""
    return {"status": "ok"}


async def ready(request: Request) -> Result:
    """The database can be reached."""
    try:
        async with asyncio.timeout(READY_TIMEOUT_S):
            await request.server.database.pool.fetchval("SELECT 1")
    except request.server.database.connection_errors:
        raise MatrixError(503, "M_UNKNOWN", "The database cannot be reached") from None
    return {"status": "ready"}


async def metrics(request: Request) -> Result:
    """Figures for Prometheus."""
    body, content_type = request.server.metrics.render()
    return web.Response(body=body, headers={"Content-Type": content_type})


ROUTES = [
    Route("GET", "/", "landingPage", landing_page, auth=False),
    Route("GET", "/health", "health", health, auth=False, resource="health"),
    Route("GET", "/ready", "ready", ready, auth=False, resource="health"),
    Route("GET", "/metrics", "metrics", metrics, auth=False, resource="metrics"),
]

"""Server discovery: https://spec.matrix.org/v1.19/client-server-api/#server-discovery

For deployments where the server name's own web address leads here; others serve these files with a web server.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from homeserver.http.request import Request, Result, Route
from homeserver.services.errors import NotFound


async def get_wellknown(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#getwell-knownmatrixclient"""
    return {"m.homeserver": {"base_url": request.server.config.base_url}}


async def get_well_known(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/server-server-api/#getwell-knownmatrixserver

    Other servers are led to the public address. Without TLS they could not use it, and are told nothing.
    """
    config = request.server.config
    url = urlsplit(config.base_url)
    if not config.federation.enabled or url.scheme != "https":
        raise NotFound("This server is not delegated")
    return {"m.server": url.netloc if url.port is not None else f"{url.netloc}:443"}


async def get_wellknown_support(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#getwell-knownmatrixsupport"""
    support = request.server.config.support
    answer: dict[str, Any] = {}
    if support.contacts:
        answer["contacts"] = [
            {
                name: value
                for name, value in (
                    ("role", contact.role),
                    ("matrix_id", contact.matrix_id),
                    ("email_address", contact.email_address),
                )
                if value is not None
            }
            for contact in support.contacts
        ]
    if support.page is not None:
        answer["support_page"] = support.page
    if not answer:
        raise NotFound("This server names nobody to turn to")
    return answer


ROUTES = [
    Route("GET", "/.well-known/matrix/client", "getWellknown", get_wellknown, auth=False),
    Route("GET", "/.well-known/matrix/support", "getWellknownSupport", get_wellknown_support, auth=False),
    Route("GET", "/.well-known/matrix/server", "getWellKnown", get_well_known, auth=False),
]

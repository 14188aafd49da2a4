"""version.yaml: what software this is."""

from __future__ import annotations

from importlib import metadata

from homeserver.http.request import Request, Result, Route

VERSION = metadata.version("weft-homeserver")


async def get_version(_request: Request) -> Result:
    """https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1version"""
    return {"server": {"name": "Weft", "version": VERSION}}


ROUTES = [
    Route("GET", "/_matrix/federation/v1/version", "getVersion", get_version, auth=False, resource="federation"),
]

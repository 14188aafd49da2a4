"""Supported versions of the specification: https://spec.matrix.org/v1.19/client-server-api/#api-versions"""

from __future__ import annotations

from homeserver.http.request import Request, Result, Route

VERSIONS = ("r0.6.1", *(f"v1.{minor}" for minor in range(1, 20)))
"""What a client may rely on. Of no version there are peeking (`GET /events`) and the search of messages."""

UNSTABLE_FEATURES = {"org.matrix.msc3814": True}
"""Proposals that are served before they are in the specification: dehydrated devices."""


async def get_versions(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientversions"""
    return {"versions": list(VERSIONS), "unstable_features": UNSTABLE_FEATURES}


ROUTES = [
    Route("GET", "/_matrix/client/versions", "getVersions", get_versions, auth=False),
]

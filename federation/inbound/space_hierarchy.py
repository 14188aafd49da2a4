"""space_hierarchy.yaml: a space and the rooms right below it."""

from __future__ import annotations

from homeserver.http.request import Request, Result, Route


async def get_space_hierarchy(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1hierarchyroomid"""
    return await request.server.spaces.for_server(
        request.origin, request.params["roomId"], suggested_only=request.query_boolean("suggested_only")
    )


ROUTES = [
    Route(
        "GET",
        "/_matrix/federation/v1/hierarchy/{roomId}",
        "getSpaceHierarchy",
        get_space_hierarchy,
        signed=True,
        resource="federation",
    ),
]

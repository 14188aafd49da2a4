"""users.yaml, mutual_rooms.yaml"""

from __future__ import annotations

import msgspec

from homeserver.http.request import Request, Result, Route
from homeserver.services.errors import InvalidParam
from homeserver.services.user_directory import DEFAULT_USERS


class UserSearch(msgspec.Struct):
    """The body of searchUserDirectory."""

    search_term: str
    limit: int = DEFAULT_USERS


async def search_user_directory(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3user_directorysearch"""
    body = await request.body(UserSearch)
    user_id = request.requester.user_id
    request.server.rate_limits.check("search", user_id)
    return await request.server.user_directory.search(user_id, body.search_term, body.limit)


async def get_mutual_rooms(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1mutual_rooms"""
    other = request.query.get("user_id")
    if other is None:
        raise InvalidParam("user_id is missing")
    user_id = request.requester.user_id
    request.server.rate_limits.check("search", user_id)
    return await request.server.user_directory.mutual_rooms(user_id, other, request.query.get("from"))


ROUTES = [
    Route("POST", "/_matrix/client/v3/user_directory/search", "searchUserDirectory", search_user_directory),
    Route("GET", "/_matrix/client/v1/mutual_rooms", "getMutualRooms", get_mutual_rooms),
]

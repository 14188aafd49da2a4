"""query.yaml: single questions of other servers, about profiles and aliases."""

from __future__ import annotations

from homeserver.http.request import Request, Result, Route
from homeserver.services.errors import InvalidParam, MissingParam, NotFound
from matrix.identifiers import get_domain, is_user_id


def _local_user(request: Request) -> str:
    user_id = request.query.get("user_id")
    if user_id is None:
        raise MissingParam("user_id is missing")
    if not is_user_id(user_id) or get_domain(user_id) != request.server.config.server_name:
        raise InvalidParam("user_id is not a user of this server")
    return user_id


async def query_profile(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1queryprofile"""
    profile = await request.server.profiles.profile(_local_user(request))
    field = request.query.get("field")
    if field is None:
        return profile
    if field not in profile:
        raise NotFound("The profile has no such field")
    return {field: profile[field]}


async def query_room_directory(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1querydirectory"""
    alias = request.query.get("room_alias")
    if alias is None:
        raise MissingParam("room_alias is missing")
    return (await request.server.aliases.locate_local(alias))._asdict()


async def query_info(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1queryquerytype

    There are no other types of queries than those above.
    """
    raise NotFound(f"There are no queries of the type {request.params['queryType'][:64]}")


QUERY = "/_matrix/federation/v1/query"

ROUTES = [
    Route("GET", f"{QUERY}/profile", "queryProfile", query_profile, signed=True, resource="federation"),
    Route("GET", f"{QUERY}/directory", "queryRoomDirectory", query_room_directory, signed=True, resource="federation"),
    Route("GET", f"{QUERY}/{{queryType}}", "queryInfo", query_info, signed=True, resource="federation"),
]

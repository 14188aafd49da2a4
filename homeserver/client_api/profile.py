"""profile.yaml"""

from __future__ import annotations

import re
from typing import Any

from homeserver.http.request import Request, Result, Route
from homeserver.services.errors import BadJson, Forbidden, InvalidParam, MatrixError, MissingParam, NotFound
from matrix.canonical_json import JsonError, check_event_value

# https://spec.matrix.org/v1.19/appendices/#common-namespaced-identifier-grammar
KEY_NAME = re.compile(r"[a-z][a-z0-9._-]*")
STRING_FIELDS = ("displayname", "avatar_url", "m.tz")
REMOVED_BY_NULL = ("displayname", "avatar_url")
"""What older clients, which know no DELETE, remove by setting it to null."""
MAX_KEY_BYTES = 255
MAX_FIELD_BYTES = 2048


def _access_own_field(request: Request) -> str:
    if request.params["userId"] != request.requester.user_id:
        raise Forbidden("This is another user's profile")
    return _key_name(request)


def _key_name(request: Request) -> str:
    key = request.params["keyName"]
    if len(key.encode()) > MAX_KEY_BYTES:
        raise MatrixError(400, "M_KEY_TOO_LARGE", f"The name of a field can have {MAX_KEY_BYTES} bytes")
    if not KEY_NAME.fullmatch(key):
        raise InvalidParam("Not a name that a profile field can have")
    return key


async def _look_up(request: Request) -> dict[str, Any]:
    """The profile of a user of any server. Nobody has to be logged in for it, so that other servers are guarded."""
    user_id = request.params["userId"]
    if not request.server.profile_lookup.is_at_hand(user_id):
        request.server.rate_limits.check("federation", f"questions of {request.address}")
    return await request.server.profile_lookup.profile(user_id)


async def get_user_profile(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3profileuserid"""
    return await _look_up(request)


async def get_profile_field(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3profileuseridkeyname"""
    key = _key_name(request)
    profile = await _look_up(request)
    if key not in profile:
        raise NotFound("The profile has no such field")
    return {key: profile[key]}


async def set_profile_field(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3profileuseridkeyname"""
    key = _access_own_field(request)
    body = await request.json_object()
    if key not in body:
        raise MissingParam(f"{key} is missing")
    value = body[key]
    if key in STRING_FIELDS and not isinstance(value, str) and not (value is None and key in REMOVED_BY_NULL):
        raise BadJson(f"{key} must be a string")
    if value is None and key not in REMOVED_BY_NULL:
        raise BadJson(f"{key} must not be null: DELETE removes it")
    try:
        check_event_value(value)
    except JsonError as error:
        raise BadJson(str(error)) from None
    if isinstance(value, str) and len(value.encode()) > MAX_FIELD_BYTES:
        raise MatrixError(400, "M_TOO_LARGE", f"{key} is too long")
    await request.server.profiles.set_field(request.requester.user_id, key, value)
    return {}


async def delete_profile_field(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#delete_matrixclientv3profileuseridkeyname"""
    await request.server.profiles.set_field(request.requester.user_id, _access_own_field(request), None)
    return {}


PROFILE = "/_matrix/client/v3/profile/{userId}"

ROUTES = [
    Route("GET", PROFILE, "getUserProfile", get_user_profile, auth=False),
    Route("GET", f"{PROFILE}/{{keyName}}", "getProfileField", get_profile_field, auth=False),
    Route("PUT", f"{PROFILE}/{{keyName}}", "setProfileField", set_profile_field, limited=True),
    Route("DELETE", f"{PROFILE}/{{keyName}}", "deleteProfileField", delete_profile_field, limited=True),
]

"""account-data.yaml, filter.yaml"""

from __future__ import annotations

from homeserver.client_api.own_data import access_own, access_room_number
from homeserver.http.request import Request, Result, Route
from homeserver.services.errors import NotFound


async def set_account_data(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3useruseridaccount_datatype"""
    user_id = access_own(request)
    content = await request.json_object()
    await request.server.account_data.put(user_id, await access_room_number(request), request.params["type"], content)
    return {}


async def get_account_data(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3useruseridaccount_datatype"""
    user_id = access_own(request)
    content = await request.server.account_data.get(user_id, await access_room_number(request), request.params["type"])
    if content is None:
        raise NotFound("No such account data")
    return content


async def define_filter(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3useruseridfilter"""
    user_id = access_own(request)
    return {"filter_id": await request.server.filters.define(user_id, await request.json_object())}


async def get_filter(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3useruseridfilterfilterid"""
    return await request.server.filters.get(access_own(request), request.params["filterId"])


USER = "/_matrix/client/v3/user/{userId}"

ROUTES = [
    Route("PUT", f"{USER}/account_data/{{type}}", "setAccountData", set_account_data),
    Route("GET", f"{USER}/account_data/{{type}}", "getAccountData", get_account_data),
    Route("PUT", f"{USER}/rooms/{{roomId}}/account_data/{{type}}", "setAccountDataPerRoom", set_account_data),
    Route("GET", f"{USER}/rooms/{{roomId}}/account_data/{{type}}", "getAccountDataPerRoom", get_account_data),
    Route("POST", f"{USER}/filter", "defineFilter", define_filter),
    Route("GET", f"{USER}/filter/{{filterId}}", "getFilter", get_filter),
]

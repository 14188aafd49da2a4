"""tags.yaml"""

from __future__ import annotations

from homeserver.client_api.own_data import access_own, access_room_number
from homeserver.http.request import Request, Result, Route


async def get_room_tags(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3useruseridroomsroomidtags"""
    user_id = access_own(request)
    return {"tags": await request.server.room_tags.get(user_id, await access_room_number(request))}


async def set_room_tag(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3useruseridroomsroomidtagstag"""
    user_id = access_own(request)
    tag = await request.json_object()
    await request.server.room_tags.put(user_id, await access_room_number(request), request.params["tag"], tag)
    return {}


async def delete_room_tag(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#delete_matrixclientv3useruseridroomsroomidtagstag"""
    user_id = access_own(request)
    await request.server.room_tags.delete(user_id, await access_room_number(request), request.params["tag"])
    return {}


TAGS = "/_matrix/client/v3/user/{userId}/rooms/{roomId}/tags"

ROUTES = [
    Route("GET", TAGS, "getRoomTags", get_room_tags),
    Route("PUT", f"{TAGS}/{{tag}}", "setRoomTag", set_room_tag),
    Route("DELETE", f"{TAGS}/{{tag}}", "deleteRoomTag", delete_room_tag),
]

"""What paths below `/user/{userId}` have in common: only the user themselves goes there."""

from __future__ import annotations

from homeserver.http.request import Request
from homeserver.services.errors import Forbidden, InvalidParam, NotFound
from matrix.identifiers import is_room_id
from storage.user_data import GLOBAL


def access_own(request: Request) -> str:
    """The user in the path, who must be the one who asks. Raises Forbidden."""
    if request.params["userId"] != request.requester.user_id:
        raise Forbidden("This is another user's")
    return request.requester.user_id


async def access_room_number(request: Request) -> int:
    """The number of the room in the path, which the user must have been in; GLOBAL where there is none in it.

    Raises InvalidParam, NotFound.
    """
    if "roomId" not in request.params:
        return GLOBAL
    if not is_room_id(request.params["roomId"]):
        raise InvalidParam("Not a room ID")
    rooms = await request.server.user_rooms.load(request.requester.user_id)
    room = rooms.get(request.params["roomId"])
    if room is None:
        raise NotFound("You were never in this room")
    return room.room

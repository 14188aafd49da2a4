"""room_event_by_timestamp.yaml"""

from __future__ import annotations

from homeserver.http.request import Request, Result, Route
from homeserver.services.errors import InvalidParam, MissingParam, NotFound


async def get_event_by_timestamp(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1roomsroomidtimestamp_to_event"""
    query = request.query
    for name in ("ts", "dir"):
        if name not in query:
            raise MissingParam(f"{name} is missing")
    if query["dir"] not in ("b", "f"):
        raise InvalidParam("dir must be b or f")
    ts = request.query_integer("ts", 0)
    reader = await request.server.access.access_readable_room(request.requester.user_id, request.params["roomId"])
    event = await request.server.federation.closest_events.find(reader, ts=ts, backwards=query["dir"] == "b")
    if event is None:
        raise NotFound("There is no event on this side of the timestamp")
    return {"event_id": event.event_id, "origin_server_ts": event.pdu.origin_server_ts}


ROUTES = [
    Route(
        "GET",
        "/_matrix/client/v1/rooms/{roomId}/timestamp_to_event",
        "getEventByTimestamp",
        get_event_by_timestamp,
        limited=True,
    )
]

"""room_initial_sync.yaml"""

from __future__ import annotations

import orjson

from homeserver.http.request import Request, Result, Route
from homeserver.services.sync.tokens import BEGINNING, encode_token
from matrix.filters import RoomEventFilter

DEFAULT_EVENTS = 20


async def room_initial_sync(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidinitialsync"""
    server, requester = request.server, request.requester
    reader = await server.access.access_readable_room(requester.user_id, request.params["roomId"])
    limit = request.query_integer("limit", DEFAULT_EVENTS, minimum=1, maximum=server.config.limits.max_page_events)
    newest = server.stream.current if reader.up_to is None else reader.up_to
    page = await server.timelines.page(
        reader, start=newest, stop=BEGINNING, limit=limit, backwards=True, event_filter=RoomEventFilter()
    )
    positions = sorted((await server.access.state_positions(reader)).values())
    loaded = await server.events.load(positions)
    messages = await server.event_views.room_events(requester, reader, page.events[::-1])
    state = await server.event_views.room_events(requester, reader, [loaded[position] for position in positions])
    account_data = await server.account_data.changed(requester.user_id, 0, newest)
    told = {
        "room_id": reader.room.room_id,
        "messages": {
            "chunk": [orjson.Fragment(event) for event in messages],
            "end": encode_token(newest),
            **({} if page.end is None else {"start": encode_token(page.end)}),
        },
        "state": [orjson.Fragment(event) for event in state],
        "visibility": "public" if await server.directory.is_listed(reader.room.room_id) else "private",
        "account_data": [
            {"type": row.type, "content": orjson.Fragment(row.content)}
            for row in account_data
            if row.room == reader.room.room
        ],
    }
    return told if reader.membership is None else {**told, "membership": reader.membership}


ROUTES = [Route("GET", "/_matrix/client/v3/rooms/{roomId}/initialSync", "roomInitialSync", room_initial_sync)]

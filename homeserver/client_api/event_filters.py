"""The filter that endpoints which read one room's events take."""

from __future__ import annotations

from homeserver.http.request import Request
from homeserver.services.errors import InvalidParam
from matrix.canonical_json import JsonError, parse_json
from matrix.filters import InvalidFilter, RoomEventFilter, compile_room_event_filter


def room_event_filter(request: Request) -> RoomEventFilter:
    """The `filter` of a request for events of one room. Raises InvalidParam."""
    text = request.query.get("filter")
    if not text:
        return RoomEventFilter()
    try:
        return compile_room_event_filter(parse_json(text.encode()))
    except (JsonError, InvalidFilter, UnicodeEncodeError) as error:
        raise InvalidParam(f"filter is not valid: {error}") from None

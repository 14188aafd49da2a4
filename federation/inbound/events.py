"""events.yaml, event_auth.yaml, backfill.yaml: events and states of rooms that other servers are in."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from homeserver.http.request import Request, Result, Route
from homeserver.services.errors import InvalidParam, MissingParam

MAX_NAMED_EVENTS = 100
DEFAULT_LIMIT = 10


class MissingEventsBody(msgspec.Struct):
    """The body of get_missing_events."""

    earliest_events: list[str]
    latest_events: list[str]
    limit: int = DEFAULT_LIMIT
    min_depth: int = 0


def _event_id(request: Request) -> str:
    event_id = request.query.get("event_id")
    if not event_id:
        raise MissingParam("event_id is missing")
    return event_id


def _transaction(request: Request, events: Iterable[object]) -> Result:
    server = request.server
    return {"origin": server.config.server_name, "origin_server_ts": server.clock(), "pdus": list(events)}


async def get_event(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1eventeventid"""
    event = await request.server.federation.history.event(request.origin, request.params["eventId"])
    return _transaction(request, [event])


async def get_room_state(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1stateroomid"""
    history = request.server.federation.history
    state = await history.state_before(request.origin, request.params["roomId"], _event_id(request))
    chain = await history.chain_of(state)
    shown = [await history.serve(request.origin, request.params["roomId"], events) for events in (state, chain)]
    return b'{"pdus":[%s],"auth_chain":[%s]}' % tuple(shown)


async def get_room_state_ids(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1state_idsroomid"""
    history = request.server.federation.history
    state = await history.state_before(request.origin, request.params["roomId"], _event_id(request))
    chain = await history.chain_of(state)
    return {
        "pdu_ids": [event.event_id for event in state],
        "auth_chain_ids": [event.event_id for event in chain],
    }


async def get_event_auth(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1event_authroomideventid"""
    history, room_id = request.server.federation.history, request.params["roomId"]
    chain = await history.auth_chain(request.origin, room_id, request.params["eventId"])
    return b'{"auth_chain":[%s]}' % await history.serve(request.origin, room_id, chain)


async def backfill_room(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1backfillroomid"""
    event_ids = request.query_list("v")[:MAX_NAMED_EVENTS]
    if not event_ids:
        raise MissingParam("v is missing")
    if "limit" not in request.query:
        raise MissingParam("limit is missing")
    limit = request.query_integer("limit", DEFAULT_LIMIT, minimum=1)
    found = await request.server.federation.history.backfill(request.origin, request.params["roomId"], event_ids, limit)
    return _transaction(request, found)


async def get_missing_previous_events(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/server-server-api/#post_matrixfederationv1get_missing_eventsroomid"""
    body = await request.body(MissingEventsBody)
    found = await request.server.federation.history.missing(
        request.origin,
        request.params["roomId"],
        body.earliest_events[:MAX_NAMED_EVENTS],
        body.latest_events[:MAX_NAMED_EVENTS],
        max(body.limit, 0),
        body.min_depth,
    )
    return {"events": found}


async def get_event_by_timestamp(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1timestamp_to_eventroomid"""
    for name in ("ts", "dir"):
        if name not in request.query:
            raise MissingParam(f"{name} is missing")
    if request.query["dir"] not in ("b", "f"):
        raise InvalidParam("dir must be b or f")
    event = await request.server.federation.history.closest(
        request.origin,
        request.params["roomId"],
        ts=request.query_integer("ts", 0),
        backwards=request.query["dir"] == "b",
    )
    return {"event_id": event.event_id, "origin_server_ts": event.pdu.origin_server_ts}


V1 = "/_matrix/federation/v1"

ROUTES = [
    Route("GET", f"{V1}/event/{{eventId}}", "getEvent", get_event, signed=True, resource="federation"),
    Route("GET", f"{V1}/state/{{roomId}}", "getRoomState", get_room_state, signed=True, resource="federation"),
    Route(
        "GET", f"{V1}/state_ids/{{roomId}}", "getRoomStateIds", get_room_state_ids, signed=True, resource="federation"
    ),
    Route(
        "GET",
        f"{V1}/event_auth/{{roomId}}/{{eventId}}",
        "getEventAuth",
        get_event_auth,
        signed=True,
        resource="federation",
    ),
    Route("GET", f"{V1}/backfill/{{roomId}}", "backfillRoom", backfill_room, signed=True, resource="federation"),
    Route(
        "GET",
        f"{V1}/timestamp_to_event/{{roomId}}",
        "getEventByTimestamp",
        get_event_by_timestamp,
        signed=True,
        resource="federation",
    ),
    Route(
        "POST",
        f"{V1}/get_missing_events/{{roomId}}",
        "getMissingPreviousEvents",
        get_missing_previous_events,
        signed=True,
        resource="federation",
    ),
]

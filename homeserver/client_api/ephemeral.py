"""typing.yaml, receipts.yaml, read_markers.yaml"""

from __future__ import annotations

from typing import Any

import msgspec

from homeserver.client_api.own_data import access_own
from homeserver.http.request import Request, Result, Route
from homeserver.services.errors import InvalidParam
from homeserver.services.receipts import FULLY_READ, READ, READ_PRIVATE, RECEIPT_TYPES

DEFAULT_TYPING_TIMEOUT_MS = 30_000


class TypingState(msgspec.Struct):
    """The body of setTyping; the timeout is in milliseconds."""

    typing: bool
    timeout: int = DEFAULT_TYPING_TIMEOUT_MS


class ReceiptBody(msgspec.Struct):
    """The body of postReceipt. A thread_id of another type than text is an error of its own."""

    thread_id: Any = None


class ReadMarkers(msgspec.Struct):
    """The body of setReadMarker: event IDs."""

    fully_read: str | None = msgspec.field(default=None, name=FULLY_READ)
    read: str | None = msgspec.field(default=None, name=READ)
    read_private: str | None = msgspec.field(default=None, name=READ_PRIVATE)


async def set_typing(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3roomsroomidtypinguserid"""
    user_id = access_own(request)
    body = await request.body(TypingState)
    await request.server.typing.set(user_id, request.params["roomId"], body.typing, body.timeout)
    return {}


async def post_receipt(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3roomsroomidreceiptreceipttypeeventid"""
    body = await request.body(ReceiptBody, optional=True)
    params = request.params
    if params["receiptType"] not in RECEIPT_TYPES:
        raise InvalidParam("Not a receipt type")
    if body.thread_id is not None and not isinstance(body.thread_id, str):
        raise InvalidParam("thread_id must be a string")
    if params["receiptType"] == FULLY_READ and body.thread_id is not None:
        raise InvalidParam("m.fully_read has no threads")
    await request.server.receipts.set_markers(
        request.requester.user_id,
        params["roomId"],
        {params["receiptType"]: params["eventId"]},
        thread_id=body.thread_id,
    )
    return {}


async def set_read_marker(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3roomsroomidread_markers"""
    body = await request.body(ReadMarkers)
    given = {FULLY_READ: body.fully_read, READ: body.read, READ_PRIVATE: body.read_private}
    markers = {type: event_id for type, event_id in given.items() if event_id is not None}
    await request.server.receipts.set_markers(request.requester.user_id, request.params["roomId"], markers)
    return {}


ROOM = "/_matrix/client/v3/rooms/{roomId}"

ROUTES = [
    Route("PUT", f"{ROOM}/typing/{{userId}}", "setTyping", set_typing, limited=True),
    Route("POST", f"{ROOM}/receipt/{{receiptType}}/{{eventId}}", "postReceipt", post_receipt, limited=True),
    Route("POST", f"{ROOM}/read_markers", "setReadMarker", set_read_marker, limited=True),
]

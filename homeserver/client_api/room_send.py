"""room_send.yaml, redaction.yaml"""

from __future__ import annotations

from homeserver.http.request import Request, Result, Route
from homeserver.services.errors import InvalidParam

MAX_TXN_ID_CHARS = 255


async def send_message(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3roomsroomidsendeventtypetxnid"""
    content = await request.json_object()
    server, requester, params = request.server, request.requester, request.params
    server.rate_limits.check("message", requester.user_id)
    event_id = await server.sending.send_message(
        requester, params["roomId"], params["eventType"], content, _txn_id(request), ts=request.event_ts()
    )
    return b'{"event_id":"%s"}' % event_id.encode()


async def redact_event(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3roomsroomidredacteventidtxnid"""
    content = await request.optional_json_object()
    server, requester, params = request.server, request.requester, request.params
    server.rate_limits.check("message", requester.user_id)
    event_id = await server.sending.redact(requester, params["roomId"], params["eventId"], content, _txn_id(request))
    return {"event_id": event_id}


def _txn_id(request: Request) -> str:
    txn_id = request.params["txnId"]
    if len(txn_id) > MAX_TXN_ID_CHARS:
        raise InvalidParam("The transaction ID is too long")
    return txn_id


ROUTES = [
    Route("PUT", "/_matrix/client/v3/rooms/{roomId}/send/{eventType}/{txnId}", "sendMessage", send_message),
    Route("PUT", "/_matrix/client/v3/rooms/{roomId}/redact/{eventId}/{txnId}", "redactEvent", redact_event),
]

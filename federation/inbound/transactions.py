"""transactions.yaml: what another server has to tell."""

from __future__ import annotations

from typing import Any

import msgspec

from homeserver.http.request import Request, Result, Route
from homeserver.services.errors import InvalidParam
from matrix.canonical_json import MAX_WRAPPED_DEPTH, JsonError, check_depth

MAX_PDUS = 50
MAX_EDUS = 100
MAX_TRANSACTION_ID_CHARS = 255


class TransactionBody(msgspec.Struct):
    """A transaction. Its `origin` is of no account: the request is signed.

    What is in the lists is looked at one by one: what is of no use there does not keep the rest out.
    """

    pdus: list[Any]
    edus: list[Any] = []


async def send_transaction(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv1sendtxnid"""
    body = await request.body(TransactionBody)
    if len(body.pdus) > MAX_PDUS or len(body.edus) > MAX_EDUS:
        raise InvalidParam(f"A transaction has at most {MAX_PDUS} PDUs and {MAX_EDUS} EDUs")
    transaction_id = request.params["txnId"]
    if len(transaction_id) > MAX_TRANSACTION_ID_CHARS:
        raise InvalidParam("The transaction ID is too long")
    edus = [edu for edu in body.edus if not _is_deep(edu)]
    return await request.server.federation.transactions.receive(request.origin, transaction_id, body.pdus, edus)


def _is_deep(edu: dict[str, Any]) -> bool:
    """Whether an EDU nests too deep to be accepted; events are checked with all else that is wrong of them."""
    try:
        check_depth(edu)
    except JsonError:
        return True
    return False


ROUTES = [
    Route(
        "PUT",
        "/_matrix/federation/v1/send/{txnId}",
        "sendTransaction",
        send_transaction,
        signed=True,
        resource="federation",
        max_depth=MAX_WRAPPED_DEPTH,
    ),
]

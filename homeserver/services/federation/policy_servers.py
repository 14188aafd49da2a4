"""Rooms that have events looked at by a policy server before anybody sees them.

For all other rooms it is one look into a dictionary. Events of this server are sent with the policy server's signature
or not at all; those of others that lack it are asked for, and soft-failed where it is refused or cannot be had.
https://spec.matrix.org/v1.19/server-server-api/#policy-servers
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence

from homeserver.clock import Clock
from homeserver.logs import get_logger
from homeserver.services.errors import Forbidden, MatrixError
from homeserver.services.federation.verification import Verified
from homeserver.services.remote import RemoteFailure, RemoteRefused, RemoteUnreachable, Transport
from homeserver.services.rooms.room import Room
from matrix.pdu import Pdu
from matrix.policy_servers import (
    POLICY,
    PolicyServer,
    is_exempt,
    is_recommended,
    policy_server_of,
    with_policy_signature,
)

log = get_logger(__name__)

SIGN_PATH = "/_matrix/policy/v1/sign"
SIGN_TIMEOUT_MS = 10_000
ASKED_AT_ONCE = 4
"""About how many events of one transaction the policy server is asked at a time."""
LEFT_ALONE_MS = 5_000
"""For how long a policy server that did not answer is not asked again: who sends is told so at once meanwhile."""
MAX_LEFT_ALONE = 1_000


class PolicyServers:
    """Asks policy servers, and judges by what they sign."""

    def __init__(self, transport: Transport, clock: Clock) -> None:
        self._transport = transport
        self._clock = clock
        self._failed: OrderedDict[str, int] = OrderedDict()

    def find(self, room: Room) -> PolicyServer | None:
        """The policy server that a room uses now, if any.

        https://spec.matrix.org/v1.19/server-server-api/#determining-if-a-policy-server-is-enabled-in-a-room
        """
        event = room.tip_event(POLICY)
        if event is None:
            return None
        server = policy_server_of(event.pdu.content)
        return server if server is not None and server.name in room.servers else None

    def must_ask(self, room: Room, type: str, state_key: str | None) -> bool:
        """Whether an event that is to be sent into a room needs a signature first."""
        return not is_exempt(type, state_key) and self.find(room) is not None

    async def sign(self, room: Room, pdu: Pdu) -> Pdu:
        """An event of this server with the signature that it needs. Raises MatrixError: what the policy server said.

        https://spec.matrix.org/v1.19/server-server-api/#asking-for-a-policy-server-signature-on-an-event
        """
        server = self.find(room)
        if server is None or is_recommended(pdu, server):
            return pdu
        try:
            signed = await self._ask(server, pdu)
        except RemoteRefused as refusal:
            if refusal.status >= 500:
                raise MatrixError(502, "M_UNKNOWN", f"The room's policy server failed: {refusal}") from None
            # "If the Policy Server returned an error, that error SHOULD be provided to the client verbatim."
            status = {"M_FORBIDDEN": 403, "M_LIMIT_EXCEEDED": 429}.get(refusal.errcode, 400)
            raise MatrixError(status, refusal.errcode, refusal.message) from None
        except RemoteFailure as failure:
            raise MatrixError(502, "M_UNKNOWN", f"The room's policy server cannot be asked: {failure}") from None
        if signed is None:
            raise Forbidden("The room's policy server did not sign the event")
        return signed

    async def check(self, room: Room, verified: Sequence[Verified]) -> list[Verified]:
        """Events of other servers, each with the signature that was asked for, or marked as not recommended."""
        server = self.find(room)
        if server is None:
            return list(verified)
        gate = asyncio.Semaphore(ASKED_AT_ONCE)

        async def check(one: Verified) -> Verified:
            if is_recommended(one.pdu, server):
                return one
            signed = None
            async with gate:
                try:
                    signed = await self._ask(server, one.pdu)
                except RemoteFailure as failure:
                    log.info("an event is not recommended", event_id=one.pdu.event_id, reason=str(failure))
            return one._replace(is_recommended=False) if signed is None else one._replace(pdu=signed)

        return list(await asyncio.gather(*(check(one) for one in verified)))

    async def _ask(self, server: PolicyServer, pdu: Pdu) -> Pdu | None:
        """The event with the signature, None if that is no good. Raises RemoteFailure.

        https://spec.matrix.org/v1.19/server-server-api/#post_matrixpolicyv1sign
        """
        if self._clock() < self._failed.get(server.name, 0) + LEFT_ALONE_MS:
            raise RemoteUnreachable(server.name, "did not answer a moment ago")
        try:
            answer = await self._transport.request(
                server.name, "POST", SIGN_PATH, content=pdu.json, timeout_ms=SIGN_TIMEOUT_MS
            )
        except RemoteFailure as failure:
            if isinstance(failure, RemoteUnreachable) or (isinstance(failure, RemoteRefused) and failure.status >= 500):
                self._failed[server.name] = self._clock()
                if len(self._failed) > MAX_LEFT_ALONE:
                    self._failed.popitem(last=False)
            raise
        self._failed.pop(server.name, None)
        return with_policy_signature(pdu, server, answer)

"""Invitations that were made out to an e-mail address or the like, and are redeemed by whom it turned out to belong to.

The room has an m.room.third_party_invite: whoever shows a token signed with a key of it is let in as the user for whom
it was signed. An identity server signs; this server need not trust it, as the room named its keys.

1. The promise is looked up in the room, and the signature checked against its keys.
2. The key is asked after, where the room says by what address.
3. An m.room.member event is made that has the signed token in it: by a server in the room, in the inviter's name.

https://spec.matrix.org/v1.19/server-server-api/#third-party-invites
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, NamedTuple
from urllib.parse import quote

import orjson

from homeserver.logs import get_logger
from homeserver.services.errors import Forbidden, InvalidParam, MatrixError, NotFound
from homeserver.services.federation.handshake import refusal_as_error
from homeserver.services.federation.inviting import Inviting
from homeserver.services.federation.resident import Resident
from homeserver.services.media.web import Web, WebFailure
from homeserver.services.remote import RemoteFailure, RemoteRefused, Transport, bad_gateway
from homeserver.services.rooms.access import Access
from homeserver.services.rooms.authoring import Draft
from homeserver.services.rooms.membership import Membership
from homeserver.services.rooms.room import Room
from homeserver.services.rooms.sending import Sending
from matrix.event_auth import InviteKey, find_invite_key
from matrix.identifiers import get_domain, is_server_name, is_user_id

log = get_logger(__name__)

INVITES_AT_ONCE = 8
VALIDITY_TIMEOUT_S = 10
MAX_VALIDITY_URL_CHARS = 2048
MAX_VALIDITY_BYTES = 4096


class Redeemed(NamedTuple):
    """What is redeemed: the invitation of `sender` to a room, by `signed`, made out to `signed["mxid"]`."""

    room_id: str
    sender: str
    signed: dict[str, Any]


class ThirdPartyInvites:
    """Turns invitations of third parties into those of users."""

    def __init__(
        self,
        access: Access,
        sending: Sending,
        membership: Membership,
        resident: Resident,
        inviting: Inviting,
        transport: Transport,
        web: Web,
        *,
        server_name: str,
    ) -> None:
        self._access = access
        self._sending = sending
        self._membership = membership
        self._resident = resident
        self._inviting = inviting
        self._transport = transport
        self._web = web
        self._server_name = server_name

    async def redeem(self, user_id: str, redeemed: Redeemed) -> None:
        """Invites a user of this server to where they show a signed token for. Raises MatrixError.

        https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3roomsroomidjoin
        """
        if redeemed.signed.get("mxid") != user_id:
            raise Forbidden("The invitation is for another user")
        room = await self._access.find_resident_room(redeemed.room_id)
        if room is not None:
            await self._issue(room, redeemed)
        else:
            await self._exchange(user_id, redeemed)

    async def on_bound(self, user_id: str, invites: Sequence[Redeemed]) -> None:
        """An identity server says that an identifier belongs to a user here, and has invitations for it.

        One that cannot be redeemed is not the identity server's concern. Raises InvalidParam, NotFound and the like for
        a user who cannot be invited.
        https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv13pidonbind
        """
        if not self._membership.is_local(user_id):
            raise InvalidParam("mxid is not a user of this server")
        await self._membership.check_invitable(user_id)
        gate = asyncio.Semaphore(INVITES_AT_ONCE)

        async def redeem(invite: Redeemed) -> None:
            async with gate:
                try:
                    await self.redeem(user_id, invite)
                except MatrixError as error:
                    log.info("an invitation was not redeemed", room_id=invite.room_id, reason=error.message)

        await asyncio.gather(*(redeem(invite) for invite in invites))

    async def on_exchange(self, origin: str, user_id: str, redeemed: Redeemed) -> None:
        """Another server wants one of its users invited, by a promise that somebody here made. Raises MatrixError.

        https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv1exchange_third_party_inviteroomid
        """
        if not is_user_id(user_id) or get_domain(user_id) != origin or redeemed.signed.get("mxid") != user_id:
            raise Forbidden("The invitation is not for a user of your server")
        if not self._membership.is_local(redeemed.sender):
            raise Forbidden("The inviter is not a user of this server")
        await self._issue(await self._resident.access_room(origin, redeemed.room_id), redeemed)

    async def _issue(self, room: Room, redeemed: Redeemed) -> None:
        """Makes the invitation in a room that this server is in. Raises Forbidden, and what inviting raises."""
        user_id, token = redeemed.signed.get("mxid"), redeemed.signed.get("token")
        if not isinstance(token, str) or not isinstance(user_id, str):
            raise InvalidParam("signed lacks mxid or token")
        promise = room.tip_event(("m.room.third_party_invite", token))
        key = None if promise is None else find_invite_key(redeemed.signed, promise.pdu.content)
        if promise is None or key is None or promise.pdu.sender != redeemed.sender:
            raise Forbidden("The room has no invitation of this sender with a key that the token is signed with")
        await self._check_validity(key)
        shown = promise.pdu.content.get("display_name")
        content = {
            "membership": "invite",
            "third_party_invite": {"display_name": shown if isinstance(shown, str) else "", "signed": redeemed.signed},
        }
        draft = Draft("m.room.member", redeemed.sender, content, user_id)
        if self._membership.is_local(user_id):
            # By the rules it would take who is in already out of the room.
            await self._sending.author(room, lambda room: () if room.tip_membership(user_id) == "join" else (draft,))
        elif room.tip_membership(user_id) != "join":
            await self._inviting.invite(room, draft)

    async def _check_validity(self, key: InviteKey) -> None:
        """Asks whether a key is still good, where the room says whom to ask. Raises Forbidden.

        https://spec.matrix.org/v1.19/client-server-api/#third-party-invites
        """
        if key.validity_url is None:
            return
        try:
            if not key.validity_url.startswith("https://") or len(key.validity_url) > MAX_VALIDITY_URL_CHARS:
                raise WebFailure("not an address to ask at")
            url = f"{key.validity_url}{'&' if '?' in key.validity_url else '?'}public_key={quote(key.encoded, safe='')}"
            body = b""
            async with (
                asyncio.timeout(VALIDITY_TIMEOUT_S),
                self._web.get(url, accept="application/json") as answer,
            ):
                async for chunk in answer.chunks:
                    body += chunk
                    if len(body) > MAX_VALIDITY_BYTES:
                        raise WebFailure("too long an answer")
            told = orjson.loads(body)
            if answer.status == 200 and isinstance(told, dict) and told.get("valid") is True:
                return
            reason = "the answer says so"
        except (WebFailure, TimeoutError, orjson.JSONDecodeError) as error:
            reason = repr(error)
        log.info("the key of an invitation is not known to be valid", reason=reason)
        raise Forbidden("The key of the invitation is not known to be valid any more")

    async def _exchange(self, user_id: str, redeemed: Redeemed) -> None:
        """Asks the inviter's server to invite the user to a room that this one is not in. Raises MatrixError."""
        server = get_domain(redeemed.sender)
        if not is_user_id(redeemed.sender) or not is_server_name(server) or server == self._server_name:
            raise NotFound("No such room")
        # How the invited are called stands in the room, which is not known here.
        third_party_invite = {"display_name": "", "signed": redeemed.signed}
        event = {
            "type": "m.room.member",
            "room_id": redeemed.room_id,
            "sender": redeemed.sender,
            "state_key": user_id,
            "content": {"membership": "invite", "third_party_invite": third_party_invite},
        }
        path = f"/_matrix/federation/v1/exchange_third_party_invite/{quote(redeemed.room_id, safe='')}"
        try:
            await self._transport.request(server, "PUT", path, content=event)
        except RemoteRefused as refusal:
            raise refusal_as_error(refusal) from None
        except RemoteFailure as failure:
            raise bad_gateway(failure) from None

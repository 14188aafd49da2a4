"""third_party_invite.yaml: invitations to third parties, once it is known whom they are for."""

from __future__ import annotations

from typing import Any

import msgspec

from homeserver.http.request import Request, Result, Route
from homeserver.services.errors import InvalidParam
from homeserver.services.federation.third_party_invites import Redeemed

MAX_INVITES = 100


class ThirdPartyInvite(msgspec.Struct):
    """What the invitation is by."""

    signed: dict[str, Any]


class InviteContent(msgspec.Struct):
    """The content of the event that is wanted."""

    membership: str
    third_party_invite: ThirdPartyInvite


class PartialEvent(msgspec.Struct):
    """The body of exchange_third_party_invite: an m.room.member event in outline."""

    type: str
    room_id: str
    sender: str
    state_key: str
    content: InviteContent


class PendingInvite(msgspec.Struct):
    """An invitation that waited for its user to be known."""

    room_id: str
    sender: str
    signed: dict[str, Any]


class Binding(msgspec.Struct):
    """The body of onbind."""

    medium: str
    address: str
    mxid: str
    invites: list[PendingInvite]


async def exchange_third_party_invite(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv1exchange_third_party_inviteroomid"""
    event = await request.body(PartialEvent)
    if event.room_id != request.params["roomId"]:
        raise InvalidParam("room_id is not that of the path")
    if event.type != "m.room.member" or event.content.membership != "invite":
        raise InvalidParam("The event is not an invitation")
    request.server.rate_limits.check("invite", f"invitations by {request.origin}")
    redeemed = Redeemed(event.room_id, event.sender, event.content.third_party_invite.signed)
    await request.server.federation.third_party_invites.on_exchange(request.origin, event.state_key, redeemed)
    return {}


async def on_bind_third_party_identifier(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv13pidonbind

    Anybody may say so. What counts is what rooms have keys for: the rest costs a few requests, which are limited.
    """
    binding = await request.body(Binding)
    if len(binding.invites) > MAX_INVITES:
        raise InvalidParam(f"No more than {MAX_INVITES} invitations can be told of at once")
    request.server.rate_limits.check("invite", f"bindings by {request.address}", cost=max(len(binding.invites), 1))
    invites = [Redeemed(invite.room_id, invite.sender, invite.signed) for invite in binding.invites]
    await request.server.federation.third_party_invites.on_bound(binding.mxid, invites)
    return {}


V1 = "/_matrix/federation/v1"

ROUTES = [
    Route(
        "PUT",
        f"{V1}/exchange_third_party_invite/{{roomId}}",
        "exchangeThirdPartyInvite",
        exchange_third_party_invite,
        signed=True,
        resource="federation",
    ),
    Route(
        "PUT",
        f"{V1}/3pid/onbind",
        "onBindThirdPartyIdentifier",
        on_bind_third_party_identifier,
        auth=False,
        resource="federation",
    ),
]

"""inviting.yaml, joining.yaml, knocking.yaml, leaving.yaml, kicking.yaml, banning.yaml, list_joined_rooms.yaml"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from homeserver.http.request import Request, Result, Route, convert
from homeserver.services.errors import InvalidParam, NoIdentityServer
from homeserver.services.federation.third_party_invites import Redeemed
from matrix.identifiers import get_domain, is_server_name, is_user_id

MAX_SERVERS = 20


class Reason(msgspec.Struct):
    """The body of leave and knock."""

    reason: str | None = None


class ThirdPartySigned(msgspec.Struct):
    """What a user shows to be invited: a token that the sender of the invitation gave out, signed for them."""

    sender: str
    mxid: str
    token: str
    signatures: dict[str, dict[str, str]]


class JoinBody(msgspec.Struct):
    """The body of join. `third_party_signed` is kept as it is, since all of it is signed."""

    reason: str | None = None
    third_party_signed: dict[str, Any] | None = None


class ThirdParty(msgspec.Struct):
    """The other body of invite: an identifier that only an identity server knows the user of."""

    id_server: str
    id_access_token: str
    medium: str
    address: str


class Target(msgspec.Struct):
    """The body of invite, kick, ban and unban."""

    user_id: str
    reason: str | None = None


async def _target(request: Request) -> Target:
    return _checked(await request.body(Target))


def _checked(target: Target) -> Target:
    if not is_user_id(target.user_id):
        raise InvalidParam("user_id is not a user ID")
    return target


async def invite_user(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3roomsroomidinvite

    By third-party identifier nobody can be invited, as this server trusts no identity server:
    https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3roomsroomidinvite-1
    """
    body = await request.json_object()
    if "user_id" not in body and ("medium" in body or "address" in body):
        convert(body, ThirdParty)
        await request.server.access.access_joined_room(request.requester.user_id, request.params["roomId"])
        raise NoIdentityServer
    target = _checked(convert(body, Target))
    request.server.rate_limits.check("invite", request.requester.user_id)
    await request.server.membership.invite(
        request.requester.user_id, request.params["roomId"], target.user_id, target.reason
    )
    return {}


async def join_room_by_id(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3roomsroomidjoin"""
    return await _join(request, request.params["roomId"])


async def join_room(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3joinroomidoralias"""
    room_id, servers = await _resolve(request)
    return await _join(request, room_id, servers)


async def _resolve(request: Request) -> tuple[str, list[str]]:
    """The room, and the servers to get into it through: those that the client names, then those of an alias."""
    room = request.params["roomIdOrAlias"]
    if not room.startswith(("!", "#")):
        raise InvalidParam("Neither a room ID nor a room alias")
    # https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3joinroomidoralias: `via` was `server_name`
    named = (*request.query_list("via"), *request.query_list("server_name"))
    servers = [name for name in named[:MAX_SERVERS] if is_server_name(name)]
    if room.startswith("#"):
        target = await request.server.aliases.locate(room, asked_by=request.service_id())
        return target.room_id, [*servers, *target.servers]
    if (domain := get_domain(room)) and is_server_name(domain):
        servers.append(domain)
    return room, servers


async def _join(request: Request, room_id: str, servers: Sequence[str] = ()) -> Result:
    body = await request.body(JoinBody, optional=True)
    user_id = request.requester.user_id
    request.server.rate_limits.check("join", user_id)
    if body.third_party_signed is not None:
        sender = convert(body.third_party_signed, ThirdPartySigned).sender
        redeemed = Redeemed(room_id, sender, body.third_party_signed)
        await request.server.federation.third_party_invites.redeem(user_id, redeemed)
    await request.server.membership.join(user_id, room_id, body.reason, servers)
    return {"room_id": room_id}


async def knock_room(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3knockroomidoralias"""
    room_id, servers = await _resolve(request)
    body = await request.body(Reason, optional=True)
    request.server.rate_limits.check("join", request.requester.user_id)
    await request.server.membership.knock(request.requester.user_id, room_id, body.reason, servers)
    return {"room_id": room_id}


async def leave_room(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3roomsroomidleave"""
    body = await request.body(Reason, optional=True)
    await request.server.membership.leave(request.requester.user_id, request.params["roomId"], body.reason)
    return {}


async def forget_room(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3roomsroomidforget"""
    await request.server.membership.forget(request.requester.user_id, request.params["roomId"])
    return {}


async def kick(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3roomsroomidkick"""
    target = await _target(request)
    await request.server.membership.kick(
        request.requester.user_id, request.params["roomId"], target.user_id, target.reason
    )
    return {}


async def ban(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3roomsroomidban"""
    target = await _target(request)
    await request.server.membership.ban(
        request.requester.user_id, request.params["roomId"], target.user_id, target.reason
    )
    return {}


async def unban(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3roomsroomidunban"""
    target = await _target(request)
    await request.server.membership.unban(
        request.requester.user_id, request.params["roomId"], target.user_id, target.reason
    )
    return {}


async def get_joined_rooms(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3joined_rooms"""
    rooms = await request.server.user_rooms.load(request.requester.user_id)
    return {"joined_rooms": [room.room_id for room in rooms.values() if room.membership == "join"]}


ROUTES = [
    Route("POST", "/_matrix/client/v3/rooms/{roomId}/invite", "inviteUser", invite_user),
    Route("POST", "/_matrix/client/v3/rooms/{roomId}/join", "joinRoomById", join_room_by_id),
    Route("POST", "/_matrix/client/v3/join/{roomIdOrAlias}", "joinRoom", join_room),
    Route("POST", "/_matrix/client/v3/knock/{roomIdOrAlias}", "knockRoom", knock_room),
    Route("POST", "/_matrix/client/v3/rooms/{roomId}/leave", "leaveRoom", leave_room, limited=True),
    Route("POST", "/_matrix/client/v3/rooms/{roomId}/forget", "forgetRoom", forget_room, limited=True),
    Route("POST", "/_matrix/client/v3/rooms/{roomId}/kick", "kick", kick),
    Route("POST", "/_matrix/client/v3/rooms/{roomId}/ban", "ban", ban),
    Route("POST", "/_matrix/client/v3/rooms/{roomId}/unban", "unban", unban),
    Route("GET", "/_matrix/client/v3/joined_rooms", "getJoinedRooms", get_joined_rooms),
]

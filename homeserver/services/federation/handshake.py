"""The two steps by which users join, leave and knock on rooms of other servers: a template, then the event.

https://spec.matrix.org/v1.19/server-server-api/#joining-rooms
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple
from urllib.parse import quote

from homeserver.clock import Clock
from homeserver.logs import get_logger
from homeserver.services.errors import MatrixError, NotFound
from homeserver.services.federation.gathering import Gathering, lists_of
from homeserver.services.remote import RemoteFailure, RemoteMisbehaved, RemoteRefused, Transport, bad_gateway
from matrix.pdu import InvalidPdu, Pdu, parse_pdu
from matrix.room_versions import ROOM_VERSIONS, EventIdFormat, RoomVersion
from matrix.signatures import SigningKey, hash_and_sign_event

log = get_logger(__name__)

Gather = Callable[[RoomVersion], Gathering]
Step = Literal["join", "leave", "knock"]
TEMPLATE_KEYS = ("type", "room_id", "sender", "state_key", "prev_events", "auth_events", "depth")
MAX_SERVERS_TRIED = 10
TEMPLATE_TIMEOUT_MS = 20_000
SEND_VERSIONS = {"join": "v2", "leave": "v2", "knock": "v1"}


class Template(NamedTuple):
    """What a server in the room gives to make a member event of."""

    server: str
    version: RoomVersion
    event: dict[str, Any]


class Accomplished(NamedTuple):
    """A member event that a server in the room has accepted, and what it answered, to a join without its events."""

    server: str
    pdu: Pdu
    answer: dict[str, Any]


class Handshake:
    """Carries member events of this server's users into rooms of others."""

    def __init__(self, transport: Transport, clock: Clock, *, server_name: str, signing_key: SigningKey) -> None:
        self._transport = transport
        self._clock = clock
        self._server_name = server_name
        self._signing_key = signing_key

    async def run(
        self,
        step: Step,
        user_id: str,
        room_id: str,
        servers: Sequence[str],
        content: dict[str, Any],
        gather: Gather | None = None,
    ) -> Accomplished:
        """Asks one server after another. Raises MatrixError: what the room's servers said, or 502, 404 without any.

        Where a state is answered, `gather` says for each attempt who takes its events, by the room's version.
        """
        failure: MatrixError = NotFound("No server that is in the room is known")
        for server in [name for name in dict.fromkeys(servers) if name != self._server_name][:MAX_SERVERS_TRIED]:
            try:
                template = await self._make(step, server, user_id, room_id)
                pdu = self._sign(template, user_id, content)
                return Accomplished(server, pdu, await self._send(step, template, pdu, gather))
            except RemoteRefused as refusal:
                failure = refusal_as_error(refusal)
                if refusal.status == 403 and refusal.errcode == "M_FORBIDDEN":
                    break
            except RemoteFailure as error:
                log.info("a server did not help into its room", room_id=room_id, step=step, reason=str(error))
                failure = bad_gateway(error)
        raise failure

    async def _make(self, step: Step, server: str, user_id: str, room_id: str) -> Template:
        path = f"/_matrix/federation/v1/make_{step}/{quote(room_id, safe='')}/{quote(user_id, safe='')}"
        versions = [] if step == "leave" else [("ver", identifier) for identifier in ROOM_VERSIONS]
        answer = await self._transport.request(server, "GET", path, query=versions, timeout_ms=TEMPLATE_TIMEOUT_MS)
        event = answer.get("event") if isinstance(answer, dict) else None
        # "If not provided, the room version is assumed to be either "1" or "2"."
        identifier = answer.get("room_version", "1") if isinstance(answer, dict) else None
        version = ROOM_VERSIONS.get(identifier) if isinstance(identifier, str) else None
        if version is None or not isinstance(event, dict):
            raise RemoteMisbehaved(server, "the template is of no room version that was asked for")
        content = event.get("content")
        is_right = (
            event.get("room_id") == room_id
            and event.get("sender") == event.get("state_key") == user_id
            and event.get("type") == "m.room.member"
            and isinstance(content, dict)
            and content.get("membership") == step
        )
        if not is_right:
            raise RemoteMisbehaved(server, "the template is for something else")
        return Template(server, version, event)

    def _sign(self, template: Template, user_id: str, content: dict[str, Any]) -> Pdu:
        """The event of a template. Raises RemoteMisbehaved for one that makes no event."""
        event = {key: template.event[key] for key in TEMPLATE_KEYS if key in template.event}
        given = template.event["content"]
        authoriser = given.get("join_authorised_via_users_server")
        event["content"] = dict(content)
        if isinstance(authoriser, str):
            event["content"]["join_authorised_via_users_server"] = authoriser
        # "The joining server is expected to add or replace the `origin`, `origin_server_ts`, and `event_id`".
        event["origin"] = self._server_name
        event["origin_server_ts"] = self._clock()
        if template.version.event_id_format is EventIdFormat.OPAQUE:
            event["event_id"] = f"${secrets.token_urlsafe(18)}:{self._server_name}"
        try:
            signed = hash_and_sign_event(event, template.version, self._server_name, self._signing_key)
            return parse_pdu(signed, template.version)
        except (InvalidPdu, ValueError) as error:
            raise RemoteMisbehaved(template.server, f"the template makes no event: {error}") from None

    def leave_alone(self, before: Pdu, user_id: str, content: dict[str, Any]) -> Pdu:
        """A leave event that no server of the room has accepted, for the user's own eyes."""
        template = {
            "type": "m.room.member",
            "room_id": before.room_id,
            "sender": user_id,
            "state_key": user_id,
            "prev_events": before.json["prev_events"],
            "auth_events": before.json["auth_events"],
            "depth": before.depth,
            "content": content,
        }
        return self._sign(Template(self._server_name, before.room_version, template), user_id, content)

    async def _send(self, step: Step, template: Template, pdu: Pdu, gather: Gather | None) -> dict[str, Any]:
        path = (
            f"/_matrix/federation/{SEND_VERSIONS[step]}/send_{step}/"
            f"{quote(pdu.room_id, safe='')}/{quote(pdu.event_id, safe='')}"
        )
        query = [("omit_members", "true")] if step == "join" else []
        if gather is not None:
            return await self._transport.request_lists(
                template.server,
                "PUT",
                path,
                query=query,
                content=pdu.json,
                lists=lists_of("state"),
                take=gather(template.version).take,
            )
        answer = await self._transport.request(template.server, "PUT", path, query=query, content=pdu.json)
        if not isinstance(answer, dict):
            raise RemoteMisbehaved(template.server, "the answer is no object")
        return answer


def refusal_as_error(refusal: RemoteRefused) -> MatrixError:
    """What a client is told: the other server's words where they concern the user, and 502 where they do not.

    https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1make_joinroomiduserid
    """
    if refusal.errcode in ("M_MISSING_PARAM", "M_INVALID_PARAM") or refusal.status >= 500:
        return bad_gateway(refusal)
    if 400 <= refusal.status < 500 and refusal.status not in (401, 429):
        return MatrixError(refusal.status, refusal.errcode, refusal.message or "The server refused")
    return bad_gateway(refusal)

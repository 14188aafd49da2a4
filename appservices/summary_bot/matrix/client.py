"""What the bot asks of the homeserver, as the bot's user. Answers are checked before anybody uses them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import quote

import aiohttp
import msgspec
from mautrix.api import HTTPAPI, Method
from mautrix.errors import MatrixConnectionError, MatrixRequestError, MatrixResponseError

from appservices.summary_bot.events import mapping, matrix_id, text

V3 = "_matrix/client/v3"
V1 = "_matrix/client/v1"
MESSAGES_PER_PAGE = 500
REQUEST_TIMEOUT_S = 60.0
MAX_MUTUAL_ROOMS = 2000
MAX_MEDIA_BYTES = 25 * 1024 * 1024

HISTORY_FILTER = msgspec.json.encode(
    {
        "types": [
            "m.room.message",
            "m.room.encrypted",
            "m.reaction",
            "m.room.redaction",
            "m.room.member",
            "m.room.history_visibility",
        ]
    }
).decode()


ENCRYPTED = {"algorithm": "m.megolm.v1.aes-sha2"}


class MatrixFailure(Exception):
    """The homeserver refused, or did not answer. `is_temporary`: asking again later may help."""

    def __init__(self, what: str, *, status: int = 0, errcode: str = "", is_temporary: bool = False) -> None:
        super().__init__(what)
        self.status = status
        self.errcode = errcode
        self.is_temporary = is_temporary


class Api(Protocol):
    """The part of mautrix's HTTP client that is used here."""

    async def request(
        self,
        method: Method,
        path: str,
        content: Any = None,
        *,
        query_params: Any = None,
        retry_count: int | None = None,
    ) -> Any:
        """Makes a request; raises mautrix's errors."""


@dataclass(frozen=True, slots=True)
class Page:
    """A page of history, newest first. `end` leads to the next; None where history begins."""

    events: list[dict[str, Any]]
    end: str | None


class MatrixClient:
    """Requests with the application service's token, for the bot's user."""

    def __init__(self, api: Api, user_id: str) -> None:
        self._api = api
        self.user_id = user_id

    async def _ask(self, method: Method, path: str, content: Any = None, **query: str | None) -> Mapping[str, Any]:
        parameters = {name: value for name, value in query.items() if value is not None}
        return await ask(self._api, method, path, content, parameters)

    # Rooms ------------------------------------------------------------------------------------------------------------

    async def join(self, room_id: str) -> None:
        """https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3roomsroomidjoin"""
        await self._ask(Method.POST, f"{V3}/rooms/{_part(room_id)}/join", {})

    async def leave(self, room_id: str) -> None:
        """https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3roomsroomidleave"""
        await self._ask(Method.POST, f"{V3}/rooms/{_part(room_id)}/leave", {})

    async def create_direct_room(self, user_id: str, *, encrypted: bool = False) -> str:
        """Makes a direct chat and invites somebody to it; its ID."""
        content: dict[str, Any] = {
            "preset": "private_chat",
            "is_direct": True,
            "invite": [user_id],
            "visibility": "private",
        }
        if encrypted:
            content["initial_state"] = [{"type": "m.room.encryption", "state_key": "", "content": ENCRYPTED}]
        return _needed(await self._ask(Method.POST, f"{V3}/createRoom", content), "room_id", "!")

    async def turn_on_encryption(self, room_id: str) -> bool:
        """Encrypts a room from now on; False if the bot may not.

        https://spec.matrix.org/v1.19/client-server-api/#mroomencryption
        """
        try:
            await self._ask(Method.PUT, f"{V3}/rooms/{_part(room_id)}/state/m.room.encryption/", ENCRYPTED)
        except MatrixFailure as failure:
            if failure.is_temporary:
                raise
            return False
        return True

    async def load_joined_rooms(self) -> list[str]:
        """https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3joined_rooms"""
        rooms = (await self._ask(Method.GET, f"{V3}/joined_rooms")).get("joined_rooms")
        return [room for room in rooms if matrix_id(room, "!")] if isinstance(rooms, list) else []

    async def load_joined_members(self, room_id: str) -> dict[str, str]:
        """Display names of those who are in a room, by user ID; "" where somebody has none."""
        answer = await self._ask(Method.GET, f"{V3}/rooms/{_part(room_id)}/joined_members")
        return {
            user: text(mapping(member).get("display_name")) or ""
            for user, member in mapping(answer.get("joined")).items()
            if matrix_id(user, "@")
        }

    async def load_memberships(self, room_id: str) -> dict[str, str]:
        """The membership of everybody who has not left a room, by user ID.

        https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidmembers
        """
        answer = await self._ask(Method.GET, f"{V3}/rooms/{_part(room_id)}/members", not_membership="leave")
        chunk = answer.get("chunk")
        return {
            event["state_key"]: text(mapping(event.get("content")).get("membership")) or ""
            for event in (chunk if isinstance(chunk, list) else [])
            if isinstance(event, dict) and matrix_id(event.get("state_key"), "@")
        }

    async def load_state(self, room_id: str, event_type: str, state_key: str = "") -> Mapping[str, Any] | None:
        """The content of a state event; None if there is none."""
        try:
            path = f"{V3}/rooms/{_part(room_id)}/state/{_part(event_type)}/{_part(state_key)}"
            return await self._ask(Method.GET, path)
        except MatrixFailure as failure:
            if failure.status == 404:
                return None
            raise

    async def load_state_event(self, room_id: str, event_type: str) -> Mapping[str, Any] | None:
        """A state event with an empty key, with its sender: from the whole state, for not all servers give it alone."""
        events: Any = await self._ask(Method.GET, f"{V3}/rooms/{_part(room_id)}/state")
        for event in events if isinstance(events, list) else []:
            if mapping(event).get("type") == event_type and event.get("state_key") == "":
                return mapping(event)
        return None

    async def resolve_alias(self, alias: str) -> str | None:
        """The room that an alias leads to."""
        try:
            answer = await self._ask(Method.GET, f"{V3}/directory/room/{_part(alias)}")
        except MatrixFailure as failure:
            if failure.is_temporary:
                raise
            return None
        return matrix_id(answer.get("room_id"), "!")

    # History ----------------------------------------------------------------------------------------------------------

    async def load_page(self, room_id: str, start: str | None, limit: int = MESSAGES_PER_PAGE) -> Page:
        """https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidmessages, backwards"""
        answer = await self._ask(
            Method.GET,
            f"{V3}/rooms/{_part(room_id)}/messages",
            **{"dir": "b", "limit": str(limit), "from": start, "filter": HISTORY_FILTER},
        )
        chunk, end = answer.get("chunk"), text(answer.get("end"))
        events = [event for event in chunk if isinstance(event, dict)] if isinstance(chunk, list) else []
        return Page(events, end if end != start else None)

    async def load_event(self, room_id: str, event_id: str) -> Mapping[str, Any] | None:
        """An event; None if there is none, or the bot may not see it."""
        try:
            return await self._ask(Method.GET, f"{V3}/rooms/{_part(room_id)}/event/{_part(event_id)}")
        except MatrixFailure as failure:
            if failure.status in (403, 404):
                return None
            raise

    # Sending ----------------------------------------------------------------------------------------------------------

    async def send(self, room_id: str, event_type: str, content: Mapping[str, Any], txn_id: str) -> str:
        """Sends an event once per transaction ID; its ID."""
        path = f"{V3}/rooms/{_part(room_id)}/send/{_part(event_type)}/{_part(txn_id)}"
        return _needed(await self._ask(Method.PUT, path, dict(content)), "event_id", "$")

    async def redact(self, room_id: str, event_id: str, txn_id: str) -> None:
        """Redacts one of the bot's own events. One that is not there, or no longer to be reached, is no failure."""
        try:
            await self._ask(
                Method.PUT, f"{V3}/rooms/{_part(room_id)}/redact/{_part(event_id)}/{_part(txn_id)}", {"reason": ""}
            )
        except MatrixFailure as failure:
            if failure.is_temporary:
                raise

    async def set_display_name(self, name: str) -> None:
        """https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3profileuseridkeyname"""
        await self._ask(Method.PUT, f"{V3}/profile/{_part(self.user_id)}/displayname", {"displayname": name})

    async def load_profile(self) -> Mapping[str, Any]:
        """https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3profileuserid, of the bot's user"""
        try:
            return await self._ask(Method.GET, f"{V3}/profile/{_part(self.user_id)}")
        except MatrixFailure as failure:
            if failure.status in (403, 404):
                return {}
            raise

    async def set_own_member(self, room_id: str, content: Mapping[str, Any]) -> None:
        """Sets how the bot looks in one room, where its profile is for all.

        https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3roomsroomidstateeventtypestatekey
        """
        path = f"{V3}/rooms/{_part(room_id)}/state/m.room.member/{_part(self.user_id)}"
        await self._ask(Method.PUT, path, {**content, "membership": "join"})

    async def load_mutual_rooms(self, user_id: str) -> list[str] | None:
        """The rooms that the bot shares with somebody, at most MAX_MUTUAL_ROOMS; None where the server cannot tell.

        https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1mutual_rooms
        """
        found: list[str] = []
        batch: str | None = None
        while len(found) < MAX_MUTUAL_ROOMS:
            try:
                answer = await self._ask(Method.GET, f"{V1}/mutual_rooms", **{"user_id": user_id, "from": batch})
            except MatrixFailure as failure:
                if failure.is_temporary:
                    raise
                return None
            joined = answer.get("joined")
            found += [room for room in joined if matrix_id(room, "!")] if isinstance(joined, list) else []
            previous, batch = batch, text(answer.get("next_batch"))
            if batch is None or batch == previous:
                break
        return found[:MAX_MUTUAL_ROOMS]

    async def is_joined(self, room_id: str, user_id: str) -> bool:
        """Whether somebody is in a room that the bot is in."""
        try:
            member = await self.load_state(room_id, "m.room.member", user_id)
        except MatrixFailure as failure:
            if failure.is_temporary:
                raise
            return False
        return member is not None and member.get("membership") == "join"


async def ask(
    api: Api, method: Method, path: str, content: Any = None, parameters: Mapping[str, str] | None = None
) -> Mapping[str, Any]:
    """One request; its answer. Raises MatrixFailure, which has no contents of events in it."""
    try:
        async with asyncio.timeout(REQUEST_TIMEOUT_S):
            answer = await api.request(method, path, content, query_params=dict(parameters or {}))
    except MatrixRequestError as error:
        status = error.http_status
        raise MatrixFailure(
            f"{method.name} {path.partition('/rooms/')[0]}: {status} {error.errcode}",
            status=status,
            errcode=error.errcode or "",
            is_temporary=status == 429 or status >= 500,
        ) from None
    except (MatrixConnectionError, MatrixResponseError, aiohttp.ClientError, TimeoutError, OSError) as error:
        raise MatrixFailure(f"the homeserver does not answer: {type(error).__name__}", is_temporary=True) from None
    return answer if isinstance(answer, dict | list) else {}  # type: ignore[return-value]


class Visitor:
    """Requests with somebody's own access token: only to find out who they are and what they ignore."""

    def __init__(self, base_url: str, session: aiohttp.ClientSession) -> None:
        self._base_url = base_url
        self._session = session

    def _api(self, token: str) -> HTTPAPI:
        return HTTPAPI(base_url=self._base_url, token=token, client_session=self._session)

    async def load_user_id(self, token: str) -> str | None:
        """Whose token it is; None if it is nobody's."""
        try:
            answer = await ask(self._api(token), Method.GET, f"{V3}/account/whoami")
        except MatrixFailure as failure:
            if failure.is_temporary:
                raise
            return None
        return matrix_id(answer.get("user_id"), "@")

    async def load_account_data(self, token: str, user_id: str, kind: str, room_id: str = "") -> Mapping[str, Any]:
        """Somebody's account data of a kind; empty if there is none."""
        room = f"/rooms/{_part(room_id)}" if room_id else ""
        try:
            return await ask(
                self._api(token), Method.GET, f"{V3}/user/{_part(user_id)}{room}/account_data/{_part(kind)}"
            )
        except MatrixFailure as failure:
            if failure.is_temporary:
                raise
            return {}


def _part(value: str) -> str:
    return quote(value, safe="")


def _needed(answer: Mapping[str, Any], name: str, sigil: str) -> str:
    value = matrix_id(answer.get(name), sigil)
    if value is None:
        raise MatrixFailure(f"the homeserver's answer lacks {name}")
    return value

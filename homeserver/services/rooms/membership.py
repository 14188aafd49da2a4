"""Membership: join, leave, invite, kick, ban, unban, knock.

https://spec.matrix.org/v1.19/client-server-api/#room-membership
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from homeserver.logs import get_logger
from homeserver.services.account_data import AccountData
from homeserver.services.accounts.sessions import Requester
from homeserver.services.errors import Forbidden, InvalidParam, MatrixError, NotFound, NotResident
from homeserver.services.profiles import Profiles
from homeserver.services.rooms.access import Access
from homeserver.services.rooms.authoring import Draft
from homeserver.services.rooms.room import JOIN_RULES, Room
from homeserver.services.rooms.sending import Sending
from homeserver.services.rooms.summaries import allowed_room_ids
from homeserver.services.rooms.user_rooms import UserRooms
from matrix.identifiers import get_domain, is_user_id
from storage.accounts import AccountRepository

log = get_logger(__name__)

MAX_ALLOW_CONDITIONS = 100
MAX_WAYS_IN = 3


class RemoteMembership(Protocol):
    """How users of this server get into rooms that it is not in, and others into its own."""

    async def join(self, user_id: str, room_id: str, servers: Sequence[str], content: dict[str, Any]) -> Room:
        """Joins a room that this server is not in. Raises MatrixError."""

    async def join_through(self, room: Room, user_id: str, servers: Sequence[str], content: dict[str, Any]) -> None:
        """Joins a room that this server is in, but into which only another one can let the user. Raises MatrixError."""

    async def knock(self, user_id: str, room_id: str, servers: Sequence[str], content: dict[str, Any]) -> None:
        """Knocks on a room that this server is not in. Raises MatrixError."""

    async def leave(self, user_id: str, room_id: str, content: dict[str, Any]) -> bool:
        """Declines an invitation, or takes back a knock; False if there is none of a room that is not known here."""

    async def invite(self, room: Room, draft: Draft) -> None:
        """Invites a user of another server. Raises MatrixError."""


class Membership:
    """Changes who is in a room. The rules decide; what is checked here is what the rules leave open.

    `remote` reaches beyond this server; `on_joined` is told of each join, once it is durable; `on_missing` is asked for
    users to invite who are not there, and tells whether they are by now.
    """

    def __init__(
        self,
        access: Access,
        sending: Sending,
        profiles: Profiles,
        user_rooms: UserRooms,
        accounts: AccountRepository,
        account_data: AccountData,
        *,
        server_name: str,
        federates: bool,
    ) -> None:
        self._federates = federates
        self._access = access
        self._sending = sending
        self._profiles = profiles
        self._user_rooms = user_rooms
        self._accounts = accounts
        self._account_data = account_data
        self._server_name = server_name
        self.remote: RemoteMembership
        self.on_joined: list[Callable[[str, Room], Awaitable[None]]] = []
        self.on_missing: Callable[[str], Awaitable[bool]] | None = None

    async def join(self, user_id: str, room_id: str, reason: str | None, servers: Sequence[str] = ()) -> None:
        """Joins a room, through other `servers` if this one is not in it; nothing happens to one who is there already.

        https://spec.matrix.org/v1.19/client-server-api/#joining-rooms
        """
        event_content = await self._profiles.member_content(user_id, "join", _with_reason({}, reason))
        for _ in range(MAX_WAYS_IN):
            try:
                await self._join(user_id, room_id, servers, event_content)
            except NotResident:
                continue  # all users of this server have left meanwhile
            return
        raise NotResident

    async def _join(self, user_id: str, room_id: str, servers: Sequence[str], event_content: dict[str, Any]) -> None:
        room = await self._access.find_resident_room(room_id)
        if room is None:
            room = await self.remote.join(user_id, room_id, servers, event_content)
            if room.tip_membership(user_id) == "join":
                await self._follow_join(user_id, room)
                return
            # Another user of this server got there first.
        try:
            await self._join_here(user_id, room, event_content)
        except MatrixError as error:
            if error.errcode != "M_UNABLE_TO_GRANT_JOIN" or not room.is_shared:
                raise
            await self.remote.join_through(room, user_id, [*servers, *room.servers], event_content)

    async def _join_here(self, user_id: str, room: Room, event_content: dict[str, Any]) -> None:
        allowed = await self._fulfils_restriction(user_id, room)

        def draft(room: Room) -> Sequence[Draft]:
            room.check_known(user_id)
            if room.tip_membership(user_id) == "join":
                return ()
            full = event_content
            if room.tip_membership(user_id) != "invite" and _is_restricted(room):
                full = {**event_content, "join_authorised_via_users_server": self._authoriser(room, allowed)}
            return (Draft("m.room.member", user_id, full, user_id),)

        if await self._sending.author(room, draft):
            await self._follow_join(user_id, room)

    async def _follow_join(self, user_id: str, room: Room) -> None:
        for follow in self.on_joined:
            await follow(user_id, room)

    async def is_outside(self, user_id: str, room_id: str) -> bool:
        """Whether a user is not in a room now. Raises NotFound."""
        return (await self._access.access_room(room_id)).tip_membership(user_id) != "join"

    async def set_own(
        self, requester: Requester, room_id: str, content: dict[str, Any], *, ts: int | None = None
    ) -> str:
        """Sets one's own membership by an m.room.member event as it is; returns the event ID. `ts` is its time.

        Raises NotFound, or Forbidden for what the rules do not allow.
        """
        room = await self._access.access_room(room_id)
        was_outside = room.tip_membership(requester.user_id) != "join"
        event_id = await self._sending.send_state(
            requester, room_id, "m.room.member", requester.user_id, content, ts=ts
        )
        if was_outside and content.get("membership") == "join":
            await self._follow_join(requester.user_id, room)
        return event_id

    async def authorise_join(self, user_id: str, room: Room) -> str | None:
        """In whose name a user of another server may join a restricted room; None where that needs nobody's.

        Raises Forbidden, M_UNABLE_TO_AUTHORISE_JOIN, M_UNABLE_TO_GRANT_JOIN.
        https://spec.matrix.org/v1.19/server-server-api/#restricted-rooms
        """
        if not _is_restricted(room) or room.tip_membership(user_id) in ("join", "invite"):
            return None
        allowed = await self._fulfils_restriction(user_id, room)
        if not allowed and not await self._knows_a_condition(room):
            raise MatrixError(400, "M_UNABLE_TO_AUTHORISE_JOIN", "This server is in none of the rooms to join from")
        return self._authoriser(room, allowed)

    async def _knows_a_condition(self, room: Room) -> bool:
        for room_id in allowed_room_ids(room):
            if await self._access.find_resident_room(room_id) is not None:
                return True
        return False

    async def knock(self, user_id: str, room_id: str, reason: str | None, servers: Sequence[str] = ()) -> None:
        """Asks to be let in, through other `servers` if this one is not in the room."""
        content = await self._profiles.member_content(user_id, "knock", _with_reason({}, reason))
        room = await self._access.find_resident_room(room_id)
        if room is None:
            await self.remote.knock(user_id, room_id, servers, content)
            return
        draft = Draft("m.room.member", user_id, content, user_id)
        await self._sending.author(room, lambda _: (draft,))

    async def leave(self, user_id: str, room_id: str, reason: str | None) -> None:
        """Leaves a room, declines an invitation or takes back a knock."""
        content = _with_reason({"membership": "leave"}, reason)
        if await self._access.find_resident_room(room_id) is None and await self.remote.leave(
            user_id, room_id, content
        ):
            return
        room = await self._access.access_room(room_id)
        draft = Draft("m.room.member", user_id, content, user_id)
        await self._sending.author(room, lambda _: (draft,))

    async def invite(
        self, sender: str, room_id: str, user_id: str, reason: str | None, *, is_direct: bool = False
    ) -> None:
        """Invites a user, of this server or of another, which is asked to sign the invitation."""
        room = await self._access.access_joined_room(sender, room_id)
        draft = await self.invite_draft(sender, user_id, reason, is_direct=is_direct)
        if self.is_local(user_id):
            await self._sending.author(room, lambda _: (draft,))
        else:
            await self.remote.invite(room, draft)

    def is_local(self, user_id: str) -> bool:
        """Whether a user is of this server."""
        return get_domain(user_id) == self._server_name

    async def invite_draft(self, sender: str, user_id: str, reason: str | None, *, is_direct: bool) -> Draft:
        """The event of an invitation. Raises as `check_invitable` does, and Forbidden for who cannot be reached."""
        content: dict[str, Any] = _with_reason({"membership": "invite"}, reason)
        if not self.is_local(user_id):
            if not self._federates:
                raise Forbidden("Users of other servers cannot be invited: this server does not federate")
        else:
            await self.check_invitable(user_id)
            content = await self._profiles.member_content(user_id, "invite", _with_reason({}, reason))
        if is_direct:
            content["is_direct"] = True
        return Draft("m.room.member", sender, content, user_id)

    async def check_invitable(self, user_id: str) -> None:
        """Whether a user of this server is there to be invited and lets themselves be.

        Raises NotFound when there is no such user, MatrixError (403 M_INVITE_BLOCKED).
        """
        account = await self._accounts.load_user(user_id)
        if account is None and self.on_missing is not None and await self.on_missing(user_id):
            account = await self._accounts.load_user(user_id)
        if account is None or account.deactivated:
            raise NotFound("No such user")
        # https://spec.matrix.org/v1.19/client-server-api/#invite-permission
        if await self._account_data.blocks_invites(user_id):
            raise MatrixError(403, "M_INVITE_BLOCKED", "The user does not want to be invited")

    async def check_member_state(self, user_id: str, content: dict[str, Any]) -> None:
        """Holds an m.room.member event that comes as plain state to what the endpoints of membership check.

        Raises InvalidParam for what is no user ID, Forbidden for invitations that another server would have to sign,
        or as `check_invitable` does.
        """
        if not is_user_id(user_id):
            raise InvalidParam("The state key of m.room.member is a user ID")
        if content.get("membership") == "invite":
            if not self.is_local(user_id):
                raise Forbidden("Users of other servers are invited by /invite")
            await self.check_invitable(user_id)

    async def kick(self, sender: str, room_id: str, user_id: str, reason: str | None) -> None:
        """Makes a user leave who is in the room, invited or knocking."""
        room = await self._access.access_joined_room(sender, room_id)

        def draft(room: Room) -> Sequence[Draft]:
            room.check_known(user_id)
            if room.tip_membership(user_id) not in ("join", "invite", "knock"):
                raise Forbidden("The user is not in the room")
            return (Draft("m.room.member", sender, _with_reason({"membership": "leave"}, reason), user_id),)

        await self._sending.author(room, draft)

    async def ban(self, sender: str, room_id: str, user_id: str, reason: str | None) -> None:
        """Bans a user, whether in the room or not."""
        room = await self._access.access_joined_room(sender, room_id)
        draft = Draft("m.room.member", sender, _with_reason({"membership": "ban"}, reason), user_id)
        await self._sending.author(room, lambda _: (draft,))

    async def unban(self, sender: str, room_id: str, user_id: str, reason: str | None) -> None:
        """Lifts a ban. Raises M_BAD_STATE where there is none."""
        room = await self._access.access_joined_room(sender, room_id)

        def draft(room: Room) -> Sequence[Draft]:
            room.check_known(user_id)
            if room.tip_membership(user_id) != "ban":
                raise MatrixError(403, "M_BAD_STATE", "The user is not banned")
            return (Draft("m.room.member", sender, _with_reason({"membership": "leave"}, reason), user_id),)

        await self._sending.author(room, draft)

    async def forget(self, user_id: str, room_id: str) -> None:
        """Forgets a room that the user has left. Raises M_UNKNOWN while they are in it."""
        user_room = (await self._user_rooms.load(user_id)).get(room_id)
        if user_room is None:
            raise NotFound("You were never in this room")
        if user_room.membership not in ("leave", "ban"):
            raise MatrixError(400, "M_UNKNOWN", "You are still in this room")
        await self._user_rooms.forget(user_id, room_id)

    async def leave_all(self, user_id: str) -> None:
        """Leaves every room, for an account that is being closed. One that cannot be left stops none of the others."""
        for user_room in list((await self._user_rooms.load(user_id)).values()):
            if user_room.membership in ("join", "invite", "knock"):
                try:
                    await self.leave(user_id, user_room.room_id, None)
                except MatrixError as error:
                    log.warning("a closed account stays in a room", room_id=user_room.room_id, reason=error.message)

    async def _fulfils_restriction(self, user_id: str, room: Room) -> bool:
        """Whether the user is in a room that the join rules let in from.

        Where nobody of this server is any more, it does not hear when others go.
        https://spec.matrix.org/v1.19/client-server-api/#restricted-rooms
        """
        if not _is_restricted(room):
            return False
        allow = room.pinned[JOIN_RULES].pdu.content.get("allow")
        rooms = await self._user_rooms.load(user_id)
        for condition in allow[:MAX_ALLOW_CONDITIONS] if isinstance(allow, list) else ():
            if not isinstance(condition, dict) or condition.get("type") != "m.room_membership":
                continue
            room_id = condition.get("room_id")
            user_room = rooms.get(room_id) if isinstance(room_id, str) else None
            if user_room is None or user_room.membership != "join":
                continue
            if await self._access.find_resident_room(user_room.room_id) is not None:
                return True
        return False

    def _authoriser(self, room: Room, allowed: bool) -> str:
        """A local member who may invite, in whose name a restricted join is let in."""
        if not allowed:
            raise Forbidden("You are in none of the rooms that may join this one")
        levels = room.power_levels
        for member in room.local_joined:
            if levels.user(member) >= levels.invite:
                return member
        raise MatrixError(400, "M_UNABLE_TO_GRANT_JOIN", "Nobody here may let you in")


def _is_restricted(room: Room) -> bool:
    event = room.tip_event(JOIN_RULES)
    return event is not None and event.pdu.content.get("join_rule") in ("restricted", "knock_restricted")


def _with_reason(content: dict[str, Any], reason: str | None) -> dict[str, Any]:
    return content if reason is None else {**content, "reason": reason}

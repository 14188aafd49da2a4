"""Upgrading rooms: a new room of another version takes the place of an old one.

https://spec.matrix.org/v1.19/client-server-api/#room-upgrades

1. Check that the user may send m.room.tombstone in the old room, and that the version is known.
2. Make the new room: m.room.create with a predecessor, the user's join, what is transferred of the state. The power
   levels come last, so that whoever may upgrade may also set what needs more power than they have.
3. Make the tombstone in the old room and, if the user may, raise what it takes to speak there and to invite.
4. Commit both rooms' events, the move of the aliases and that of the place in the directory in one transaction.
5. Carry over the user's tags, as is done for everyone who joins the new room.

Until 4 nothing is written, so that what fails leaves both the old room and its names as they were. Where a policy
server has to sign the tombstone, which names the new room, that is there before it is asked: if it refuses, the user
leaves the new room again, and the old one and its names are as they were, too.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from homeserver.logs import get_logger
from homeserver.services.accounts.sessions import Requester
from homeserver.services.errors import Forbidden, InvalidParam, MatrixError
from homeserver.services.profiles import Profiles
from homeserver.services.rooms.access import Access
from homeserver.services.rooms.authoring import Authoring, Draft
from homeserver.services.rooms.creation import MAX_CREATORS
from homeserver.services.rooms.event_cache import EventCache
from homeserver.services.rooms.missing_state import MissingState
from homeserver.services.rooms.registry import RoomRegistry
from homeserver.services.rooms.room import CREATE, POWER_LEVELS, NotLoaded, Room
from homeserver.services.rooms.sending import Sending
from matrix.identifiers import is_user_id
from matrix.power_levels import DEFAULT_LEVELS, get_creators, parse_level
from matrix.room_versions import ROOM_VERSIONS, RoomVersion
from storage.rooms import ReplacementRow, RoomRepository, RoomRow
from storage.stream import Writes

log = get_logger(__name__)

TOMBSTONE = "m.room.tombstone"
TRANSFERRED = (
    "m.room.server_acl",
    "m.room.encryption",
    "m.room.name",
    "m.room.avatar",
    "m.room.topic",
    "m.room.guest_access",
    "m.room.history_visibility",
    "m.room.join_rules",
)
CANONICAL_ALIAS = ("m.room.canonical_alias", "")
KEPT_OF_CREATE = ("type", "m.federate")
CREATOR_LEVEL = 100
RAISED_LEVEL = 50
MAX_LEVEL = 2**53 - 1
MAX_LOADS = 8


class Upgrades:
    """Upgrades rooms.

    `follow` carries what a user has set for a room over to its replacement.
    `on_aliases_changed` is told of rooms whose aliases lead elsewhere now.
    """

    def __init__(
        self,
        access: Access,
        registry: RoomRegistry,
        authoring: Authoring,
        events: EventCache,
        rooms: RoomRepository,
        profiles: Profiles,
        follow: Callable[[str, Room], Awaitable[None]],
        missing: MissingState,
        sending: Sending,
        *,
        server_name: str,
    ) -> None:
        self._sending = sending
        self._access = access
        self._registry = registry
        self._authoring = authoring
        self._events = events
        self._rooms = rooms
        self._profiles = profiles
        self._follow = follow
        self._missing = missing
        self._server_name = server_name
        self.on_aliases_changed: Callable[[Room], None] | None = None

    async def upgrade(
        self, requester: Requester, room_id: str, new_version: str, additional_creators: Sequence[str]
    ) -> str:
        """Replaces a room; returns the new room's ID.

        Raises Forbidden, InvalidParam, M_UNSUPPORTED_ROOM_VERSION.
        """
        user_id = requester.user_id
        room = await self._access.access_joined_room(user_id, room_id)
        version = ROOM_VERSIONS.get(new_version)
        if version is None:
            raise MatrixError(400, "M_UNSUPPORTED_ROOM_VERSION", "The server does not know this room version")
        creators = list(dict.fromkeys(additional_creators)) if version.creators_have_infinite_power else []
        if len(creators) > MAX_CREATORS or not all(map(is_user_id, creators)):
            raise InvalidParam(f"additional_creators must be at most {MAX_CREATORS} user IDs")
        join = await self._profiles.member_content(user_id, "join", {})
        aliases = await self._rooms.load_aliases_of_room(room.room)
        for _ in range(MAX_LOADS):
            if room.stale:
                room = await self._access.access_joined_room(user_id, room_id)
            if room.power_levels.user(user_id) < room.power_levels.event(TOMBSTONE, True):
                raise Forbidden("You cannot upgrade this room")
            try:
                return await self._replace(room, user_id, version, creators, join, aliases)
            except NotLoaded as missing:
                await self._missing.load(missing)
        raise MatrixError(503, "M_LIMIT_EXCEEDED", "The server is overloaded", {"retry_after_ms": 1000})

    async def _replace(
        self,
        room: Room,
        user_id: str,
        version: RoomVersion,
        creators: list[str],
        join: dict[str, Any],
        aliases: Sequence[str],
    ) -> str:
        new_id = "" if version.room_id_is_create_event_hash else f"!{secrets.token_urlsafe(18)}:{self._server_name}"
        new = self._registry.new(new_id, version)
        drafts = [
            Draft("m.room.create", user_id, _create_content(room, version, user_id, creators), ""),
            Draft("m.room.member", user_id, join, user_id),
            *_transferred(room, user_id, aliases),
        ]
        levels = _power_levels(room, version, {user_id, *creators})
        if levels is not None:
            drafts.append(Draft("m.room.power_levels", user_id, levels, ""))
        if self._sending.is_guarded(room, TOMBSTONE, ""):
            await self._replace_in_steps(room, new, drafts, user_id)
        else:
            await self._replace_at_once(room, new, drafts, user_id)
        room.aliases.clear()
        if self.on_aliases_changed is not None:
            self.on_aliases_changed(room)
        await self._follow(user_id, new)
        return new.room_id

    async def _replace_at_once(self, room: Room, new: Room, drafts: Sequence[Draft], user_id: str) -> None:
        writes = Writes()
        done = self._author(new, drafts, room, user_id, writes)
        writes.rooms.append(_row_of(new, user_id))
        writes.replacements.append(ReplacementRow(room.room, new.room))
        self._registry.add(new)
        new.aliases.update(room.aliases)  # before its first events are told to those whom they interest
        await done

    async def _replace_in_steps(self, room: Room, new: Room, drafts: Sequence[Draft], user_id: str) -> None:
        writes = Writes()
        _, done = self._authoring.author(new, drafts, writes)
        writes.rooms.append(_row_of(new, user_id))
        self._registry.add(new)
        await done
        try:
            await self._sending.author(room, lambda room: _farewell(room, user_id, new.room_id)[:1])
        except MatrixError:
            leave = Draft("m.room.member", user_id, {"membership": "leave"}, user_id)
            await self._sending.author(new, lambda _: (leave,))
            raise
        await self._rooms.replace(ReplacementRow(room.room, new.room))
        new.aliases.update(room.aliases)
        try:
            await self._sending.author(room, lambda room: _farewell(room, user_id, new.room_id)[1:])
        except MatrixError as error:  # the old room has been replaced, if people may still speak there
            log.info(
                "the levels of a room that was replaced are not raised", room_id=room.room_id, reason=error.message
            )

    def _author(
        self, new: Room, drafts: Sequence[Draft], room: Room, user_id: str, writes: Writes
    ) -> asyncio.Future[None]:
        try:
            return self._authoring.author_both(new, drafts, room, lambda: _farewell(room, user_id, new.room_id), writes)
        except MatrixError as error:
            if error.errcode != "M_FORBIDDEN":
                raise
            raise Forbidden(f"The room cannot be upgraded: {error.message}") from None


def _row_of(room: Room, creator: str) -> RoomRow:
    return RoomRow(room.room, room.room_id, room.version.identifier, creator, False)


def _create_content(room: Room, version: RoomVersion, user_id: str, creators: Sequence[str]) -> dict[str, Any]:
    old = room.pinned[CREATE].pdu.content
    predecessor = {"room_id": room.room_id}
    if not version.room_id_is_create_event_hash:
        predecessor["event_id"] = room.tip.extremities[-1].reference.event_id
    content: dict[str, Any] = {"room_version": version.identifier, "predecessor": predecessor}
    content.update({key: old[key] for key in KEPT_OF_CREATE if key in old})
    if version.create_has_creator:
        content["creator"] = user_id
    if creators:
        content["additional_creators"] = list(creators)
    return content


def _transferred(room: Room, user_id: str, aliases: Sequence[str]) -> list[Draft]:
    """The state that goes over; of the canonical alias what leads to the new room then."""
    drafts = []
    for type in TRANSFERRED:
        event = room.tip_event((type, ""))
        if event is not None:
            drafts.append(Draft(type, user_id, dict(event.pdu.content), ""))
    event = room.tip_event(CANONICAL_ALIAS)
    if event is None:
        return drafts
    alias, others = event.pdu.content.get("alias"), event.pdu.content.get("alt_aliases")
    content: dict[str, Any] = {"alias": alias} if alias in aliases else {}
    if isinstance(others, list) and (moved := [other for other in others if other in aliases]):
        content["alt_aliases"] = moved
    return [*drafts, Draft("m.room.canonical_alias", user_id, content, "")] if content else drafts


def _power_levels(room: Room, version: RoomVersion, creators: set[str]) -> dict[str, Any] | None:
    """The old room's levels in the form of the new version; None where the old room has none.

    Creators whose power is infinite may not be named; where it ceases to be, they keep the level of old creators, and
    what only they were able to do is left to those who have that.
    """
    event = room.tip_event(POWER_LEVELS)
    if event is None:
        return None
    old = event.pdu.content
    levels: dict[str, Any] = _parsed({key: old[key] for key in DEFAULT_LEVELS if key in old}, room.version)
    for group in ("users", "events", "notifications"):
        if isinstance(old.get(group), dict):
            levels[group] = _parsed(old[group], room.version)
    users = {user: level for user, level in levels.get("users", {}).items() if is_user_id(user)}
    if version.creators_have_infinite_power:
        users = {user: level for user, level in users.items() if user not in creators}
    elif room.version.creators_have_infinite_power:
        users.update(dict.fromkeys(get_creators(room.version, room.pinned[CREATE].pdu), CREATOR_LEVEL))
        levels["events"] = {type: min(level, CREATOR_LEVEL) for type, level in levels.get("events", {}).items()}
    return {**levels, "users": users}


def _parsed(levels: dict[str, Any], version: RoomVersion) -> dict[str, int]:
    parsed = {key: parse_level(level, version) for key, level in levels.items()}
    return {key: level for key, level in parsed.items() if level is not None and abs(level) <= MAX_LEVEL}


def _farewell(room: Room, user_id: str, new_room_id: str) -> list[Draft]:
    """The tombstone and, where the user may, levels that keep others from speaking and inviting."""
    content = {"body": "This room has been replaced", "replacement_room": new_room_id}
    drafts = [Draft(TOMBSTONE, user_id, content, "")]
    event = room.tip_event(POWER_LEVELS)
    levels = room.power_levels
    raised = max(RAISED_LEVEL, levels.users_default + 1)
    new = {
        key: raised
        for key, level in (("events_default", levels.events_default), ("invite", levels.invite))
        if level < raised
    }
    own = levels.user(user_id)
    if event is not None and new and own >= raised and own >= levels.event("m.room.power_levels", True):
        drafts.append(Draft("m.room.power_levels", user_id, {**event.pdu.content, **new}, ""))
    return drafts

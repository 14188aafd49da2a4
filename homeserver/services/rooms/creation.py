"""Creating rooms.

https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3createroom

1. m.room.create, 2. the creator's join, 3. power levels, 4. the canonical alias, 5. what the preset sets,
6. `initial_state`, 7. name and topic, 8. invitations: all made on one new head and committed at once, so that there
is never half a room. Of several events for one state key among 4 to 7 only the last is made, in the first's place.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from homeserver.logs import get_logger
from homeserver.services.accounts.sessions import Requester
from homeserver.services.errors import BadJson, InvalidParam, MatrixError, NoIdentityServer
from homeserver.services.profiles import Profiles
from homeserver.services.rooms.aliases import Aliases
from homeserver.services.rooms.authoring import Authoring, Draft
from homeserver.services.rooms.membership import Membership
from homeserver.services.rooms.registry import RoomRegistry
from matrix.identifiers import is_user_id
from matrix.room_versions import ROOM_VERSIONS, RoomVersion
from storage.rooms import AliasRow, RoomRow
from storage.stream import Writes

log = get_logger(__name__)

Preset = Literal["private_chat", "trusted_private_chat", "public_chat"]
MAX_INITIAL_STATE = 500
MAX_INVITES = 500
INVITES_AT_ONCE = 16
MAX_CREATORS = 100

PRESETS: dict[str, dict[str, str]] = {
    "private_chat": {"join_rule": "invite", "history_visibility": "shared", "guest_access": "can_join"},
    "trusted_private_chat": {"join_rule": "invite", "history_visibility": "shared", "guest_access": "can_join"},
    "public_chat": {"join_rule": "public", "history_visibility": "shared", "guest_access": "forbidden"},
}


@dataclass(slots=True)
class InitialState:
    """An entry of `initial_state`."""

    type: str
    content: dict[str, Any]
    state_key: str = ""


@dataclass(slots=True)
class RoomOptions:
    """What a client asks of a new room: the body of createRoom."""

    visibility: Literal["public", "private"] = "private"
    preset: Preset | None = None
    room_alias_name: str | None = None
    name: str | None = None
    topic: str | None = None
    invite: list[str] = field(default_factory=list)
    invite_3pid: list[dict[str, Any]] = field(default_factory=list)
    room_version: str | None = None
    creation_content: dict[str, Any] = field(default_factory=dict)
    initial_state: list[InitialState] = field(default_factory=list)
    power_level_content_override: dict[str, Any] = field(default_factory=dict)
    is_direct: bool = False


class Creation:
    """Makes rooms."""

    def __init__(
        self,
        registry: RoomRegistry,
        authoring: Authoring,
        aliases: Aliases,
        membership: Membership,
        profiles: Profiles,
        load_rules: Callable[[str], Awaitable[object]],
        *,
        server_name: str,
        default_version: str,
    ) -> None:
        self._registry = registry
        self._authoring = authoring
        self._aliases = aliases
        self._membership = membership
        self._profiles = profiles
        self._load_rules = load_rules
        self._server_name = server_name
        self._default_version = default_version

    async def create(self, requester: Requester, options: RoomOptions) -> str:
        """Creates a room; returns its ID.

        Raises M_UNSUPPORTED_ROOM_VERSION, M_INVALID_ROOM_STATE, M_ROOM_IN_USE, M_INVITE_BLOCKED, InvalidParam,
        Forbidden, NotFound, NoIdentityServer.
        """
        version = self._check(options)
        creator = requester.user_id
        preset = options.preset or ("public_chat" if options.visibility == "public" else "private_chat")
        join = await self._profiles.member_content(creator, "join", {})
        invited = list(dict.fromkeys(options.invite))
        invites = [
            await self._membership.invite_draft(creator, user_id, None, is_direct=options.is_direct)
            for user_id in invited
        ]
        invites = [draft for draft in invites if self._membership.is_local(draft.state_key or "")]
        content = _create_content(options, version, preset, creator)
        drafts = [
            Draft("m.room.create", creator, content, ""),
            Draft("m.room.member", creator, join, creator),
            Draft("m.room.power_levels", creator, _power_levels(options, version, preset, content, creator), ""),
        ]
        alias = None
        if options.room_alias_name is not None:
            alias = self._aliases.full_alias(options.room_alias_name)
            self._aliases.check_may_have(requester, alias)
        drafts += _state_drafts(options, creator, preset, alias)
        room_id = "" if version.room_id_is_create_event_hash else f"!{secrets.token_urlsafe(18)}:{self._server_name}"
        if alias is None:
            room_id = await self._make(room_id, version, options, [*drafts, *invites], creator, None)
        else:
            async with self._aliases.reserved(alias):
                room_id = await self._make(room_id, version, options, [*drafts, *invites], creator, alias)
        await self._invite_elsewhere(creator, room_id, options)
        return room_id

    async def _invite_elsewhere(self, creator: str, room_id: str, options: RoomOptions) -> None:
        """Invites users of other servers, who sign first. The room is there: one who cannot be invited is left out."""
        elsewhere = [user_id for user_id in dict.fromkeys(options.invite) if not self._membership.is_local(user_id)]

        async def invite(user_id: str) -> None:
            try:
                await self._membership.invite(creator, room_id, user_id, None, is_direct=options.is_direct)
            except MatrixError as error:
                log.warning("a user could not be invited", room_id=room_id, user=user_id, reason=error.message)

        for start in range(0, len(elsewhere), INVITES_AT_ONCE):
            await asyncio.gather(*(invite(user_id) for user_id in elsewhere[start : start + INVITES_AT_ONCE]))

    async def _make(
        self,
        room_id: str,
        version: RoomVersion,
        options: RoomOptions,
        drafts: Sequence[Draft],
        creator: str,
        alias: str | None,
    ) -> str:
        await self._load_rules(creator)
        room = self._registry.new(room_id, version)
        writes = Writes()
        try:
            _, done = self._authoring.author(room, drafts, writes)
        except MatrixError as error:
            if error.errcode != "M_FORBIDDEN":
                raise
            raise MatrixError(
                400, "M_INVALID_ROOM_STATE", f"The room cannot start like this: {error.message}"
            ) from None
        is_public = options.visibility == "public"
        writes.rooms.append(RoomRow(room.room, room.room_id, version.identifier, creator, is_public))
        if alias is not None:
            writes.aliases.append(AliasRow(alias, room.room, creator))
            room.aliases.add(alias)  # before its first events are told to those whom the alias interests
        self._registry.add(room)
        await done
        return room.room_id

    def _check(self, options: RoomOptions) -> RoomVersion:
        version = ROOM_VERSIONS.get(self._default_version if options.room_version is None else options.room_version)
        if version is None:
            raise MatrixError(400, "M_UNSUPPORTED_ROOM_VERSION", "The server does not know this room version")
        if len(options.initial_state) > MAX_INITIAL_STATE or len(options.invite) > MAX_INVITES:
            raise InvalidParam("Too many events in initial_state or users in invite")
        if options.invite_3pid:
            raise NoIdentityServer
        for user_id in options.invite:
            if not is_user_id(user_id):
                raise InvalidParam("invite holds something that is not a user ID")
        creators = options.creation_content.get("additional_creators", [])
        if version.creators_have_infinite_power and not (
            isinstance(creators, list) and len(creators) <= MAX_CREATORS and all(map(is_user_id, creators))
        ):
            raise InvalidParam("additional_creators must be a list of user IDs")
        for state in options.initial_state:
            if "\0" in state.type or "\0" in state.state_key:
                raise BadJson("A type or state_key has a NUL character")
        return version


def _create_content(options: RoomOptions, version: RoomVersion, preset: str, creator: str) -> dict[str, Any]:
    content = {**options.creation_content, "room_version": version.identifier}
    content.pop("creator", None)
    if version.create_has_creator:
        content["creator"] = creator
    if version.creators_have_infinite_power and preset == "trusted_private_chat" and options.invite:
        creators = [*content.get("additional_creators", []), *options.invite]
        content["additional_creators"] = list(dict.fromkeys(creators))
    return content


def _power_levels(
    options: RoomOptions, version: RoomVersion, preset: str, create: dict[str, Any], creator: str
) -> dict[str, Any]:
    users = {} if version.creators_have_infinite_power else {creator: 100}
    if preset == "trusted_private_chat" and not version.creators_have_infinite_power:
        users.update(dict.fromkeys(options.invite, 100))
    events = {
        "m.room.name": 50,
        "m.room.avatar": 50,
        "m.room.canonical_alias": 50,
        "m.room.power_levels": 100,
        "m.room.history_visibility": 100,
        "m.room.tombstone": 150 if version.creators_have_infinite_power else 100,
        "m.room.server_acl": 100,
        "m.room.encryption": 100,
    }
    return {
        "users": users,
        "users_default": 0,
        "events": events,
        "events_default": 0,
        "state_default": 50,
        "ban": 50,
        "kick": 50,
        "redact": 50,
        "invite": 50 if preset == "public_chat" else 0,
        **options.power_level_content_override,
    }


def _state_drafts(options: RoomOptions, creator: str, preset: str, alias: str | None) -> list[Draft]:
    state: dict[tuple[str, str], dict[str, Any]] = {}
    if alias is not None:
        state["m.room.canonical_alias", ""] = {"alias": alias}
    settings = PRESETS[preset]
    state["m.room.join_rules", ""] = {"join_rule": settings["join_rule"]}
    state["m.room.history_visibility", ""] = {"history_visibility": settings["history_visibility"]}
    state["m.room.guest_access", ""] = {"guest_access": settings["guest_access"]}
    for entry in options.initial_state:
        state[entry.type, entry.state_key] = entry.content
    if options.name is not None:
        state["m.room.name", ""] = {"name": options.name}
    if options.topic is not None:
        text = {"m.text": [{"body": options.topic, "mimetype": "text/plain"}]}
        state["m.room.topic", ""] = {"topic": options.topic, "m.topic": text}
    return [Draft(type, creator, content, state_key) for (type, state_key), content in state.items()]

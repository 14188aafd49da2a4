"""Profiles: what users call themselves, in general and (copied into member events) in rooms.

https://spec.matrix.org/v1.19/client-server-api/#profiles
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any

import orjson

from homeserver.services.errors import MatrixError, NotFound
from storage.accounts import AccountRepository

MAX_PROFILE_BYTES = 65_536
IN_MEMBER_EVENTS = ("displayname", "avatar_url")


class Profiles:
    """Reads (through a bounded cache) and changes profiles.

    `on_changed` carries changes into rooms, `on_renamed` hears of them first; `on_missing` is asked for users that are
    not there, and tells whether they are by now.
    """

    def __init__(self, accounts: AccountRepository, *, max_cached_profiles: int) -> None:
        self._accounts = accounts
        self._max_cached_profiles = max_cached_profiles
        self._cache: OrderedDict[str, dict[str, Any]] = OrderedDict()
        self._forgotten_count = 0
        self._lock = asyncio.Lock()
        self.on_changed: Callable[[str, dict[str, Any]], Awaitable[None]] | None = None
        self.on_renamed: Callable[[str, dict[str, Any]], None] | None = None
        self.on_missing: Callable[[str], Awaitable[bool]] | None = None

    async def profile(self, user_id: str) -> dict[str, Any]:
        """A user's fields. Raises NotFound."""
        cached = self._cache.get(user_id)
        if cached is not None:
            self._cache.move_to_end(user_id)
            return cached
        forgotten_before = self._forgotten_count
        profile = await self._accounts.load_profile(user_id) if "\0" not in user_id else None
        if profile is None and self.on_missing is not None and await self.on_missing(user_id):
            profile = await self._accounts.load_profile(user_id)
        if profile is None:
            raise NotFound("No such user")
        if forgotten_before == self._forgotten_count:  # what was forgotten meanwhile may be what was just read
            self._remember(user_id, profile)
        return profile

    async def member_content(self, user_id: str, membership: str, added: dict[str, Any]) -> dict[str, Any]:
        """The content of a member event: what the client added, the profile, the membership."""
        try:
            profile = await self.profile(user_id)
        except NotFound:
            profile = {}
        shown = {key: profile[key] for key in IN_MEMBER_EVENTS if profile.get(key) is not None}
        return {**shown, **added, "membership": membership}

    async def set_field(self, user_id: str, key: str, value: Any) -> None:
        """Sets a field, or removes it where `value` is None, here and in the user's rooms."""
        async with self._lock:
            profile = {name: kept for name, kept in (await self.profile(user_id)).items() if name != key}
            if value is not None:
                profile[key] = value
            if len(orjson.dumps(profile)) > MAX_PROFILE_BYTES:
                raise MatrixError(400, "M_PROFILE_TOO_LARGE", "The profile is too large")
            await self._accounts.set_profile(user_id, profile)
            self._remember(user_id, profile)
        if key in IN_MEMBER_EVENTS and self.on_renamed is not None:
            self.on_renamed(user_id, profile)
        if key in IN_MEMBER_EVENTS and self.on_changed is not None:
            await self.on_changed(user_id, profile)

    def forget(self, user_id: str | None) -> None:
        """Drops what is cached of a user whose account was closed or changed elsewhere; None for all users."""
        self._forgotten_count += 1
        if user_id is None:
            self._cache.clear()
        else:
            self._cache.pop(user_id, None)

    def _remember(self, user_id: str, profile: dict[str, Any]) -> None:
        self._cache[user_id] = profile
        self._cache.move_to_end(user_id)
        if len(self._cache) > self._max_cached_profiles:
            self._cache.popitem(last=False)

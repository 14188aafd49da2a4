"""Profiles of everybody: of users here from the database, of others from their servers.

https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1queryprofile
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from homeserver.clock import Clock
from homeserver.services.errors import NotFound
from homeserver.services.profiles import MAX_PROFILE_BYTES, Profiles
from homeserver.services.remote import RemoteFailure, RemoteRefused, Transport, bad_gateway, for_clients
from matrix.identifiers import get_domain, is_user_id

MAX_CACHED_PROFILES = 1000
MAX_AGE_MS = 60_000
TIMEOUT_MS = 10_000


class ProfileLookup:
    """Looks up profiles; those of other servers are kept for a minute."""

    def __init__(self, profiles: Profiles, transport: Transport, clock: Clock, *, server_name: str) -> None:
        self._profiles = profiles
        self._transport = transport
        self._clock = clock
        self._server_name = server_name
        self._remote: OrderedDict[str, tuple[int, dict[str, Any]]] = OrderedDict()

    def is_at_hand(self, user_id: str) -> bool:
        """Whether a look-up asks no other server."""
        return get_domain(user_id) == self._server_name or self._cached(user_id) is not None

    async def profile(self, user_id: str) -> dict[str, Any]:
        """A user's fields. Raises NotFound, and 502 where another server has no answer."""
        if get_domain(user_id) == self._server_name:
            return await self._profiles.profile(user_id)
        if not is_user_id(user_id):
            raise NotFound("No such user")
        profile = self._cached(user_id)
        if profile is None:
            profile = await self._fetch(user_id)
            self._remote[user_id] = (self._clock(), profile)
            self._remote.move_to_end(user_id)
            if len(self._remote) > MAX_CACHED_PROFILES:
                self._remote.popitem(last=False)
        return profile

    def _cached(self, user_id: str) -> dict[str, Any] | None:
        found = self._remote.get(user_id)
        return found[1] if found is not None and self._clock() - found[0] < MAX_AGE_MS else None

    async def _fetch(self, user_id: str) -> dict[str, Any]:
        try:
            server = get_domain(user_id)
            profile = await self._transport.request(
                server,
                "GET",
                "/_matrix/federation/v1/query/profile",
                query=[("user_id", user_id)],
                timeout_ms=TIMEOUT_MS,
                max_bytes=2 * MAX_PROFILE_BYTES,
            )
            for_clients(server, profile)
        except RemoteRefused as refusal:
            if refusal.status in (403, 404):
                raise NotFound("Their server shows no such profile") from None
            raise bad_gateway(refusal) from None
        except RemoteFailure as failure:
            raise bad_gateway(failure) from None
        if not isinstance(profile, dict):
            raise NotFound("Their server shows no profile")
        return {name: value for name, value in profile.items() if value is not None}

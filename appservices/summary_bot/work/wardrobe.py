"""What the bot looks like: its profile is the same everywhere, its avatar in a room is that of the role in use there.

A role's avatar therefore stands in the bot's membership event of the room, beside the display name of its profile.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path

from appservices.summary_bot.config import AVATAR_TYPES, Role
from appservices.summary_bot.matrix.client import MatrixClient, MatrixFailure
from appservices.summary_bot.matrix.media import Media
from appservices.summary_bot.storage.settings import SettingsRepository
from appservices.summary_bot.storage.uploads import UploadRepository

MEMBER = "m.room.member"

log = logging.getLogger(__name__)


class Wardrobe:
    """Sets avatars."""

    def __init__(
        self,
        client: MatrixClient,
        media: Media,
        uploads: UploadRepository,
        settings: SettingsRepository,
        roles: Mapping[str, Role],
    ) -> None:
        self._client = client
        self._media = media
        self._uploads = uploads
        self._settings = settings
        self._roles = roles

    @property
    def is_empty(self) -> bool:
        """Whether no role has an avatar."""
        return not any(role.avatar_url or role.avatar_file for role in self._roles.values())

    async def dress(self, room_id: str, role_name: str) -> None:
        """Makes the bot look in a room as the role does; without an avatar of the role, as everywhere.

        A room that does not let it, and a file that cannot be had, keep nobody from using the role.
        """
        if self.is_empty:
            return
        try:
            role = self._roles.get(role_name)
            profile = await self._client.load_profile()
            url = await self._url(role) if role is not None else None
            url = url or profile.get("avatar_url")
            member = dict(await self._client.load_state(room_id, MEMBER, self._client.user_id) or {})
            if member.get("membership") != "join" or member.get("avatar_url") == url:
                return
            looks = {"displayname": profile.get("displayname"), "avatar_url": url}
            await self._client.set_own_member(room_id, {name: value for name, value in looks.items() if value})
        except MatrixFailure as failure:
            if failure.is_temporary:
                raise
            log.info("the avatar of a role could not be set: %s", failure)
        except OSError as error:
            log.warning("the avatar of the role %s cannot be read: %s", role_name, error.strerror)

    async def dress_all(self) -> None:
        """In every room: homeservers put a changed profile over what rooms have of it."""
        if not self.is_empty:
            for room_id, role in (await self._settings.load_roles()).items():
                await self.dress(room_id, role)

    async def _url(self, role: Role) -> str | None:
        """Where a role's avatar is, uploaded if it has not been before."""
        if role.avatar_file is None:
            return role.avatar_url
        path = Path(role.avatar_file)
        data = await asyncio.to_thread(path.read_bytes)
        digest = hashlib.blake2b(data, digest_size=32).digest()
        url = await self._uploads.load_url(digest)
        if url is None:
            url = await self._media.upload(data, AVATAR_TYPES[path.suffix.lower()])
            await self._uploads.persist_url(digest, url)
        return url

"""Finding users, and the rooms that one shares with them.

https://spec.matrix.org/v1.19/client-server-api/#user-directory
"""

from __future__ import annotations

import re
from typing import Any

from homeserver.services.errors import InvalidParam
from matrix.identifiers import is_user_id
from storage.directory import DirectoryRepository, ListedUser, search_text

DEFAULT_USERS = 10
MAX_USERS = 50
MAX_WORDS = 8
MAX_TERM_CHARS = 512
PAGE_MUTUAL_ROOMS = 100

TOKEN = re.compile(r"m(?P<room>[0-9]{1,10})", re.ASCII)


class UserDirectory:
    """Searches local users that the searcher may know of."""

    def __init__(self, repository: DirectoryRepository) -> None:
        self._repository = repository

    async def search(self, searcher: str, term: str, limit: int) -> dict[str, Any]:
        """Users whose ID or display name holds every word of a term, in any case. Raises InvalidParam."""
        if limit < 0:
            raise InvalidParam("limit must not be negative")
        if len(term) > MAX_TERM_CHARS:
            raise InvalidParam(f"search_term can have {MAX_TERM_CHARS} characters")
        words = search_text(term).split()[:MAX_WORDS]
        limit = min(limit, MAX_USERS)
        if not words or not limit:
            return {"results": [], "limited": False}
        found = await self._repository.find_users(searcher, words, limit + 1)
        return {"results": [_result(user) for user in found[:limit]], "limited": len(found) > limit}

    async def mutual_rooms(self, user_id: str, other: str, since: str | None) -> dict[str, Any]:
        """The rooms that two users are both joined to, a page at a time. Raises InvalidParam.

        https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1mutual_rooms
        """
        if not is_user_id(other) or "\0" in other:
            raise InvalidParam("user_id is not a user ID")
        if other == user_id:
            raise InvalidParam("user_id is your own")
        after = 0
        if since is not None:
            match = TOKEN.fullmatch(since)
            if match is None:
                raise InvalidParam("from is not a token of this server")
            after = int(match["room"])
        rooms = await self._repository.load_mutual_rooms(user_id, other)
        left = [entry for entry in rooms if entry[0] > after]
        page = left[:PAGE_MUTUAL_ROOMS]
        answer: dict[str, Any] = {"joined": [room_id for _, room_id in page], "count": len(rooms)}
        if len(left) > len(page):
            answer["next_batch"] = f"m{page[-1][0]}"
        return answer


def _result(user: ListedUser) -> dict[str, str]:
    result = {"user_id": user.user_id}
    for field, name in (("displayname", "display_name"), ("avatar_url", "avatar_url")):
        value = user.profile.get(field)
        if isinstance(value, str):
            result[name] = value
    return result

"""OpenID tokens: with one, another service learns from this server who a user is, and can do nothing else.

https://spec.matrix.org/v1.19/client-server-api/#openid
"""

from __future__ import annotations

import secrets
from typing import Final

from homeserver.clock import Clock
from homeserver.services.accounts.sessions import hash_token
from homeserver.services.errors import UnknownToken
from storage.tokens import TokenRepository

OPENID_TOKEN_LIFETIME_S: Final = 3600


class OpenId:
    """Gives out OpenID tokens, and says whose they are."""

    def __init__(self, tokens: TokenRepository, clock: Clock) -> None:
        self._tokens = tokens
        self._clock = clock

    async def new_token(self, user_id: str) -> str:
        """A token that is good for OPENID_TOKEN_LIFETIME_S."""
        token = f"wefto_{secrets.token_urlsafe(32)}"
        now = self._clock()
        expires_ts = now + OPENID_TOKEN_LIFETIME_S * 1000
        await self._tokens.insert_openid_token(hash_token(token), user_id, now_ms=now, expires_ts=expires_ts)
        return token

    async def user_of(self, token: str) -> str:
        """Whose token it is. Raises UnknownToken."""
        user_id = await self._tokens.load_openid_user(hash_token(token), now_ms=self._clock())
        if user_id is None:
            raise UnknownToken("Unknown or expired OpenID token")
        return user_id

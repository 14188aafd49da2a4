"""Logging in with a JSON Web Token (RFC 7519) that another service has signed: `org.matrix.login.jwt`.

The type is not of the specification; bridges, portals and other homeservers know it under this name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import jwt
from jwt.algorithms import get_default_algorithms
from jwt.types import Options

from config import schema
from config.errors import ConfigError
from homeserver.services.accounts.login import text_of
from homeserver.services.accounts.registration import Registration, UserInUse
from homeserver.services.errors import Forbidden, MatrixError
from matrix.identifiers import MAX_IDENTIFIER_BYTES
from storage.accounts import AccountRepository, UserRow

LOGIN_TYPE: Final = "org.matrix.login.jwt"
MAX_JWT_BYTES: Final = 16_384


class JwtLogin:
    """Finds out whose a token is. Raises ConfigError for a key that the algorithm cannot use."""

    def __init__(
        self, config: schema.JwtLogin, server_name: str, accounts: AccountRepository, registration: Registration
    ) -> None:
        self._config = config
        self._server_name = server_name
        self._accounts = accounts
        self._registration = registration
        self._key = _load_key(config)

    async def authenticate(self, credentials: Mapping[str, object]) -> UserRow:
        """The account that the `token` of the credentials names, made if that is configured.

        Raises Forbidden, MissingParam, BadJson.
        """
        localpart = self._subject(text_of(credentials, "token")).lower()
        user_id = f"@{localpart}:{self._server_name}"
        if len(user_id.encode()) > MAX_IDENTIFIER_BYTES or "\0" in user_id:
            raise Forbidden("The token names no user that there can be")
        user = await self._accounts.load_user(user_id)
        if user is None and self._config.create_users:
            await self._create(localpart)
            user = await self._accounts.load_user(user_id)
        if user is None:
            raise Forbidden("There is no such user")
        return user

    async def _create(self, localpart: str) -> None:
        try:
            await self._registration.create_user(localpart, None)
        except UserInUse:  # another login of theirs was faster
            return
        except MatrixError as error:
            raise Forbidden(f"No account can be made: {error.message}") from None

    def _subject(self, token: str) -> str:
        """The claim with the user's name, of a token that is signed and in force. Raises Forbidden."""
        config = self._config
        options: Options = {"require": [config.subject_claim], "verify_aud": bool(config.audiences)}
        if len(token) > MAX_JWT_BYTES:
            raise Forbidden("The token is too long")
        try:
            claims = jwt.decode(
                token,
                self._key,
                algorithms=[config.algorithm],
                audience=list(config.audiences) or None,
                issuer=config.issuer,
                options=options,
            )
        except (jwt.PyJWTError, ValueError) as error:
            raise Forbidden(f"The token is not valid: {error}") from None
        subject = claims[config.subject_claim]
        if not isinstance(subject, str) or not subject:
            raise Forbidden(f"The claim {config.subject_claim} is no name")
        return subject


def _load_key(config: schema.JwtLogin) -> str:
    if config.algorithm.startswith("HS"):
        assert config.secret is not None, "the configuration is checked"
        return config.secret.reveal()
    assert config.public_key_file is not None, "the configuration is checked"
    try:
        key = config.public_key_file.read_text(encoding="utf-8")
        get_default_algorithms()[config.algorithm].prepare_key(key)
    except (OSError, ValueError, TypeError, jwt.PyJWTError) as error:
        raise ConfigError([f"jwt_login.public_key_file: no key for {config.algorithm}: {error}"]) from None
    return key

"""Tokens of /sync and /messages: positions in the stream.

A token stands between its position and the next one. It is one and the same for both endpoints, so that a client may
page back from where a sync began.
"""

from __future__ import annotations

from homeserver.services.errors import InvalidParam

PREFIX = "s"
MAX_POSITION = 2**62
BEGINNING = -MAX_POSITION
"""A position before every event."""


def encode_token(position: int) -> str:
    """The token of a position."""
    return f"{PREFIX}{position}"


def decode_token(token: str) -> int:
    """The position of a token. Raises InvalidParam."""
    digits = token.removeprefix(PREFIX)
    if not token.startswith(PREFIX) or not digits.removeprefix("-").isdigit() or not digits.isascii():
        raise InvalidParam("Not a token of this server")
    if len(digits) > 20 or abs(int(digits)) > MAX_POSITION:
        raise InvalidParam("Not a token of this server")
    return int(digits)

"""Tokens of /sync and /messages: positions in the stream.

A token stands between its position and the next one. It is one and the same for both endpoints, so that a client may
page back from where a sync began. The token of a sync that did not tell its device of all messages that waited for it
says in a second number up to which position it did.
"""

from __future__ import annotations

from typing import NamedTuple

from homeserver.services.errors import InvalidParam

PREFIX = "s"
LAGS = "_"
MAX_POSITION = 2**62
BEGINNING = -MAX_POSITION
"""A position before every event."""


class SyncToken(NamedTuple):
    """Where a sync goes on: after `position`, and with messages to the device after `to_device`."""

    position: int
    to_device: int


def encode_token(position: int) -> str:
    """The token of a position."""
    return f"{PREFIX}{position}"


def encode_sync_token(position: int, to_device: int | None) -> str:
    """The token of a sync. `to_device` is None where the device has all of its messages."""
    return f"{PREFIX}{position}" if to_device is None else f"{PREFIX}{position}{LAGS}{to_device}"


def decode_token(token: str) -> int:
    """The position of a token. Raises InvalidParam."""
    return decode_sync_token(token).position


def decode_sync_token(token: str) -> SyncToken:
    """The positions of a token. Raises InvalidParam."""
    first, lags, second = token.removeprefix(PREFIX).partition(LAGS)
    if not token.startswith(PREFIX):
        raise InvalidParam("Not a token of this server")
    position = _decode(first)
    to_device = _decode(second) if lags else position
    if to_device > position:
        raise InvalidParam("Not a token of this server")
    return SyncToken(position, to_device)


def _decode(digits: str) -> int:
    if not digits.removeprefix("-").isdigit() or not digits.isascii():
        raise InvalidParam("Not a token of this server")
    if len(digits) > 20 or abs(int(digits)) > MAX_POSITION:
        raise InvalidParam("Not a token of this server")
    return int(digits)

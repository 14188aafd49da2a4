"""The grammar of Matrix identifiers: user IDs, room IDs, event IDs, room aliases and server names.

The predicates take any JSON value, so that they can judge what came over the network without a type check before
them. See https://spec.matrix.org/v1.19/appendices/#identifier-grammar.
"""

import re
from typing import Final, TypeGuard

MAX_IDENTIFIER_BYTES: Final = 255

# hostname [ ":" port ], where IPv4 literals are covered by the characters of DNS names.
_SERVER_NAME = r"(?:\[[0-9A-Fa-f:.]{2,45}\]|[0-9A-Za-z.-]{1,255})(?::[0-9]{1,5})?"
# The hash of an event in unpadded Base64, in either alphabet: 32 bytes make 43 characters.
_HASH = r"[0-9A-Za-z_+/-]{43}"
_URL_SAFE_HASH = r"[0-9A-Za-z_-]{43}"

_is_server_name = re.compile(_SERVER_NAME).fullmatch
_is_user_id = re.compile(rf"@[^:\0]*:{_SERVER_NAME}").fullmatch
_is_room_id = re.compile(rf"!(?:[^:\0]+:{_SERVER_NAME}|{_URL_SAFE_HASH})").fullmatch
_is_event_id = re.compile(rf"\$(?:[^:\0]+:{_SERVER_NAME}|{_HASH})").fullmatch
_is_room_alias = re.compile(rf"#[^:\0]+:{_SERVER_NAME}").fullmatch
_is_new_localpart = re.compile(r"[a-z0-9._=/+-]+").fullmatch


def get_domain(identifier: str) -> str:
    """Return the server name of an identifier: what follows its first ":", or "" where there is none.

    Room IDs of room version 12 and event IDs of room versions 3 and later have no domain.
    """
    return identifier.partition(":")[2]


def get_localpart(user_id: str) -> str:
    """Return what stands between the sigil and the first ":" of a user ID."""
    return user_id[1:].partition(":")[0]


def is_server_name(value: object) -> TypeGuard[str]:
    """Tell whether the value is a server name, https://spec.matrix.org/v1.19/appendices/#server-name."""
    return isinstance(value, str) and _is_server_name(value) is not None


def is_user_id(value: object) -> TypeGuard[str]:
    """Tell whether the value is a user ID that servers must accept, of at most 255 bytes.

    This is the historical grammar, any localpart without ":" and NUL, empty ones included:
    https://spec.matrix.org/v1.19/appendices/#historical-user-ids.
    """
    return isinstance(value, str) and _is_user_id(value) is not None and _fits(value)


def is_new_localpart(localpart: str) -> bool:
    """Tell whether a new account may have this localpart, https://spec.matrix.org/v1.19/appendices/#user-identifiers.

    The length is not judged here, since it is the whole user ID that must fit into 255 bytes.
    """
    return _is_new_localpart(localpart) is not None


def is_room_id(value: object) -> TypeGuard[str]:
    """Tell whether the value is a room ID, "!opaque:domain" or (from room version 12) "!hash".

    https://spec.matrix.org/v1.19/appendices/#room-ids
    """
    return isinstance(value, str) and _is_room_id(value) is not None and _fits(value)


def is_event_id(value: object) -> TypeGuard[str]:
    """Tell whether the value is an event ID of any room version, "$opaque:domain" or "$hash".

    https://spec.matrix.org/v1.19/appendices/#event-ids
    """
    return isinstance(value, str) and _is_event_id(value) is not None and _fits(value)


def is_room_alias(value: object) -> TypeGuard[str]:
    """Tell whether the value is a room alias, https://spec.matrix.org/v1.19/appendices/#room-aliases."""
    return isinstance(value, str) and _is_room_alias(value) is not None and _fits(value)


def _fits(identifier: str) -> bool:
    if len(identifier) > MAX_IDENTIFIER_BYTES:
        return False
    if identifier.isascii():
        return True
    try:
        return len(identifier.encode()) <= MAX_IDENTIFIER_BYTES
    except UnicodeEncodeError:  # a lone surrogate, which no grammar admits
        return False

"""Server access control lists: which servers a room keeps out.

https://spec.matrix.org/v1.19/client-server-api/#server-access-control-lists-acls-for-rooms
"""

import ipaddress
from collections.abc import Mapping
from typing import Any

from matrix.globs import whole_glob


def is_server_allowed(server_name: str, content: Mapping[str, Any] | None) -> bool:
    """Tell whether an m.room.server_acl with this content lets the server in; rooms without one let all in.

    Names are compared without their port and in any case, in the order of the specification's rules.
    """
    if content is None:
        return True
    host = _host(server_name).lower()
    # "If allow_ip_literals is false and the server name is an IP address literal, deny."
    if content.get("allow_ip_literals", True) is False and _is_ip_literal(host):
        return False
    # "If any of the entries in deny matches, deny. If any of the entries in allow matches, allow. Otherwise, deny."
    if _matches_any(host, content.get("deny")):
        return False
    return _matches_any(host, content.get("allow"))


def _host(server_name: str) -> str:
    if server_name.startswith("["):
        return server_name.partition("]")[0] + "]"
    return server_name.partition(":")[0]


def _is_ip_literal(host: str) -> bool:
    if host.startswith("["):
        return True
    try:
        ipaddress.IPv4Address(host)
    except ValueError:
        return False
    return True


def _matches_any(host: str, patterns: object) -> bool:
    if not isinstance(patterns, list):
        return False
    return any(isinstance(pattern, str) and whole_glob(pattern.lower()).matches(host) for pattern in patterns)

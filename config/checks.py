"""Checks of single values: each returns what is wrong, worded to follow the option's name, or None."""

import datetime
import ipaddress
import re
from collections.abc import Hashable, Iterable, Sized
from typing import Protocol
from urllib.parse import urlsplit

from matrix.identifiers import is_server_name, is_user_id
from matrix.room_versions import ROOM_VERSIONS
from matrix.third_party_ids import canonical_email

_KEY_ID = re.compile(r"ed25519:[A-Za-z0-9_]+")
_OPAQUE = re.compile(r"[0-9a-zA-Z._~-]{1,255}")
_LANGUAGE = re.compile(r"[A-Za-z]{2,8}([-_][A-Za-z0-9]{1,8})*")
_NAMESPACED = re.compile(r"[a-z][a-z0-9._-]{1,254}")
_TURN_URI = re.compile(r"turns?:[^\s?]+(\?transport=\w+)?")
_UNPADDED_ED25519_KEY = re.compile(r"[A-Za-z0-9+/]{43}")


def check_server_name(value: str) -> str | None:
    """A server name: a host name or IP address, and perhaps a port.

    See https://spec.matrix.org/v1.19/appendices/#server-name.
    """
    in_brackets = re.match(r"\[(.*)\]", value)
    if is_server_name(value) and (in_brackets is None or check_ip_address(in_brackets[1]) is None):
        return None
    return "must be a server name such as example.org, example.org:8448 or [2001:db8::1]:8448"


def check_room_version(value: str) -> str | None:
    """A room version that the server knows, https://spec.matrix.org/v1.19/rooms/."""
    return None if value in ROOM_VERSIONS else f"must be one of {', '.join(ROOM_VERSIONS)}"


def check_ip_address(value: str) -> str | None:
    """An IPv4 or IPv6 address."""
    try:
        ipaddress.ip_address(value)
    except ValueError:
        return "must be an IP address"
    return None


def check_not_empty(values: Sized) -> str | None:
    """A list of at least one."""
    return None if len(values) else "must not be empty"


def check_distinct(values: Iterable[Hashable]) -> str | None:
    """A list that names nothing twice."""
    seen: set[Hashable] = set()
    for value in values:
        if value in seen:
            return f"names {value} twice"
        seen.add(value)
    return None


class _Listener(Protocol):
    @property
    def endpoint(self) -> str: ...


def check_listeners(listeners: tuple[_Listener, ...]) -> str | None:
    """At least one, and no two on the same port or socket."""
    return check_not_empty(listeners) or check_distinct(listener.endpoint for listener in listeners)


def check_key_id(value: str) -> str | None:
    """A signing key's identifier, https://spec.matrix.org/v1.19/server-server-api/#publishing-keys."""
    return None if _KEY_ID.fullmatch(value) else "must be a key ID such as ed25519:a_1"


def check_public_key(value: str) -> str | None:
    """An Ed25519 public key, https://spec.matrix.org/v1.19/appendices/#unpadded-base64."""
    return None if _UNPADDED_ED25519_KEY.fullmatch(value) else "must be 32 bytes in unpadded base64 (43 characters)"


def check_opaque(value: str) -> str | None:
    """An opaque identifier, https://spec.matrix.org/v1.19/appendices/#opaque-identifiers."""
    return None if _OPAQUE.fullmatch(value) else "may only have letters, digits and . _ ~ -, at most 255"


def check_language(value: str) -> str | None:
    """A language code, https://www.rfc-editor.org/rfc/rfc5646#section-2.1, or one with an underscore.

    `version` is the one word that means something else beside the languages of a policy.
    """
    return None if _LANGUAGE.fullmatch(value) and value != "version" else "must be a language code such as en or pt-BR"


class _Policy(Protocol):
    @property
    def policy_id(self) -> str: ...
    @property
    def version(self) -> str: ...
    @property
    def language(self) -> str: ...


def check_policies(policies: Iterable[_Policy]) -> str | None:
    """No policy twice in a language, nor in two versions."""
    versions: dict[str, str] = {}
    seen: set[tuple[str, str]] = set()
    for policy in policies:
        if versions.setdefault(policy.policy_id, policy.version) != policy.version:
            return f"has two versions of {policy.policy_id}"
        if (policy.policy_id, policy.language) in seen:
            return f"names {policy.policy_id} twice in {policy.language}"
        seen.add((policy.policy_id, policy.language))
    return None


def check_user_id(value: str) -> str | None:
    """A user ID, https://spec.matrix.org/v1.19/appendices/#user-identifiers."""
    return None if is_user_id(value) else "must be a user ID such as @admin:example.org"


def check_contact_role(value: str) -> str | None:
    """A role of the specification, or a namespaced one.

    https://spec.matrix.org/v1.19/client-server-api/#getwell-knownmatrixsupport
    """
    if value in ("m.role.admin", "m.role.security"):
        return None
    if _NAMESPACED.fullmatch(value) and not value.startswith("m."):
        return None
    return "must be m.role.admin, m.role.security or a namespaced name such as org.example.role"


def check_date(value: str) -> str | None:
    """A day, https://www.rfc-editor.org/rfc/rfc3339#section-5.6."""
    try:
        datetime.date.fromisoformat(value)
    except ValueError:
        return "must be a day such as 2026-11-25"
    return None


def check_turn_uri(value: str) -> str | None:
    """A TURN URI, https://www.rfc-editor.org/rfc/rfc7065."""
    return None if _TURN_URI.fullmatch(value) else "must be a URI such as turn:turn.example.org?transport=udp"


def check_mail_host(value: str) -> str | None:
    """A host name or an IP address, without a port."""
    if check_ip_address(value) is None or (is_server_name(value) and ":" not in value):
        return None
    return "must be a host name such as mail.example.org"


def check_email_address(value: str) -> str | None:
    """An e-mail address, https://spec.matrix.org/v1.19/appendices/#e-mail."""
    if canonical_email(value) is not None:
        return None
    return "must be an e-mail address such as noreply@example.org, without a name"


def check_database_url(value: str) -> str | None:
    """A PostgreSQL connection URL."""
    return _check_url(value, ("postgresql", "postgres"), host_required=False)


def check_redis_url(value: str) -> str | None:
    """A Redis connection URL; `unix://` names a socket."""
    if value.startswith("unix://"):
        return None
    return _check_url(value, ("redis", "rediss", "unix"))


def check_http_url(value: str) -> str | None:
    """A base URL that clients reach: no query, no fragment."""
    problem = _check_url(value, ("https", "http"))
    if problem is None and ("?" in value or "#" in value):
        return "must have neither a query nor a fragment"
    return problem


def _check_url(value: str, schemes: tuple[str, ...], *, host_required: bool = True) -> str | None:
    try:
        parts = urlsplit(value)
        host, _port = parts.hostname, parts.port  # both parse lazily, and the port raises when it is not one
    except ValueError:
        return "is not a valid URL"
    if parts.scheme not in schemes or not value.startswith(f"{parts.scheme}://"):
        return "must be a URL that begins with " + " or ".join(f"{scheme}://" for scheme in schemes)
    if host_required and not host:
        return "names no host"
    return None

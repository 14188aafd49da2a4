"""Registration files of application services: https://spec.matrix.org/v1.19/application-service-api/#registration

They are the administrators' files, and are read strictly: what cannot be used is refused with the file and the key.
Keys that no specification has are passed over, for the programs that write such files put some there for themselves.
"""

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import msgspec

from config.checks import check_http_url
from config.errors import ConfigError
from config.schema import Config
from config.secret import Secret
from config.sources import read_yaml
from matrix.identifiers import is_user_id

MAX_REGISTRATIONS = 100
MAX_NAMESPACES = 200
MAX_REGEX_CHARS = 1024
MAX_TOKEN_CHARS = 1024
MAX_PROTOCOLS = 100
SUFFIXES = (".yaml", ".yml")

_ID = re.compile(r"[^\s\x00-\x1f\x7f](?:[^\x00-\x1f\x7f]{0,253}[^\s\x00-\x1f\x7f])?")
_TOKEN = re.compile(r"[\x21-\x7e]+")


@dataclass(frozen=True, slots=True)
class Namespace:
    """Identifiers that a service is interested in; `exclusive`: that nobody else may take."""

    regex: re.Pattern[str]
    exclusive: bool


@dataclass(frozen=True, slots=True)
class Registration:
    """One application service. `url` has no slash at its end, and is None for a service that is told nothing."""

    id: str
    url: str | None
    as_token: Secret
    hs_token: Secret
    sender_localpart: str
    users: tuple[Namespace, ...]
    rooms: tuple[Namespace, ...]
    aliases: tuple[Namespace, ...]
    rate_limited: bool
    """Whether the limits count for its users; for its sender they never do."""
    protocols: tuple[str, ...]
    receive_ephemeral: bool
    ephemeral_is_unstable: bool
    """Whether only the proposal's flag asks for them, so that it knows them by the proposal's name."""
    receive_encryption: bool
    """Whether it wants what encryption needs to know of devices: the flag of MSC3202."""


class _Namespace(msgspec.Struct):
    regex: str
    exclusive: bool


class _Namespaces(msgspec.Struct):
    users: list[_Namespace] | None = None
    rooms: list[_Namespace] | None = None
    aliases: list[_Namespace] | None = None


class _File(msgspec.Struct):
    """A registration as it is written down."""

    id: str
    url: str | None
    as_token: str
    hs_token: str
    sender_localpart: str
    namespaces: _Namespaces
    rate_limited: bool | None = None
    protocols: list[str] | None = None
    receive_ephemeral: bool = False
    push_ephemeral: bool = msgspec.field(default=False, name="de.sorunome.msc2409.push_ephemeral")
    msc3202: bool = msgspec.field(default=False, name="org.matrix.msc3202")
    msc4190: bool = msgspec.field(default=False, name="io.element.msc4190")


class _Problem(Exception):
    """What is wrong with a file: `key: complaint`."""


class Mark(NamedTuple):
    """What a registration file was like when it was looked at; another mark means that it has changed."""

    path: Path
    modified_ns: int
    size: int
    inode: int


def registration_files(config: Config) -> list[Path]:
    """The files that the configuration names, and those in its folder for them, each once."""
    files = {path.resolve(): path for path in config.appservices}
    directory = config.appservices_dir
    if directory.is_dir():
        for path in sorted(directory.iterdir()):
            if path.suffix in SUFFIXES and not path.name.startswith("."):
                files.setdefault(path.resolve(), path)
    return list(files.values())


def mark_registrations(config: Config) -> tuple[Mark, ...]:
    """The marks of all files there are, to be compared with later ones."""
    marks = []
    for path in registration_files(config):
        try:
            stat = path.stat()
        except OSError:
            marks.append(Mark(path, 0, 0, 0))
        else:
            marks.append(Mark(path, stat.st_mtime_ns, stat.st_size, stat.st_ino))
    return tuple(marks)


def load_registrations(config: Config) -> tuple[Registration, ...]:
    """Every registration, in the order of the files. Raises ConfigError with all that is wrong."""
    problems: list[str] = []
    found: list[Registration] = []
    owners: dict[tuple[str, str], Path] = {}
    for path in registration_files(config):
        try:
            registration = _parse(read_yaml(path), config.server_name)
        except ConfigError as error:
            problems += error.problems
            continue
        except _Problem as problem:
            problems.append(f"{path}: {problem}")
            continue
        for key, value in _unique(registration):
            if (other := owners.setdefault((key, value), path)) != path:
                problems.append(f"{path}: {key}: is that of {other}, too")
        found.append(registration)
    if len(found) > MAX_REGISTRATIONS:
        problems.append(f"appservices: there may be {MAX_REGISTRATIONS} of them")
    if problems:
        raise ConfigError(problems)
    return tuple(found)


def _unique(registration: Registration) -> Iterable[tuple[str, str]]:
    """What no two services may have in common. https://spec.matrix.org/v1.19/application-service-api/#registration"""
    yield "id", registration.id
    yield "sender_localpart", registration.sender_localpart
    yield "as_token", hashlib.sha256(registration.as_token.reveal().encode()).hexdigest()


def _parse(raw: object, server_name: str) -> Registration:
    """A registration out of a document that is read already. Raises _Problem."""
    try:
        given = msgspec.convert(raw, _File)
    except msgspec.ValidationError as error:
        raise _Problem(_worded(str(error))) from None
    if not _ID.fullmatch(given.id):
        raise _Problem("id: must be 1 to 255 characters on one line, with no space at its ends")
    for key, token in (("as_token", given.as_token), ("hs_token", given.hs_token)):
        if not _TOKEN.fullmatch(token) or len(token) > MAX_TOKEN_CHARS:
            raise _Problem(f"{key}: must be 1 to {MAX_TOKEN_CHARS} printable ASCII characters without spaces")
    if not given.sender_localpart or not is_user_id(f"@{given.sender_localpart}:{server_name}"):
        raise _Problem("sender_localpart: must be what stands between @ and : in a user ID")
    url = (given.url or "").rstrip("/") or None
    if url is not None and (complaint := check_http_url(url)) is not None:
        raise _Problem(f"url: {complaint}")
    protocols = tuple(given.protocols or ())
    if len(protocols) > MAX_PROTOCOLS or not all(protocols):
        raise _Problem(f"protocols: must be at most {MAX_PROTOCOLS} names")
    ephemeral_is_unstable = given.push_ephemeral and not given.receive_ephemeral
    return Registration(
        id=given.id,
        url=url,
        as_token=Secret(given.as_token),
        hs_token=Secret(given.hs_token),
        sender_localpart=given.sender_localpart,
        users=_namespaces("users", given.namespaces.users),
        rooms=_namespaces("rooms", given.namespaces.rooms),
        aliases=_namespaces("aliases", given.namespaces.aliases),
        rate_limited=given.rate_limited is not False,
        protocols=protocols,
        receive_ephemeral=given.receive_ephemeral or given.push_ephemeral,
        ephemeral_is_unstable=ephemeral_is_unstable,
        receive_encryption=given.msc3202,
    )


def _namespaces(kind: str, given: Sequence[_Namespace] | None) -> tuple[Namespace, ...]:
    if given is not None and len(given) > MAX_NAMESPACES:
        raise _Problem(f"namespaces.{kind}: there may be {MAX_NAMESPACES} of them")
    namespaces = []
    for index, namespace in enumerate(given or ()):
        where = f"namespaces.{kind}[{index}].regex"
        if not 0 < len(namespace.regex) <= MAX_REGEX_CHARS:
            raise _Problem(f"{where}: must have 1 to {MAX_REGEX_CHARS} characters")
        try:
            pattern = re.compile(namespace.regex)
        except (re.error, RecursionError, OverflowError) as error:
            raise _Problem(f"{where}: is no regular expression: {error}") from None
        namespaces.append(Namespace(pattern, namespace.exclusive))
    return tuple(namespaces)


def _worded(message: str) -> str:
    """msgspec's complaint, `Expected … - at `$.a.b``, with the key first."""
    complaint, found, where = message.partition(" - at `")
    key = where.rstrip("`").removeprefix("$").lstrip(".") if found else ""
    complaint = complaint.replace("`", "")
    return f"{key}: {complaint}" if key else complaint

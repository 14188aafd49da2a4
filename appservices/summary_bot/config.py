"""Every option of the bot, and the only reader of its configuration file.

Strict: an unknown key, a wrong type or a value out of its bounds is refused with its path. Secrets never stand in the
file: they are `{file: path}` or `{env: NAME}`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import yaml
from msgspec import Meta, Struct, field

from appservices.summary_bot.secret import Address, Secret, read_secret

MAX_CONFIG_BYTES = 1024 * 1024
MAX_AVATAR_BYTES = 2 * 1024 * 1024
AVATAR_TYPES = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".webp": "image/webp"}
MIN_ENCRYPTION_KEY_CHARACTERS = 32

Name = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9_-]{0,31}$")]
Positive = Annotated[int, Meta(ge=1, le=2**53 - 1)]
Count = Annotated[int, Meta(ge=0, le=2**53 - 1)]
Price = Annotated[float, Meta(ge=0, le=1e6)]
Days = Annotated[int, Meta(ge=1, le=3650)]
HttpUrl = Annotated[str, Meta(pattern=r"^https?://[^\s/?#]+[^\s?#]*$", max_length=1000)]


class ConfigError(Exception):
    """What is wrong with the configuration, in a line for the administrator."""


class Options(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The base of every section: unknown keys are refused."""


class Homeserver(Options, frozen=True):
    """The server that the bot works beside."""

    url: HttpUrl
    domain: Annotated[str, Meta(min_length=1, max_length=230)]


class Appservice(Options, frozen=True):
    """How the homeserver reaches the bot, and where programs reach its HTTP API."""

    registration: str = "registration.yaml"
    address: str = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535)] = 29330
    url: HttpUrl | None = None
    """Under which address the homeserver sees the listener; null for `http://address:port`."""
    id: Name = "weft-summary-bot"
    localpart: Annotated[str, Meta(pattern=r"^[a-z0-9._=/+-]{1,100}$")] = "summary"


class DatabaseOptions(Options, frozen=True):
    """PostgreSQL. The bot keeps to a schema of its own."""

    url: Address
    schema: Annotated[str, Meta(pattern=r"^[a-z_][a-z0-9_]{0,62}$")] = "summary_bot"
    max_connections: Annotated[int, Meta(ge=2, le=100)] = 4


class Limits(Options, frozen=True):
    """What one request may cost, and how much may wait."""

    max_messages: Annotated[int, Meta(ge=10, le=100_000)] = 10_000
    max_queued: Annotated[int, Meta(ge=1, le=100_000)] = 1000
    max_queued_per_person: Annotated[int, Meta(ge=1, le=1000)] = 5
    workers: Annotated[int, Meta(ge=1, le=64)] = 4
    answer_timeout_ms: Annotated[int, Meta(ge=1000, le=3_600_000)] = 300_000
    keep_days: Days = 30
    """How long cached facts and the sources of answers are kept at most."""
    keep_usage_days: Days = 90
    """How long it is kept what calls of models cost, and whose they were."""
    keep_audit_days: Days = 365
    """How long it is kept who turned the bot on, off, and the like."""


class ModelOptions(Options, frozen=True):
    """A model of a provider, and its prices per million tokens in the budget's currency."""

    name: Annotated[str, Meta(min_length=1, max_length=200)]
    input_price: Price = 0.0
    output_price: Price = 0.0
    context_tokens: Annotated[int, Meta(ge=1000, le=10_000_000)] = 32_000


class Provider(Options, frozen=True):
    """An address that speaks the OpenAI API."""

    name: Name
    base_url: HttpUrl
    model: ModelOptions
    api_key: Secret | None = None
    local: bool = False
    """Whether it keeps what it is given on machines of the administrator: rooms can be kept to such models."""
    structured: Literal["json_schema", "json_object", "none"] = "json_schema"
    stream: bool = True
    try_timeout_ms: Annotated[int, Meta(ge=100, le=3_600_000)] = 60_000
    tries: Annotated[int, Meta(ge=1, le=10)] = 3
    transcription_model: str | None = None
    headers: dict[str, str] = {}


class Budgets(Options, frozen=True):
    """What may be spent in a day (UTC); null for no bound."""

    currency: Annotated[str, Meta(max_length=8)] = "USD"
    person_tokens: Count | None = 500_000
    room_tokens: Count | None = 2_000_000
    server_tokens: Count | None = 10_000_000
    person_cost: Price | None = None
    room_cost: Price | None = None
    server_cost: Price | None = None


class Role(Options, frozen=True):
    """A manner of speaking: how the model is asked to write, never what it may do."""

    name: Name
    description: Annotated[str, Meta(max_length=200)]
    prompt: Annotated[str, Meta(max_length=2000)]
    avatar_url: Annotated[str, Meta(pattern=r"^mxc://[^/]+/[A-Za-z0-9_-]+$")] | None = None
    """What the bot looks like where the role is in use: a file of the homeserver, or one of this machine."""
    avatar_file: Annotated[str, Meta(min_length=1, max_length=1000)] | None = None


class Encryption(Options, frozen=True):
    """What makes the bot read and write in encrypted rooms; without it, it refuses them."""

    key: Secret
    """Under which the bot's keys are kept in the database: at least 32 characters of chance."""
    device_name: Annotated[str, Meta(min_length=1, max_length=100)] = "Summary bot"
    any_models: bool = False
    """Whether what stands in encrypted rooms may be given to providers that are not local."""
    keep_keys_days: Annotated[int, Meta(ge=1, le=3650)] = 90
    """How long the keys of messages are kept: what is older cannot be read any more."""


class Logging(Options, frozen=True):
    """The bot's log lines, on standard error."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"


class Config(Options, frozen=True):
    """The whole configuration."""

    homeserver: Homeserver
    database: DatabaseOptions
    appservice: Appservice = field(default_factory=Appservice)
    display_name: Annotated[str, Meta(min_length=1, max_length=100)] = "Summary"
    administrators: tuple[str, ...] = ()
    """Users who see everyone's usage and set budgets."""
    limits: Limits = field(default_factory=Limits)
    providers: tuple[Provider, ...] = ()
    budgets: Budgets = field(default_factory=Budgets)
    roles: tuple[Role, ...] = ()
    encryption: Encryption | None = None
    permalink_base: HttpUrl = "https://matrix.to/#"
    logging: Logging = field(default_factory=Logging)

    @property
    def user_id(self) -> str:
        return f"@{self.appservice.localpart}:{self.homeserver.domain}"

    @property
    def public_url(self) -> str:
        """Where the homeserver finds the bot."""
        return self.appservice.url or f"http://{self.appservice.address}:{self.appservice.port}"


class Registration(Struct, frozen=True, kw_only=True):
    """What the bot needs of its registration file.

    https://spec.matrix.org/v1.19/application-service-api/#registration
    """

    id: str
    as_token: Annotated[str, Meta(min_length=16)]
    hs_token: Annotated[str, Meta(min_length=16)]
    sender_localpart: str
    is_told_of_devices: bool = field(default=False, name="org.matrix.msc3202")
    """Whether it asks for what encryption needs: https://github.com/matrix-org/matrix-spec-proposals/pull/3202"""


def load_config(path: Path, env: Mapping[str, str] = os.environ) -> Config:
    """The configuration in a YAML file. Raises ConfigError."""
    return parse_config(_read_yaml(path), path.parent, env)


def parse_config(raw: object, base_dir: Path, env: Mapping[str, str] = os.environ) -> Config:
    """The configuration in a parsed document; relative paths start at `base_dir`. Raises ConfigError."""

    def decode(kind: type[Any], value: object) -> object:
        if issubclass(kind, Secret):
            return read_secret(kind, value, base_dir, env)
        raise TypeError(f"no option has the type {kind.__name__}")

    try:
        config = msgspec.convert(raw, Config, dec_hook=decode, strict=True)
    except msgspec.ValidationError as error:
        raise ConfigError(str(error).replace("`$.", "`").replace("$", "the configuration")) from None
    _check(config)
    registration = str(base_dir / config.appservice.registration)
    return msgspec.structs.replace(
        config,
        appservice=msgspec.structs.replace(config.appservice, registration=registration),
        roles=tuple(_with_avatar(role, base_dir) for role in config.roles),
    )


def _with_avatar(role: Role, base_dir: Path) -> Role:
    """The role with the whole path of its avatar. Raises ConfigError for one that is no picture, or too large."""
    if role.avatar_file is None:
        return role
    if role.avatar_url is not None:
        raise ConfigError(f"roles: {role.name} has both avatar_url and avatar_file")
    path = base_dir / role.avatar_file
    try:
        size = path.stat().st_size
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    if path.suffix.lower() not in AVATAR_TYPES or size > MAX_AVATAR_BYTES:
        kinds = ", ".join(AVATAR_TYPES)
        raise ConfigError(f"{path}: an avatar is one of {kinds}, of at most {MAX_AVATAR_BYTES} bytes")
    return msgspec.structs.replace(role, avatar_file=str(path))


def with_homeserver(config: Config, url: str) -> Config:
    """The configuration with the homeserver at another address. Raises ConfigError."""
    try:
        homeserver = msgspec.convert({"url": url, "domain": config.homeserver.domain}, Homeserver)
    except msgspec.ValidationError:
        raise ConfigError(f"--homeserver: {url} is no address of a server") from None
    return msgspec.structs.replace(config, homeserver=homeserver)


def _check(config: Config) -> None:
    names = [provider.name for provider in config.providers]
    if len(set(names)) < len(names):
        raise ConfigError("providers: two have the same name")
    for header in {name for provider in config.providers for name in provider.headers}:
        if header.lower() in ("authorization", "api-key", "x-api-key"):
            raise ConfigError(f"providers: the header {header} is a secret: use api_key")
    encryption = config.encryption
    if encryption is not None and len(encryption.key.reveal()) < MIN_ENCRYPTION_KEY_CHARACTERS:
        raise ConfigError(f"encryption.key: has to have {MIN_ENCRYPTION_KEY_CHARACTERS} characters at least")
    for administrator in config.administrators:
        if not re.fullmatch(r"@[^\s:]+:[^\s]+", administrator):
            raise ConfigError(f"administrators: {administrator!r} is no user ID")


def load_registration(path: Path) -> Registration:
    """The registration file, which homeserver and bot share. Raises ConfigError."""
    try:
        return msgspec.convert(_read_yaml(path), Registration)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{path}: {error}") from None


def check_registration(config: Config, registration: Registration) -> None:
    """Whether the registration asks for what the configuration needs. Raises ConfigError."""
    if config.encryption is not None and not registration.is_told_of_devices:
        raise ConfigError(
            f"{config.appservice.registration}: encryption needs the lines `org.matrix.msc3202: true` and"
            " `io.element.msc4190: true` in it: add them here and to the homeserver's copy"
        )


def _read_yaml(path: Path) -> object:
    try:
        with path.open("rb") as file:
            text = file.read(MAX_CONFIG_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    if len(text) > MAX_CONFIG_BYTES:
        raise ConfigError(f"{path}: longer than {MAX_CONFIG_BYTES} bytes")
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        where = getattr(error, "problem_mark", None)
        raise ConfigError(f"{path}: not YAML" + (f", line {where.line + 1}" if where else "")) from None

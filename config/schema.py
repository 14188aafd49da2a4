"""Every option of the homeserver: its type, its default and one line on what it is for.

The dataclasses are plain values: nothing here reads a file, the environment or the clock (`config.load` does), so a
test or a program makes a `Config` by hand with `dataclasses.replace`. Defaults that depend on other options are None
here and come resolved from the properties of `Config`. `config.document` writes the manual from this module.
"""

# ruff: noqa: RUF009 -- `option` is a `dataclasses.field`, and every default given to it is immutable.

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from config import checks
from config.declare import REQUIRED, option
from config.email import Email
from config.media import S3, Media
from config.secret import Secret

IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network
Resource = Literal["client", "federation", "media", "metrics", "health"]
JwtAlgorithm = Literal["HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "ES256", "ES384", "EdDSA"]
RegistrationMode = Literal["off", "open", "token"]
LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR"]
LogFormat = Literal["json", "console"]


@dataclass(frozen=True, slots=True)
class Listener:
    """An address that the server answers on."""

    address: str = option("127.0.0.1", "IP address to bind; `0.0.0.0` or `::` for all.", check=checks.check_ip_address)
    port: int | None = option(8008, "TCP port.", minimum=1, maximum=65535)
    unix_socket: Path | None = option(None, "Listen on this Unix socket, instead of on `address` and `port`.")
    tls_certificate: Path | None = option(None, "PEM certificate chain; serves TLS.", must_exist=True)
    tls_key: Path | None = option(None, "PEM private key of the certificate.", must_exist=True)
    resources: frozenset[Resource] = option(
        frozenset({"client", "federation", "media", "health"}), "What is served here.", check_all=checks.check_not_empty
    )

    @property
    def endpoint(self) -> str:
        """What it binds, for people: the socket's path or `address:port`."""
        if self.unix_socket is not None:
            return str(self.unix_socket)
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"

    def problems(self) -> Iterator[tuple[str, str]]:
        """What is wrong between options: pairs of a key and a complaint."""
        if self.port is None and self.unix_socket is None:
            yield "port", "must be set unless unix_socket is"
        if (self.tls_certificate is None) != (self.tls_key is None):
            missing, given = ("tls_certificate", "tls_key") if self.tls_key else ("tls_key", "tls_certificate")
            yield missing, f"must be set too when {given} is"
        if self.unix_socket is not None and self.tls_certificate is not None:
            yield "tls_certificate", "cannot be used with unix_socket"


@dataclass(frozen=True, slots=True)
class Database:
    """PostgreSQL, the only store. Without a URL the server runs one of its own."""

    url: str | None = option(
        None,
        "Connection URL, `postgresql://user:password@host/name`; null runs an embedded one in `data_dir`/postgres.",
        check=checks.check_database_url,
        secret=True,
    )
    max_connections: int = option(10, "Connections that one process holds at most.", minimum=2, maximum=1000)
    connect_timeout_ms: int = option(10_000, "How long to try for a connection.", minimum=1)
    statement_timeout_ms: int = option(60_000, "How long one statement may run; 0 for ever.", minimum=0)


@dataclass(frozen=True, slots=True)
class Redis:
    """Wake-ups and cache invalidation between processes. One process alone needs none."""

    url: str | None = option(
        None, "Connection URL, `redis://host:6379/0`; null for none.", check=checks.check_redis_url, secret=True
    )


@dataclass(frozen=True, slots=True)
class OldKey:
    """A signing key that is no longer used, published so that old events still verify."""

    key_id: str = option(REQUIRED, "Identifier, such as `ed25519:a_1`.", check=checks.check_key_id)
    public_key: str = option(REQUIRED, "Public key in unpadded base64.", check=checks.check_public_key)
    expired_ts: int = option(REQUIRED, "When its use ended, in milliseconds since the epoch.", minimum=0)


@dataclass(frozen=True, slots=True)
class Signing:
    """The keys that the server signs events and requests with."""

    key_file: Path | None = option(
        None, "The signing key, made on the first start; null for `data_dir`/signing.key. Back it up."
    )
    old_keys: tuple[OldKey, ...] = option((), "Former keys, to publish as `old_verify_keys`.")


@dataclass(frozen=True, slots=True)
class Policy:
    """A document that people accept when they register."""

    policy_id: str = option(REQUIRED, "Its name for programs, such as `terms_of_service`.", check=checks.check_opaque)
    version: str = option(REQUIRED, "Its version.", check=checks.check_opaque)
    name: str = option(REQUIRED, "Its title.")
    url: str = option(REQUIRED, "Where it can be read.", check=checks.check_http_url)
    language: str = option(
        "en", "Its language; the same `policy_id` and `version` again for others.", check=checks.check_language
    )


@dataclass(frozen=True, slots=True)
class Registration:
    """Who may make an account."""

    mode: RegistrationMode = option("off", "Nobody (`off`), everybody (`open`), or holders of a token (`token`).")
    tokens: tuple[Secret, ...] = option(
        (),
        "Registration tokens, each good for any number of accounts; `weft registration-token` makes others.",
        secret=True,
    )
    policies: tuple[Policy, ...] = option((), "What people have to accept.", check_all=checks.check_policies)
    require_email: bool = option(False, "Whether an account takes an e-mail address that is confirmed.")
    shared_secret: Secret | None = option(
        None, "Lets tools that know it register users, administrators too, in every mode; null for none.", secret=True
    )


@dataclass(frozen=True, slots=True)
class SessionLifetimes:
    """How long a client stays logged in. Null is for ever."""

    access_token_ms: int | None = option(
        None, "Lifetime of an access token of a client that does not ask for a refresh token.", minimum=1000
    )
    refreshable_access_token_ms: int | None = option(
        300_000, "Lifetime of an access token that comes with a refresh token.", minimum=1000
    )
    refresh_token_ms: int | None = option(None, "Lifetime of a refresh token that is not used.", minimum=1000)


@dataclass(frozen=True, slots=True)
class JwtLogin:
    """Logins with a JSON Web Token that another service has signed, login type `org.matrix.login.jwt`."""

    enabled: bool = option(False, "Whether such logins are accepted.")
    algorithm: JwtAlgorithm = option("HS256", "How tokens are signed; no other algorithm is accepted.")
    secret: Secret | None = option(None, "The key for `HS…` algorithms.", secret=True)
    public_key_file: Path | None = option(None, "PEM public key for all others.", must_exist=True)
    issuer: str | None = option(None, "What the `iss` claim has to be; null for anything or none.")
    audiences: tuple[str, ...] = option((), "One of these has to be in the `aud` claim; none for any.")
    subject_claim: str = option("sub", "The claim with the local part of the user ID.")
    create_users: bool = option(False, "Whether an account is made for a user who has none.")

    def problems(self) -> Iterator[tuple[str, str]]:
        """What is wrong between options: pairs of a key and a complaint."""
        if not self.enabled:
            return
        if self.algorithm.startswith("HS"):
            if self.secret is None:
                yield "secret", f"must be set when algorithm is {self.algorithm}"
        elif self.public_key_file is None:
            yield "public_key_file", f"must be set when algorithm is {self.algorithm}"


@dataclass(frozen=True, slots=True)
class Contact:
    """Somebody who looks after the server."""

    role: str = option("m.role.admin", "`m.role.admin` or `m.role.security`.", check=checks.check_contact_role)
    matrix_id: str | None = option(None, "User ID, best on another server too.", check=checks.check_user_id)
    email_address: str | None = option(None, "E-mail address.")

    def problems(self) -> Iterator[tuple[str, str]]:
        """What is wrong between options: pairs of a key and a complaint."""
        if self.matrix_id is None and self.email_address is None:
            yield "matrix_id", "must be set unless email_address is"


@dataclass(frozen=True, slots=True)
class Support:
    """Whom users turn to, published in `/.well-known/matrix/support`."""

    contacts: tuple[Contact, ...] = option((), "People to contact.")
    page: str | None = option(None, "URL of a page with help.", check=checks.check_http_url)


@dataclass(frozen=True, slots=True)
class Turn:
    """The TURN server that calls go through where clients cannot reach each other."""

    uris: tuple[str, ...] = option((), "Such as `turn:turn.example.org?transport=udp`.", check=checks.check_turn_uri)
    shared_secret: Secret | None = option(
        None, "Shared with the TURN server, to make credentials that expire (`use-auth-secret`).", secret=True
    )
    username: str | None = option(None, "Fixed user name, where there is no `shared_secret`.")
    password: Secret | None = option(None, "Password of `username`.", secret=True)
    lifetime_ms: int = option(24 * 3600 * 1000, "How long credentials are good for.", minimum=60_000)

    def problems(self) -> Iterator[tuple[str, str]]:
        """What is wrong between options: pairs of a key and a complaint."""
        if self.uris and self.shared_secret is None and (self.username is None or self.password is None):
            yield "shared_secret", "must be set when uris are, unless username and password are"


@dataclass(frozen=True, slots=True)
class RateLimit:
    """A token bucket: `burst` actions at once, refilled at `per_second`."""

    per_second: float = option(1.0, "Actions per second in the long run.", minimum=0.0001, maximum=1_000_000)
    burst: int = option(10, "Actions that may come at once.", minimum=1, maximum=1_000_000)


@dataclass(frozen=True, slots=True)
class RateLimits:
    """A limit for each kind of action."""

    enabled: bool = option(True, "Whether any of the limits below apply.")
    login: RateLimit | None = option(RateLimit(0.5, 10), "Logins, per address.")
    login_failed: RateLimit | None = option(RateLimit(0.1, 5), "Failed logins, per account.")
    registration: RateLimit | None = option(RateLimit(0.1, 5), "Registrations, per address.")
    email: RateLimit | None = option(
        RateLimit(0.002, 5), "Mails asked for to confirm an address, per address of the network and of the mail."
    )
    login_token: RateLimit | None = option(RateLimit(0.02, 3), "Tokens for logging in on another device, per user.")
    credentials: RateLimit | None = option(
        RateLimit(0.5, 10), "Refreshed sessions, OpenID tokens and TURN credentials, per session or user."
    )
    pusher: RateLimit | None = option(RateLimit(0.1, 30), "Pushers set, per user.")
    report: RateLimit | None = option(RateLimit(0.1, 10), "Reports to the administrators, per user.")
    message: RateLimit | None = option(RateLimit(5.0, 50), "Events sent, per user.")
    join: RateLimit | None = option(RateLimit(0.5, 10), "Joins and knocks, per user.")
    invite: RateLimit | None = option(RateLimit(0.3, 10), "Invites sent, per user.")
    room_creation: RateLimit | None = option(RateLimit(0.1, 10), "Rooms created, per user.")
    media_upload: RateLimit | None = option(RateLimit(2.0, 30), "Uploads, per user.")
    media_download: RateLimit | None = option(
        RateLimit(100.0, 1000), "Files and thumbnails fetched, per user, or per address where no user is known."
    )
    url_preview: RateLimit | None = option(RateLimit(1.0, 20), "Previews of web pages, per user.")
    presence: RateLimit | None = option(RateLimit(0.5, 10), "Changes of presence made by hand, per user.")
    search: RateLimit | None = option(RateLimit(1.0, 10), "Searches, of messages, users and rooms, per user.")
    request: RateLimit | None = option(
        RateLimit(20.0, 100), "All other requests that the specification wants limited, per user."
    )
    federation: RateLimit | None = option(RateLimit(50.0, 200), "Federation requests, per server.")


# Nothing that only this machine or its own network reaches, and nothing that is no single host of the Internet:
# https://www.iana.org/assignments/iana-ipv4-special-registry and its IPv6 sister.
_DENIED_IP_RANGES = tuple(
    ipaddress.ip_network(text)
    for text in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/3",
        "::/127",
        "::ffff:0:0/96",
        "64:ff9b:1::/48",
        "100::/64",
        "2001:db8::/32",
        "2002::/16",
        "fc00::/7",
        "fe80::/10",
        "fec0::/10",
        "ff00::/8",
    )
)


@dataclass(frozen=True, slots=True)
class Federation:
    """Traffic with other homeservers."""

    enabled: bool = option(True, "Whether to talk with other servers at all.")
    allowed_ip_ranges: tuple[IpNetwork, ...] = option((), "Networks to connect to even if they are denied below.")
    denied_ip_ranges: tuple[IpNetwork, ...] = option(_DENIED_IP_RANGES, "Networks never to connect to.")
    custom_ca_file: Path | None = option(None, "PEM certificates to trust besides the system's own.", must_exist=True)
    trusted_key_servers: tuple[str, ...] = option(
        (), "Servers to ask for the keys of servers that do not answer.", check=checks.check_server_name
    )
    connect_timeout_ms: int = option(10_000, "How long connecting to a server may take.", minimum=1)
    request_timeout_ms: int = option(
        60_000, "How long a request to a server may take, and the body of one from a server.", minimum=1
    )
    max_concurrent_requests: int = option(
        10, "Requests to one server at a time; others wait for their turn.", minimum=1
    )
    max_concurrent_destinations: int = option(50, "Servers that events are sent to at a time.", minimum=1)
    min_retry_interval_ms: int = option(
        5_000, "First wait before a server that is down is tried again; each further one is twice as long.", minimum=100
    )
    max_retry_interval_ms: int = option(
        3600 * 1000, "Longest wait before a server that is down is tried again.", minimum=1000
    )
    keep_unsent_ms: int = option(
        30 * 24 * 3600 * 1000,
        "How long what a server that is down was not sent is kept for it: it fetches older events itself.",
        minimum=60_000,
    )
    max_request_bytes: int = option(16 * 1024 * 1024, "Largest request body taken from a server.", minimum=65_536)
    max_response_bytes: int = option(128 * 1024 * 1024, "Largest answer read from a server.", minimum=65_536)

    def problems(self) -> Iterator[tuple[str, str]]:
        """What is wrong between options: pairs of a key and a complaint."""
        if self.min_retry_interval_ms > self.max_retry_interval_ms:
            yield "min_retry_interval_ms", f"must not be above max_retry_interval_ms, {self.max_retry_interval_ms}"


@dataclass(frozen=True, slots=True)
class Push:
    """Notifications to push gateways, which users' clients name."""

    allow_http: bool = option(False, "Whether a gateway may be reached by plain HTTP. The specification forbids it.")
    allowed_ip_ranges: tuple[IpNetwork, ...] = option((), "Networks to connect to even if they are denied below.")
    denied_ip_ranges: tuple[IpNetwork, ...] = option(_DENIED_IP_RANGES, "Networks never to connect to.")
    max_pushers_per_user: int = option(50, "Pushers that one user may have.", minimum=1, maximum=1000)
    request_timeout_ms: int = option(20_000, "How long a request to a gateway may take.", minimum=1)
    min_retry_interval_ms: int = option(
        1_000, "Wait before a push that failed is tried again; it doubles with each failure.", minimum=1
    )
    max_retry_interval_ms: int = option(3600 * 1000, "Longest such wait.", minimum=1)
    give_up_after_ms: int = option(24 * 3600 * 1000, "Age from which an event is not pushed any more.", minimum=1)

    def problems(self) -> Iterator[tuple[str, str]]:
        """What is wrong between options: pairs of a key and a complaint."""
        if self.min_retry_interval_ms > self.max_retry_interval_ms:
            yield "min_retry_interval_ms", f"must not be above max_retry_interval_ms, {self.max_retry_interval_ms}"


@dataclass(frozen=True, slots=True)
class Logging:
    """What is written to standard error."""

    level: LogLevel = option("INFO", "Least severe level that is written; requests are logged at `DEBUG`.")
    format: LogFormat = option("json", "One JSON object a line (`json`), or lines for people (`console`).")


@dataclass(frozen=True, slots=True)
class Rooms:
    """New rooms."""

    default_version: str = option("12", "Room version of a room made without one.", check=checks.check_room_version)


@dataclass(frozen=True, slots=True)
class Presence:
    """Who is online."""

    enabled: bool = option(True, "Whether members of a room see when the others are online.")


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on what one request may ask for."""

    max_request_bytes: int = option(
        8 * 1024 * 1024, "Largest request body that is not an upload.", minimum=65_536, maximum=2**31
    )
    max_sync_timeout_ms: int = option(120_000, "Longest that a `/sync` waits for news.", minimum=0)
    default_timeline_events: int = option(10, "Timeline events per room in `/sync` when no filter says.", minimum=1)
    max_timeline_events: int = option(500, "Most timeline events per room in `/sync`.", minimum=1)
    max_page_events: int = option(1000, "Most events in one answer of `/messages` and its like.", minimum=1)

    def problems(self) -> Iterator[tuple[str, str]]:
        """What is wrong between options: pairs of a key and a complaint."""
        if self.default_timeline_events > self.max_timeline_events:
            yield "default_timeline_events", f"must not be above max_timeline_events, {self.max_timeline_events}"


@dataclass(frozen=True, slots=True)
class Caches:
    """How many entries the caches of one process keep."""

    rooms: int = option(2_000, "Rooms kept ready to send into.", minimum=16)
    events: int = option(20_000, "Events, as they were sent.", minimum=16)
    snapshots: int = option(500, "Room states at points in the past.", minimum=16)
    tokens: int = option(10_000, "Access tokens.", minimum=16)
    users: int = option(10_000, "Profiles, push rules and the like of a user.", minimum=16)
    server_keys: int = option(5_000, "Keys of other servers.", minimum=16)


# A proxy on the same machine, unless the administrator names others.
_LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))

_DEFAULT_LISTENERS = (Listener(), Listener(port=9108, resources=frozenset({"metrics", "health"})))


@dataclass(frozen=True, slots=True)
class Config:
    """The whole configuration of a homeserver."""

    server_name: str = option(
        "localhost",
        "Name that users and rooms carry after the colon. It can never be changed.",
        check=checks.check_server_name,
    )
    public_base_url: str | None = option(
        None,
        "URL at which clients reach the server; null for `https://` and `server_name`.",
        check=checks.check_http_url,
    )
    data_dir: Path = option(Path("weft-data"), "Where the server keeps its files.")
    listeners: tuple[Listener, ...] = option(
        _DEFAULT_LISTENERS, "Addresses that the server answers on.", check_all=checks.check_listeners
    )
    trusted_proxies: tuple[IpNetwork, ...] = option(
        _LOOPBACK, "Networks of reverse proxies, whose word in `X-Forwarded-For` is taken for a client's address."
    )
    database: Database = option(Database(), "")
    redis: Redis = option(Redis(), "")
    media: Media = option(Media(), "")
    s3: S3 = option(S3(), "")
    signing: Signing = option(Signing(), "")
    registration: Registration = option(Registration(), "")
    sessions: SessionLifetimes = option(SessionLifetimes(), "")
    jwt_login: JwtLogin = option(JwtLogin(), "")
    support: Support = option(Support(), "")
    turn: Turn = option(Turn(), "")
    appservices: tuple[Path, ...] = option(
        (),
        "Registration files of application services, beside those in `data_dir`/appservices.",
        must_exist=True,
        check_all=checks.check_distinct,
    )
    rate_limits: RateLimits = option(
        RateLimits(),
        "How often a user, an address or a server may do a thing: `burst` times at once, and `per_second` in the long "
        "run. A limit set to null is off.",
    )
    federation: Federation = option(Federation(), "")
    push: Push = option(Push(), "")
    email: Email = option(Email(), "")
    logging: Logging = option(Logging(), "")
    rooms: Rooms = option(Rooms(), "")
    presence: Presence = option(Presence(), "")
    limits: Limits = option(Limits(), "")
    caches: Caches = option(Caches(), "")

    def problems(self) -> Iterator[tuple[str, str]]:
        """What is wrong between options: pairs of a key and a complaint."""
        if self.registration.require_email and self.email.host is None:
            yield "registration.require_email", "must not be set unless email.host is"

    @property
    def base_url(self) -> str:
        """`public_base_url` without a slash at its end, or what stands for it: `https://` and the server name.

        A server on a machine of its own (`localhost`) is reached at its first client listener, which is plain HTTP
        unless it has a certificate.
        """
        if self.public_base_url is not None:
            return self.public_base_url.rstrip("/")
        if self.server_name == "localhost":
            for listener in self.listeners:
                if "client" in listener.resources and listener.unix_socket is None:
                    scheme = "http" if listener.tls_certificate is None else "https"
                    return f"{scheme}://localhost:{listener.port}"
        return f"https://{self.server_name}"

    @property
    def postgres_dir(self) -> Path:
        """Where the embedded PostgreSQL lives when `database.url` is None."""
        return self.data_dir / "postgres"

    @property
    def media_dir(self) -> Path:
        """`media.directory`, or what stands for it."""
        return self.media.directory or self.data_dir / "media"

    @property
    def appservices_dir(self) -> Path:
        """Where registration files of application services are picked up, beside those that `appservices` names."""
        return self.data_dir / "appservices"

    @property
    def signing_key_file(self) -> Path:
        """`signing.key_file`, or what stands for it."""
        return self.signing.key_file or self.data_dir / "signing.key"

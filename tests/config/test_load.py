"""Loading: defaults, files, overrides by the environment, secrets."""

import ipaddress
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from config.load import ConfigError, load_config, parse_config, unknown_variables
from config.options import Option, environment_variables, is_group, options_of
from config.schema import Config, Listener, RateLimit
from config.secret import Secret

HERE = Path("/srv/weft")


def parse(raw: object, env: Mapping[str, str] | None = None, base_dir: Path = HERE) -> Config:
    return parse_config(raw, base_dir, env or {})


def problems_of(raw: object, env: Mapping[str, str] | None = None, base_dir: Path = HERE) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        parse(raw, env, base_dir)
    return caught.value.problems


# --- what is accepted ---


@pytest.mark.parametrize("raw", [{}, None, {"database": None}, {"limits": {}}])
def test_what_is_left_out_has_its_default(raw: object) -> None:
    assert parse(raw, base_dir=Path()) == Config()


def test_reads_every_kind_of_option(tmp_path: Path) -> None:
    (tmp_path / "bridge.yaml").touch()
    config = parse(
        {
            "server_name": "[2001:db8::1]:8448",
            "listeners": [
                {"address": "::", "port": 80, "resources": ["health", "client", "health"]},
                {"unix_socket": "weft.sock", "port": None},
            ],
            "signing": {"old_keys": [{"key_id": "ed25519:a", "public_key": "A" * 43, "expired_ts": 5}]},
            "registration": {"mode": "TOKEN", "tokens": ["one", "two"]},
            "appservices": ["bridge.yaml"],
            "rate_limits": {"login": None, "message": {"burst": 7}, "join": {"per_second": 2}},
            "federation": {"enabled": False, "allowed_ip_ranges": ["10.1.0.0/16", "fd00::/8"]},
            "logging": {"level": "debug"},
            "rooms": {"default_version": "11"},
        },
        base_dir=tmp_path,
    )
    assert config.server_name == "[2001:db8::1]:8448"
    assert config.listeners[0] == Listener("::", 80, resources=frozenset({"health", "client"}))
    assert config.listeners[1].endpoint == str(tmp_path / "weft.sock")
    assert config.signing.old_keys[0].expired_ts == 5
    assert config.registration.mode == "token"
    assert config.registration.tokens == (Secret("one"), Secret("two"))
    assert config.appservices == (tmp_path / "bridge.yaml",)
    assert config.rate_limits.login is None
    assert config.rate_limits.message == RateLimit(Config().rate_limits.message.per_second, 7)  # type: ignore[union-attr]
    assert config.rate_limits.join == RateLimit(2.0, 10)
    assert config.federation.allowed_ip_ranges == (
        ipaddress.ip_network("10.1.0.0/16"),
        ipaddress.ip_network("fd00::/8"),
    )
    assert config.logging.level == "DEBUG"
    assert config.rooms.default_version == "11"


def test_relative_paths_start_at_the_file(tmp_path: Path) -> None:
    file = tmp_path / "weft.yaml"
    file.write_text("media: {directory: files}\nsigning: {key_file: /etc/key}\n")
    config = load_config(file, {})
    assert config.data_dir == tmp_path / "weft-data"
    assert config.postgres_dir == tmp_path / "weft-data" / "postgres"
    assert config.media_dir == tmp_path / "files"
    assert config.signing_key_file == Path("/etc/key")


def test_paths_left_out_lie_in_the_data_directory() -> None:
    config = parse({"data_dir": "/var/lib/weft"})
    assert config.media_dir == Path("/var/lib/weft/media")
    assert config.signing_key_file == Path("/var/lib/weft/signing.key")


def test_needs_no_file() -> None:
    assert load_config(None, {"WEFT_SERVER_NAME": "example.org"}) == Config(server_name="example.org")


@pytest.mark.parametrize(
    ("raw", "base_url"),
    [
        ({}, "http://localhost:8008"),
        ({"server_name": "example.org"}, "https://example.org"),
        ({"server_name": "example.org:8448"}, "https://example.org:8448"),
        ({"public_base_url": "https://matrix.example.org/"}, "https://matrix.example.org"),
        ({"listeners": [{"port": 1, "resources": ["health"]}, {"port": 2}]}, "http://localhost:2"),
        ({"listeners": [{"unix_socket": "/run/weft"}]}, "https://localhost"),
    ],
)
def test_says_where_clients_reach_it(raw: object, base_url: str) -> None:
    assert parse(raw).base_url == base_url


def test_a_certificate_makes_the_local_address_https(tmp_path: Path) -> None:
    for name in ("cert.pem", "key.pem"):
        (tmp_path / name).touch()
    listener = {"tls_certificate": "cert.pem", "tls_key": "key.pem"}
    assert parse({"listeners": [listener]}, base_dir=tmp_path).base_url == "https://localhost:8008"


@pytest.mark.parametrize("url", ["redis://cache", "rediss://:pw@cache:6380/1", "unix:///run/redis.sock"])
def test_redis_is_reached_by_network_or_socket(url: str) -> None:
    assert parse({"redis": {"url": url}}).redis.url == url


@pytest.mark.parametrize("address", ["127.0.0.1", "10.9.8.7", "169.254.169.254", "::1", "fe80::1", "fd00::1"])
def test_denies_private_addresses_by_default(address: str) -> None:
    ip = ipaddress.ip_address(address)
    assert any(ip in network for network in Config().federation.denied_ip_ranges)


@pytest.mark.parametrize("address", ["1.1.1.1", "151.101.1.1", "2606:4700::1111"])
def test_denies_no_public_addresses_by_default(address: str) -> None:
    ip = ipaddress.ip_address(address)
    assert not any(ip in network for network in Config().federation.denied_ip_ranges)


# --- the environment ---


def scalar_options(group: type, prefix: str = "") -> list[tuple[str, Option]]:
    found = []
    for option in options_of(group):
        if is_group(option.hint):
            found += scalar_options(option.hint, f"{prefix}{option.name}.")
        elif option.is_scalar:
            found.append((prefix + option.name, option))
    return found


def value_at(config: Config, path: str) -> Any:
    value: Any = config
    for name in path.split("."):
        value = getattr(value, name)
    return value


def text_for(option: Option) -> tuple[str, Any]:
    """A text that sets an option to something else than its default, and the value that the text stands for."""
    if option.info.must_exist:
        return __file__, Path(__file__)
    special = {"server_name": "example.org", "public_base_url": "https://example.org", "default_version": "9"}
    special |= {"page": "https://example.org", "algorithm": "HS512"}
    special |= dict.fromkeys(("issuer", "subject_claim", "username"), "text")
    special |= dict.fromkeys(("bucket", "region", "access_key_id", "prefix"), "text")
    special |= {"endpoint": "https://example.org", "unauthenticated_until": "2026-11-25"}
    special |= {"host": "text", "app_name": "text", "tls": "tls", "from_address": "text@example.org"}
    special |= {"client_base_url": "https://example.org"}
    if option.name in special:
        return special[option.name], special[option.name]
    if option.name == "default_timeline_events":
        return "20", 20
    if option.name == "port":
        return "25", 25
    if option.name == "max_image_pixels":
        return "2000000", 2_000_000
    samples: dict[Any, tuple[str, Any]] = {
        Path: ("/elsewhere", Path("/elsewhere")),
        Secret: ("hidden", Secret("hidden")),
        float: ("0.75", 0.75),
        int: ("65537", 65537) if option.info.maximum != 1000 else ("999", 999),
        bool: (str(not option.default), not option.default),
    }
    return (
        samples.get(option.hint)
        or {
            "url": ("", None),
            "mode": ("open", "open"),
            "level": ("error", "ERROR"),
            "format": ("console", "console"),
        }[option.name]
    )


@pytest.mark.parametrize(("path", "option"), scalar_options(Config), ids=lambda value: str(value)[:50])
def test_every_scalar_option_is_overridden_by_its_variable(path: str, option: Option) -> None:
    text, expected = text_for(option)
    raw = {
        "database": {"url": "postgresql://a"},
        "redis": {"url": "redis://a"},
        "jwt_login": {"secret": "shown"},  # which it needs when it is enabled
        "email": {"host": "a", "from_address": "a@example.org", "username": "a", "password": "shown"},
    }
    assert value_at(parse(raw), path) != expected
    config = parse(raw, {"WEFT_" + path.upper().replace(".", "_"): text})
    assert value_at(config, path) == expected


def test_no_two_options_share_a_variable() -> None:
    names = list(environment_variables().values())
    assert len(names) == len(set(names))


def test_the_environment_goes_before_the_file() -> None:
    raw = {"redis": {"url": "redis://file"}, "server_name": "file.example.org", "rate_limits": {"login": None}}
    env = {"WEFT_REDIS_URL": "redis://env", "WEFT_RATE_LIMITS_LOGIN_BURST": "3"}
    config = parse(raw, env)
    assert config.redis.url == "redis://env"
    assert config.server_name == "file.example.org"
    assert config.rate_limits.login == RateLimit(Config().rate_limits.login.per_second, 3)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("WEFT_SERVER_NAME", "", "server_name (WEFT_SERVER_NAME): must not be empty"),
        ("WEFT_CACHES_ROOMS", "many", "caches.rooms (WEFT_CACHES_ROOMS): must be a whole number, got 'many'"),
        (
            "WEFT_CACHES_ROOMS",
            "9" * 5000,
            f"caches.rooms (WEFT_CACHES_ROOMS): must be a whole number, got '{'9' * 60}…'",
        ),
        (
            "WEFT_FEDERATION_ENABLED",
            "1",
            "federation.enabled (WEFT_FEDERATION_ENABLED): must be true or false, got '1'",
        ),
        (
            "WEFT_RATE_LIMITS_JOIN_PER_SECOND",
            "inf",
            "rate_limits.join.per_second (WEFT_RATE_LIMITS_JOIN_PER_SECOND): must be a number, got 'inf'",
        ),
    ],
)
def test_refuses_a_variable_by_its_name(name: str, text: str, problem: str) -> None:
    assert problems_of({}, {name: text}) == (problem,)


def test_points_out_variables_that_it_does_not_know() -> None:
    env = {"WEFT_SERVER_NAME": "a", "WEFT_SERVRE_NAME": "b", "WEFT_LISTENERS": "c", "HOME": "/"}
    assert unknown_variables(env) == ("WEFT_LISTENERS", "WEFT_SERVRE_NAME")
    assert parse({}, env).server_name == "a"


# --- secrets ---


def test_reads_secrets_from_files_and_from_the_environment(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("from file\n")
    config = parse(
        {
            "database": {"url": {"env": "DB"}},
            "redis": {"url": "redis://:plain@cache"},
            "registration": {
                "mode": "token",
                "shared_secret": {"file": "secret"},
                "tokens": [{"file": str(tmp_path / "secret")}, "plain", {"env": "TOKEN"}],
            },
        },
        {"DB": "postgresql://weft:hidden@db/weft", "TOKEN": "from env"},
        tmp_path,
    )
    assert config.database.url == "postgresql://weft:hidden@db/weft"
    assert config.registration.shared_secret is not None
    assert config.registration.shared_secret.reveal() == "from file"
    assert [token.reveal() for token in config.registration.tokens] == ["from file", "plain", "from env"]
    for secret in ("hidden", "from file", "plain", "from env"):
        assert secret not in f"{config!r} {config}"


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ({"env": "NONE"}, "the environment variable NONE is not set"),
        ({"env": "EMPTY"}, "must not be empty"),
        ({"env": 5}, "env must be a string, got 5"),
        ({"file": "none"}, "/srv/weft/none: cannot be read: No such file or directory"),
        ({"file": ""}, "file must be a string, got ''"),
        ({"file": "a\0"}, "file must be a string, got 'a\\x00'"),
        ({"file": "a", "env": "b"}, "must be a string, {file: path} or {env: NAME}"),
        ({"path": "a"}, "must be a string, {file: path} or {env: NAME}"),
        ({}, "must be a string, {file: path} or {env: NAME}"),
    ],
)
def test_refuses_a_secret_from_nowhere(source: object, problem: str) -> None:
    raw = {"registration": {"shared_secret": source}}
    assert problems_of(raw, {"EMPTY": ""}) == (f"registration.shared_secret: {problem}",)


@pytest.mark.parametrize(
    "raw",
    [
        {"database": {"url": "mysql://user:hunter2@db"}},
        {"redis": {"url": "hunter2"}},
        {"registration": {"shared_secret": ["hunter2"]}},
        {"registration": {"shared_secret": "hunter2\n2"}},
        {"registration": {"tokens": "hunter2"}},
        {"registration": {"tokens": [{"hunter2": "hunter2"}]}},
        {"registration": {"shared_secret": {"env": "MINE"}}},
    ],
)
def test_no_complaint_shows_a_secret(raw: object) -> None:
    assert "hunter2" not in "\n".join(problems_of(raw, {"MINE": "hunter2\0"}))


def test_only_secrets_come_from_elsewhere() -> None:
    assert problems_of({"server_name": {"env": "NAME"}}, {"NAME": "a"}) == (
        "server_name: must be a string, got a mapping",
    )


# --- files ---


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"server_name: a\nserver_name: b\n", "{file}, line 2: server_name is given again, first on line 1"),
        (b"redis: [\n", "{file}, line 2, column 1: "),
        (b"server_name: \xff", "{file}: is not UTF-8 text"),
        (b"#" * (1024 * 1024 + 1), "{file}: is larger than 1048576 bytes"),
        (b"- 1", "must be a mapping, got a list"),
    ],
)
def test_refuses_a_file(tmp_path: Path, content: bytes, problem: str) -> None:
    file = tmp_path / "weft.yaml"
    file.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load_config(file, {})
    assert str(caught.value).startswith(problem.format(file=file))


def test_refuses_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"weft\.yaml: cannot be read: No such file or directory"):
        load_config(tmp_path / "weft.yaml", {})

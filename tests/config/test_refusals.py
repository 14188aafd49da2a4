"""Refusals: every complaint with the path of what it is about, and nothing but complaints whatever comes."""

from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.load import ConfigError, parse_config
from config.options import is_group, options_of
from config.schema import Config

HERE = Path("/srv/weft")
KEY = "A" * 43


def parse(raw: object, env: Mapping[str, str] | None = None) -> Config:
    return parse_config(raw, HERE, env or {})


def problems_of(raw: object) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        parse(raw)
    return caught.value.problems


REFUSALS: list[tuple[object, str]] = [
    ([], "must be a mapping, got a list"),
    ("example.org", "must be a mapping, got 'example.org'"),
    ({"server_nme": "x"}, "server_nme: unknown option; did you mean server_name?"),
    ({"zzz": 1}, "zzz: unknown option"),
    ({5: 1}, "5: unknown option"),
    ({"database": {"max_conections": 5}}, "database.max_conections: unknown option; did you mean max_connections?"),
    ({"listeners": [{"prot": 1}]}, "listeners[0].prot: unknown option; did you mean port?"),
    ({"server_name": None}, "server_name: must be a string, got null"),
    ({"server_name": 12}, "server_name: must be a string, in quotes, got 12"),
    ({"server_name": ""}, "server_name: must not be empty"),
    ({"server_name": "a\nb"}, "server_name: must be printable text on one line"),
    (
        {"server_name": "https://example.org"},
        "server_name: must be a server name such as example.org, example.org:8448 or [2001:db8::1]:8448"
        ", got 'https://example.org'",
    ),
    (
        {"server_name": "[::1::2]"},
        "server_name: must be a server name such as example.org, example.org:8448 or [2001:db8::1]:8448"
        ", got '[::1::2]'",
    ),
    (
        {"public_base_url": "example.org"},
        "public_base_url: must be a URL that begins with https:// or http://, got 'example.org'",
    ),
    ({"public_base_url": "https://"}, "public_base_url: names no host, got 'https://'"),
    ({"public_base_url": "https://a:b"}, "public_base_url: is not a valid URL, got 'https://a:b'"),
    ({"public_base_url": "https://[a"}, "public_base_url: is not a valid URL, got 'https://[a'"),
    (
        {"public_base_url": "https://a?b"},
        "public_base_url: must have neither a query nor a fragment, got 'https://a?b'",
    ),
    ({"data_dir": ["x"]}, "data_dir: must be a string, got a list"),
    ({"data_dir": "x\0"}, "data_dir: must be printable text on one line"),
    ({"listeners": {}}, "listeners: must be a list, got a mapping"),
    ({"listeners": []}, "listeners: must not be empty"),
    ({"listeners": [{}, {}]}, "listeners: names 127.0.0.1:8008 twice"),
    ({"listeners": [8008]}, "listeners[0]: must be a mapping, got 8008"),
    ({"listeners": [{"port": 0}]}, "listeners[0].port: must be 1..65535, got 0"),
    ({"listeners": [{}, {"port": 65536}]}, "listeners[1].port: must be 1..65535, got 65536"),
    ({"listeners": [{"port": "8008"}]}, "listeners[0].port: must be a whole number, got '8008'"),
    ({"listeners": [{"port": True}]}, "listeners[0].port: must be a whole number, got true"),
    ({"listeners": [{"port": None}]}, "listeners[0].port: must be set unless unix_socket is"),
    ({"listeners": [{"address": "localhost"}]}, "listeners[0].address: must be an IP address, got 'localhost'"),
    ({"listeners": [{"resources": []}]}, "listeners[0].resources: must not be empty"),
    ({"listeners": [{"resources": "client"}]}, "listeners[0].resources: must be a list, got 'client'"),
    (
        {"listeners": [{"resources": ["client", "clients"]}]},
        "listeners[0].resources[1]: must be one of client, federation, media, metrics, health, got 'clients'",
    ),
    ({"listeners": [{"tls_key": "key.pem"}]}, "listeners[0].tls_key: there is no file /srv/weft/key.pem"),
    (
        {"listeners": [{"tls_key": __file__}]},
        "listeners[0].tls_certificate: must be set too when tls_key is",
    ),
    (
        {"listeners": [{"tls_certificate": __file__}]},
        "listeners[0].tls_key: must be set too when tls_certificate is",
    ),
    (
        {"listeners": [{"tls_certificate": __file__, "tls_key": __file__, "unix_socket": "s"}]},
        "listeners[0].tls_certificate: cannot be used with unix_socket",
    ),
    ({"database": "postgresql://x"}, "database: must be a mapping, got 'postgresql://x'"),
    ({"database": {"url": "mysql://x"}}, "database.url: must be a URL that begins with postgresql:// or postgres://"),
    ({"database": {"max_connections": 1}}, "database.max_connections: must be 2..1000, got 1"),
    ({"database": {"connect_timeout_ms": 1.5}}, "database.connect_timeout_ms: must be a whole number, got 1.5"),
    ({"database": {"connect_timeout_ms": -1}}, "database.connect_timeout_ms: must be at least 1, got -1"),
    (
        {"database": {"connect_timeout_ms": 2**53}},
        "database.connect_timeout_ms: must be at most 9007199254740991, got 9007199254740992",
    ),
    (
        {"database": {"connect_timeout_ms": 10**5000}},
        "database.connect_timeout_ms: must be at most 9007199254740991, got a huge number",
    ),
    (
        {"redis": {"url": "redis:cache"}},
        "redis.url: must be a URL that begins with redis:// or rediss:// or unix://",
    ),
    ({"signing": {"old_keys": [{}]}}, "signing.old_keys[0].key_id: must be given"),
    (
        {"signing": {"old_keys": [{"key_id": "rsa:1", "public_key": KEY, "expired_ts": 1}]}},
        "signing.old_keys[0].key_id: must be a key ID such as ed25519:a_1, got 'rsa:1'",
    ),
    (
        {"signing": {"old_keys": [{"key_id": "ed25519:1", "public_key": "A=", "expired_ts": 1}]}},
        "signing.old_keys[0].public_key: must be 32 bytes in unpadded base64 (43 characters), got 'A='",
    ),
    ({"registration": {"mode": False}}, "registration.mode: must be one of off, open, token, got false"),
    (
        {"jwt_login": {"enabled": True}},
        "jwt_login.secret: must be set when algorithm is HS256",
    ),
    (
        {"jwt_login": {"enabled": True, "algorithm": "RS256"}},
        "jwt_login.public_key_file: must be set when algorithm is RS256",
    ),
    ({"support": {"contacts": [{}]}}, "support.contacts[0].matrix_id: must be set unless email_address is"),
    (
        {"support": {"contacts": [{"matrix_id": "admin"}]}},
        "support.contacts[0].matrix_id: must be a user ID such as @admin:example.org, got 'admin'",
    ),
    (
        {"support": {"contacts": [{"email_address": "a@b.c", "role": "m.role.cook"}]}},
        "support.contacts[0].role: must be m.role.admin, m.role.security or a namespaced name such as "
        "org.example.role, got 'm.role.cook'",
    ),
    (
        {"turn": {"uris": ["http://turn.example.org"]}},
        "turn.uris[0]: must be a URI such as turn:turn.example.org?transport=udp, got 'http://turn.example.org'",
    ),
    (
        {"turn": {"uris": ["turn:turn.example.org"]}},
        "turn.shared_secret: must be set when uris are, unless username and password are",
    ),
    (
        {
            "registration": {
                "policies": [
                    {"policy_id": "terms", "version": "1", "name": "Terms", "url": "https://example.org/1"},
                    {"policy_id": "terms", "version": "2", "name": "Terms", "url": "https://example.org/2"},
                ]
            }
        },
        "registration.policies: has two versions of terms",
    ),
    ({"registration": {"tokens": "one"}}, "registration.tokens: must be a list"),
    ({"registration": {"tokens": [1]}}, "registration.tokens[0]: must be a string, in quotes"),
    ({"registration": {"shared_secret": ""}}, "registration.shared_secret: must not be empty"),
    ({"appservices": ["a.yaml"]}, "appservices[0]: there is no file /srv/weft/a.yaml"),
    ({"appservices": [__file__, __file__]}, f"appservices: names {__file__} twice"),
    ({"rate_limits": None, "redis": 1}, "redis: must be a mapping, got 1"),
    ({"rate_limits": {"enabled": "yes"}}, "rate_limits.enabled: must be true or false, got 'yes'"),
    (
        {"rate_limits": {"login": {"per_second": 0}}},
        "rate_limits.login.per_second: must be 0.0001..1000000, got 0",
    ),
    (
        {"rate_limits": {"login": {"per_second": float("nan")}}},
        "rate_limits.login.per_second: must be 0.0001..1000000, got nan",
    ),
    (
        {"rate_limits": {"login": {"per_second": "fast"}}},
        "rate_limits.login.per_second: must be a number, got 'fast'",
    ),
    ({"rate_limits": {"login": 5}}, "rate_limits.login: must be a mapping, got 5"),
    (
        {"federation": {"denied_ip_ranges": ["10.0.0.1/8"]}},
        "federation.denied_ip_ranges[0]: must be an IP network such as 10.0.0.0/8, got '10.0.0.1/8'",
    ),
    ({"federation": {"denied_ip_ranges": [10]}}, "federation.denied_ip_ranges[0]: must be a string, got 10"),
    ({"federation": {"custom_ca_file": "ca"}}, "federation.custom_ca_file: there is no file /srv/weft/ca"),
    (
        {"federation": {"trusted_key_servers": ["a b"]}},
        "federation.trusted_key_servers[0]: must be a server name such as example.org, example.org:8448 or "
        "[2001:db8::1]:8448, got 'a b'",
    ),
    ({"logging": {"level": "LOUD"}}, "logging.level: must be one of DEBUG, INFO, WARNING, ERROR, got 'LOUD'"),
    ({"logging": {"format": 1}}, "logging.format: must be one of json, console, got 1"),
    ({"rooms": {"default_version": 12}}, "rooms.default_version: must be a string, in quotes, got 12"),
    (
        {"rooms": {"default_version": "0"}},
        "rooms.default_version: must be one of 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, got '0'",
    ),
    (
        {"limits": {"default_timeline_events": 501}},
        "limits.default_timeline_events: must not be above max_timeline_events, 500",
    ),
    ({"caches": {"rooms": 1}}, "caches.rooms: must be at least 16, got 1"),
    ({"caches": {"rooms": "x" * 100}}, f"caches.rooms: must be a whole number, got '{'x' * 60}…'"),
]


@pytest.mark.parametrize(("raw", "problem"), REFUSALS, ids=[problem[:60] for _, problem in REFUSALS])
def test_refuses(raw: object, problem: str) -> None:
    first, *_ = problems_of(raw)
    assert first == problem


def test_says_everything_that_is_wrong_at_once() -> None:
    raw = {
        "listeners": [{"port": 0, "adress": "::"}, {"resources": ["x"]}],
        "database": {"url": "x"},
        "caches": {"rooms": 1, "events": 1},
        "unknown": 1,
    }
    assert [problem.partition(":")[0] for problem in problems_of(raw)] == [
        "unknown",
        "listeners[0].adress",
        "listeners[0].port",
        "listeners[1].resources[0]",
        "database.url",
        "caches.rooms",
        "caches.events",
    ]


SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.dates() | st.binary(max_size=4)
)
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6) | st.integers(), inner, max_size=4),
    max_leaves=8,
)


def _shaped_like(group: type) -> st.SearchStrategy[object]:
    """Mappings with the schema's keys, so that the values are reached, and with anything for values."""
    values: dict[str, st.SearchStrategy[object]] = {}
    for option in options_of(group):
        inner = option.item_hint or option.hint
        value = ANYTHING | st.just(option.default)
        if is_group(inner):
            shaped = _shaped_like(inner)
            value = (st.lists(shaped, max_size=2) if option.item_hint else shaped) | value
        values[option.name] = value
    return st.fixed_dictionaries({}, optional=values)


@given(raw=_shaped_like(Config) | ANYTHING, text=st.text(max_size=6))
def test_whatever_comes_is_a_configuration_or_a_config_error(raw: object, text: str) -> None:
    try:
        config = parse(raw, {"WEFT_CACHES_ROOMS": text, "WEFT_REDIS_URL": text})
    except ConfigError as refusal:
        outcome: Config | ConfigError = refusal
    else:
        outcome = config
    if isinstance(outcome, ConfigError):
        assert outcome.problems
        assert all(problem.isprintable() for problem in outcome.problems)
    else:
        assert parse(raw, {"WEFT_CACHES_ROOMS": text, "WEFT_REDIS_URL": text}) == outcome

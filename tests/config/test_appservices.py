"""Registration files of application services: what is taken, what is refused, and in which words."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from config.appservices import load_registrations, mark_registrations
from config.errors import ConfigError
from config.schema import Config

IRC: dict[str, Any] = {
    "id": "IRC Bridge",
    "url": "http://127.0.0.1:1234/",
    "as_token": "30c05ae90a248a4188e620216fa72e349803310ec83e2a77b34fe90be6081f46",
    "hs_token": "312df522183efd404ec1cd22d2ffa4bbc76a8c1ccf541dd692eef281356bb74e",
    "sender_localpart": "_irc_bot",
    "namespaces": {
        "users": [{"exclusive": True, "regex": "@_irc_bridge_.*"}],
        "aliases": [{"exclusive": False, "regex": "#_irc_bridge_.*"}],
        "rooms": [],
    },
}


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """A server whose folder for registrations is there."""
    (tmp_path / "appservices").mkdir()
    return Config(server_name="weft.test", data_dir=tmp_path)


def write(config: Config, name: str, document: object) -> Path:
    """A registration file in the server's folder."""
    path = config.appservices_dir / name
    path.write_text(document if isinstance(document, str) else yaml.safe_dump(document))
    return path


def without(*keys: str) -> dict[str, Any]:
    """The registration with some keys left out."""
    return {key: value for key, value in IRC.items() if key not in keys}


def test_a_registration_is_read(config: Config) -> None:
    write(config, "irc.yaml", IRC)
    (registration,) = load_registrations(config)
    assert (registration.id, registration.url) == ("IRC Bridge", "http://127.0.0.1:1234")
    assert registration.as_token.reveal() == IRC["as_token"]
    assert [(n.regex.pattern, n.exclusive) for n in registration.users] == [("@_irc_bridge_.*", True)]
    assert [(n.regex.pattern, n.exclusive) for n in registration.aliases] == [("#_irc_bridge_.*", False)]
    assert registration.rooms == ()
    assert registration.rate_limited
    assert not registration.receive_ephemeral
    assert IRC["as_token"] not in repr(registration)


def test_what_proposals_and_programs_add_is_understood_or_passed_over(config: Config) -> None:
    added = {
        "rate_limited": False,
        "protocols": ["irc"],
        "de.sorunome.msc2409.push_ephemeral": True,
        "org.matrix.msc3202": True,
        "io.element.msc4190": True,
        "org.example.of_its_own": {"x": 1},
    }
    write(config, "irc.yml", {**IRC, **added, "url": None, "namespaces": {"users": None}})
    (registration,) = load_registrations(config)
    assert registration.url is None
    assert registration.protocols == ("irc",)
    assert registration.receive_ephemeral
    assert registration.ephemeral_is_unstable
    assert registration.receive_encryption
    assert not registration.rate_limited


def test_files_are_named_by_the_configuration_or_lie_in_the_folder(config: Config, tmp_path: Path) -> None:
    inside = write(config, "b.yaml", {**IRC, "id": "b"})
    outside = tmp_path / "a.yaml"
    outside.write_text(yaml.safe_dump({**IRC, "id": "a", "as_token": "x", "sender_localpart": "a"}))
    (config.appservices_dir / "notes.txt").write_text("no registration")
    (config.appservices_dir / ".b.yaml.swp.yaml").write_text("nor this")
    config = replace(config, appservices=(outside, inside))
    assert [registration.id for registration in load_registrations(config)] == ["a", "b"]


def test_a_changed_file_has_another_mark(config: Config) -> None:
    path = write(config, "irc.yaml", IRC)
    before = mark_registrations(config)
    assert mark_registrations(config) == before
    path.write_text(path.read_text() + "\n# longer\n")
    assert mark_registrations(config) != before
    path.unlink()
    assert mark_registrations(config) == ()


@pytest.mark.parametrize(
    ("document", "complaint"),
    [
        ("", "Expected object, got null"),
        ("- list", "Expected object, got array"),
        (without("id"), "Object missing required field id"),
        (without("url"), "Object missing required field url"),
        (without("namespaces"), "Object missing required field namespaces"),
        ({**IRC, "id": ""}, "id: must be 1 to 255 characters on one line, with no space at its ends"),
        ({**IRC, "id": 5}, "id: Expected str, got int"),
        ({**IRC, "url": "ftp://x"}, "url: must be a URL that begins with https:// or http://"),
        ({**IRC, "as_token": "two words"}, "as_token: must be 1 to 1024 printable ASCII characters without spaces"),
        ({**IRC, "hs_token": ""}, "hs_token: must be 1 to 1024 printable ASCII characters without spaces"),
        ({**IRC, "sender_localpart": "a:b"}, "sender_localpart: must be what stands between @ and : in a user ID"),
        ({**IRC, "protocols": [""]}, "protocols: must be at most 100 names"),
        ({**IRC, "rate_limited": "no"}, "rate_limited: Expected bool | null, got str"),
        (
            {**IRC, "namespaces": {"users": [{"regex": "x"}]}},
            "namespaces.users[0]: Object missing required field exclusive",
        ),
        (
            {**IRC, "namespaces": {"rooms": [{"regex": "(", "exclusive": False}]}},
            "namespaces.rooms[0].regex: is no regular expression: missing ), unterminated subpattern at position 0",
        ),
        (
            {**IRC, "namespaces": {"aliases": [{"regex": "x" * 1025, "exclusive": False}]}},
            "namespaces.aliases[0].regex: must have 1 to 1024 characters",
        ),
        (
            {**IRC, "namespaces": {"users": [{"regex": "x", "exclusive": False}] * 201}},
            "namespaces.users: there may be 200 of them",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_file_that_cannot_be_used_is_refused(config: Config, document: object, complaint: str) -> None:
    path = write(config, "bad.yaml", document)
    with pytest.raises(ConfigError) as refused:
        load_registrations(config)
    assert refused.value.problems == (f"{path}: {complaint}",)
    assert IRC["as_token"] not in str(refused.value)


def test_no_two_services_have_a_name_in_common(config: Config) -> None:
    first, second = write(config, "1.yaml", IRC), write(config, "2.yaml", IRC)
    with pytest.raises(ConfigError) as refused:
        load_registrations(config)
    assert refused.value.problems == tuple(
        f"{second}: {key}: is that of {first}, too" for key in ("id", "sender_localpart", "as_token")
    )


def test_a_file_that_is_no_yaml_is_refused(config: Config) -> None:
    path = write(config, "bad.yaml", "a: [")
    with pytest.raises(ConfigError, match=str(path)):
        load_registrations(config)

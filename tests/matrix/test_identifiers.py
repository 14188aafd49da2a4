"""https://spec.matrix.org/v1.19/appendices/#identifier-grammar"""

import pytest

from matrix.identifiers import (
    get_domain,
    get_localpart,
    is_event_id,
    is_new_localpart,
    is_room_alias,
    is_room_id,
    is_server_name,
    is_user_id,
)

HASH = "Rqnc-F-dvnEYJTyHq_iKxU2bZ1CI92-kuZq3a5lr5Zg"


@pytest.mark.parametrize(
    "name",
    ["matrix.org", "matrix.org:8888", "1.2.3.4", "1.2.3.4:1234", "[1234:5678::abcd]", "[1234:5678::abcd]:5678", "a"],
)
def test_server_names_of_the_specification_are_valid(name: str) -> None:
    assert is_server_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "a b",
        "matrix.org:",
        "matrix.org:123456",
        "matrix.org:8a",
        "[::1",
        "[g::1]",
        "ex_ample",
        "é.org",
        "a\n",
        None,
        1,
    ],
)
def test_other_server_names_are_invalid(name: object) -> None:
    assert not is_server_name(name)


@pytest.mark.parametrize(
    "user_id",
    [
        "@alice:example.org",
        "@alice:example.org:8448",
        "@a:[::1]:80",
        "@:example.org",  # historical: the empty localpart
        "@Älice\t ☃:example.org",  # historical: any character but ":" and NUL
        "@" + "a" * 242 + ":example.org",
    ],
)
def test_user_ids_in_the_historical_grammar_are_accepted(user_id: str) -> None:
    assert is_user_id(user_id)


@pytest.mark.parametrize(
    "user_id",
    [
        "alice:example.org",
        "@alice",
        "@alice:",
        "@al\0ice:example.org",
        "@alice:exa mple.org",
        "@alice:example.org\n",
        "@\ud800:example.org",
        "@" + "a" * 243 + ":example.org",
        "@" + "é" * 122 + ":example.org",  # 256 bytes in fewer characters
        None,
        ["@alice:example.org"],
    ],
)
def test_other_user_ids_are_invalid(user_id: object) -> None:
    assert not is_user_id(user_id)


def test_new_localparts_have_the_strict_grammar() -> None:
    assert is_new_localpart("alice.b-c_d=e/f+1")
    assert not any(is_new_localpart(localpart) for localpart in ("", "Alice", "a b", "a:b", "é", "a\n", "a*"))


@pytest.mark.parametrize("room_id", ["!x:domain", "!A ☃:example.org:1", "!" + HASH])
def test_room_ids_have_a_domain_or_are_a_hash(room_id: str) -> None:
    assert is_room_id(room_id)


@pytest.mark.parametrize(
    "room_id", ["!", "!x", "!:domain", "#x:domain", "!x:", "!" + HASH + "A", "!" + HASH[:-1] + "/", 3]
)
def test_other_room_ids_are_invalid(room_id: object) -> None:
    assert not is_room_id(room_id)


@pytest.mark.parametrize(
    "event_id", ["$0:domain", "$" + HASH, "$acR1l0raoZnm60CBwAVgqbZqoO/mYU81xysh1u7XcJk", "$a+b:example.org:8448"]
)
def test_event_ids_of_every_format_are_valid(event_id: str) -> None:
    assert is_event_id(event_id)


@pytest.mark.parametrize(
    "event_id", ["$", "$x", "x:domain", "$:domain", "$x\0:domain", "$" + "a" * 255 + ":domain", {}]
)
def test_other_event_ids_are_invalid(event_id: object) -> None:
    assert not is_event_id(event_id)


def test_room_aliases_have_a_localpart_and_a_domain() -> None:
    assert is_room_alias("#some where☃:example.org")
    assert not any(
        is_room_alias(alias) for alias in ("#x", "#:example.org", "!x:example.org", "#a\0:example.org", None)
    )


def test_an_identifier_is_split_at_its_first_colon() -> None:
    assert get_domain("@alice:example.org:8448") == "example.org:8448"
    assert get_localpart("@alice:example.org:8448") == "alice"
    assert get_domain("!" + HASH) == ""

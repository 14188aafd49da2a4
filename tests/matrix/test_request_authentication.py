"""Signed requests, and the header that carries the signature."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matrix.request_authentication import (
    MAX_HEADER_CHARS,
    Authorization,
    parse_authorization,
    sign_request,
    verify_request,
)
from matrix.signatures import SigningKey, VerifyKey

KEY = SigningKey.from_seed("1", b"k" * 32)
VERIFY_KEY = VerifyKey(KEY.key_id, KEY.public_key, 0)

server_names = st.from_regex(
    r"[a-z0-9][a-z0-9.-]{0,20}(:[0-9]{1,5})?|\[[0-9a-f:]{2,10}\](:[0-9]{1,5})?", fullmatch=True
)
key_ids = st.from_regex(r"ed25519:[A-Za-z0-9_]{1,10}", fullmatch=True)
signatures = st.from_regex(r"[A-Za-z0-9+/]{86}", fullmatch=True)
authorizations = st.builds(
    Authorization, server_names, key_ids, signatures, destination=st.one_of(st.none(), server_names)
)
blanks = st.text(" \t", max_size=3)


@given(authorizations)
def test_what_is_written_is_read(authorization: Authorization) -> None:
    assert parse_authorization(str(authorization)) == authorization


@st.composite
def written_freely(draw: st.DrawFn) -> tuple[Authorization, str]:
    """A header as RFC 9110 allows it: any order and case, blanks, backslashes, parameters that nobody knows."""
    authorization = draw(authorizations)
    values = {"origin": authorization.origin, "key": authorization.key_id, "sig": authorization.signature}
    if authorization.destination is not None:
        values["destination"] = authorization.destination
    values["x-unknown"] = draw(st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=8))
    parameters = []
    for name in draw(st.permutations(sorted(values))):
        text = "".join(draw(st.sampled_from((name.lower(), name.upper(), name.title()))))
        value = values[name]
        if not re.fullmatch(r"[A-Za-z0-9.:+/_-]+", value) or draw(st.booleans()):
            is_escaped = draw(st.lists(st.booleans(), min_size=len(value), max_size=len(value)))
            value = "".join(
                f"\\{character}" if character in '"\\' or escaped else character
                for character, escaped in zip(value, is_escaped, strict=True)
            )
            value = f'"{value}"'
        parameters.append(f"{text}{draw(blanks)}={draw(blanks)}{value}")
    scheme = draw(st.sampled_from(("X-Matrix", "x-matrix", "X-MATRIX"))) + " " * draw(st.integers(1, 3))
    # "A recipient MUST parse and ignore a reasonable number of empty list elements".
    empty = st.sampled_from(("", ",", ", ,"))
    return authorization, scheme + draw(empty) + f"{draw(blanks)},{draw(blanks)}".join(parameters) + draw(empty)


@given(written_freely())
def test_a_header_may_be_written_in_many_ways(written: tuple[Authorization, str]) -> None:
    authorization, header = written
    assert parse_authorization(header) == authorization


@given(st.one_of(st.text(max_size=200), st.text('X-Matrix orgn=",:\\ \t', max_size=200).map("X-Matrix ".__add__)))
def test_any_text_is_read_or_refused(header: str) -> None:
    try:
        authorization = parse_authorization(header)
    except ValueError:
        return
    assert authorization.origin


GOOD = 'X-Matrix origin="a.example",destination="b.example",key="ed25519:1",sig="AAAA"'


@pytest.mark.parametrize(
    "header",
    [
        "",
        "X-Matrix",
        "X-Matrix ",
        "Bearer token",
        GOOD.replace("X-Matrix ", "X-Matrix"),
        GOOD.replace('origin="a.example",', ""),
        GOOD.replace(',key="ed25519:1"', ""),
        GOOD.replace(',sig="AAAA"', ""),
        GOOD.replace("a.example", "a example"),
        GOOD.replace("a.example", ""),
        GOOD.replace('"a.example"', '"a.example'),
        GOOD.replace(",key", " key"),
        GOOD.replace(",key", ";key"),
        GOOD + ',origin="c.example"',
        GOOD + ',ORIGIN="a.example"',
        GOOD + ",nonsense",
        GOOD + ',="x"',
        GOOD + ',x="\\"',
        GOOD + f',x="{"x" * MAX_HEADER_CHARS}"',
    ],
)
def test_other_headers_are_refused(header: str) -> None:
    with pytest.raises(ValueError):
        parse_authorization(header)


def test_older_servers_leave_colons_without_quotes() -> None:
    header = "X-Matrix origin=a.example:8448,key=ed25519:1,sig=AA/A+A"
    assert parse_authorization(header) == Authorization("a.example:8448", "ed25519:1", "AA/A+A")


contents = st.one_of(
    st.none(), st.dictionaries(st.text(max_size=5), st.one_of(st.integers(-9, 9), st.text(max_size=5)), max_size=3)
)


@given(method=st.sampled_from(("GET", "PUT")), uri=st.sampled_from(("/_matrix/a?b=c", "/_matrix/a")), content=contents)
def test_a_signature_is_good_for_what_was_signed_alone(method: str, uri: str, content: Any) -> None:
    signed = sign_request(method, uri, origin="a.example", destination="b.example", content=content, key=KEY)
    assert verify_request(signed, VERIFY_KEY, method, uri, destination="b.example", content=content)
    other_key = SigningKey.from_seed("1", b"o" * 32)
    for claim, key, *request in (
        (signed, VERIFY_KEY, "POST", uri, "b.example", content),
        (signed, VERIFY_KEY, method, uri + "&", "b.example", content),
        (signed, VERIFY_KEY, method, uri, "c.example", content),
        (signed, VERIFY_KEY, method, uri, "b.example", {"other": content}),
        (replace(signed, origin="c.example"), VERIFY_KEY, method, uri, "b.example", content),
        (replace(signed, signature="A" * 86), VERIFY_KEY, method, uri, "b.example", content),
        (replace(signed, signature="nonsense!"), VERIFY_KEY, method, uri, "b.example", content),
        (replace(signed, key_id="ed25519:2"), VERIFY_KEY, method, uri, "b.example", content),
        (signed, VerifyKey(KEY.key_id, other_key.public_key, 0), method, uri, "b.example", content),
    ):
        assert not verify_request(claim, key, request[0], request[1], destination=request[2], content=request[3])

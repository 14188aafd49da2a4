"""Long answers are cut into their events as they arrive."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matrix.canonical_json import JsonError
from matrix.json_lists import MAX_ITEM_BYTES, MAX_REST_BYTES, ListSplitter

LIMITS = {"state": 6, "auth_chain": 6}
TEXT = st.text(alphabet='ab"\\{}[],: \n\u00e9\U0001f600', max_size=8)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
EVENTS = st.lists(st.dictionaries(TEXT, VALUES, max_size=3), max_size=6)


def split(text: bytes, piece_bytes: int) -> tuple[dict[str, list[Any]], dict[str, Any]]:
    """What the lists have in them, and the rest."""
    splitter = ListSplitter(LIMITS)
    found: dict[str, list[Any]] = {}
    items = [
        item for start in range(0, len(text), piece_bytes) for item in splitter.feed(text[start : start + piece_bytes])
    ]
    last, rest = splitter.finish()
    for key, item in [*items, *last]:
        found.setdefault(key, []).append(json.loads(item))
    return found, rest


@settings(max_examples=60)
@given(
    rest=st.dictionaries(TEXT, VALUES, max_size=3),
    state=EVENTS,
    chain=EVENTS,
    piece_bytes=st.sampled_from([1, 2, 7, 10_000]),
    indent=st.sampled_from([None, 1]),
    ascii=st.booleans(),
)
def test_the_lists_and_the_rest_are_what_was_written(
    rest: dict[str, Any], state: list[Any], chain: list[Any], piece_bytes: int, indent: int | None, ascii: bool
) -> None:
    text = json.dumps({"state": state, **rest, "auth_chain": chain}, indent=indent, ensure_ascii=ascii).encode()
    found, other = split(text, piece_bytes)
    assert found.get("state", []) == state
    assert found.get("auth_chain", []) == chain
    assert other == {**rest, "state": [], "auth_chain": []}


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b'{"state":[{}]',
        b'{"state":[{}]}}',
        b'{"state":[{},]}',
        b'{"state":[{} {}]}',
        b'{"state":[5]}',
        b'{"state":["{}"]}',
        b'{"state":[{}],"state":[{}]}',
        b'{"st\\u0061te":[{}],"state":[{}]}',
        b'{"state":[' + b",".join([b"{}"] * 7) + b"]}",
        b'{"state":[{"x":"' + b"y" * MAX_ITEM_BYTES + b'"}]}',
        b'{"state":[{"x":"' + b"y" * MAX_ITEM_BYTES,
        b'{"other":"' + b"y" * MAX_REST_BYTES + b'"}',
        b'{"a":1 "b":2}',
        b'{"a":nonsense}',
        b'{"a":1,"a":2}',
        b"{a:1}",
    ],
)
@pytest.mark.parametrize("piece_bytes", [4096, 10**9])
def test_what_is_no_such_object_is_refused(text: bytes, piece_bytes: int) -> None:
    with pytest.raises(JsonError):
        split(text, piece_bytes)


def test_what_is_just_not_too_long_is_taken() -> None:
    item = b'{"x":"' + b"y" * (MAX_ITEM_BYTES - 8) + b'"}'
    assert len(item) == MAX_ITEM_BYTES
    found, _ = split(b'{"state":[' + b",".join([item] * 3) + b"]}", 5000)
    assert len(found["state"]) == 3


def test_what_is_called_as_a_list_and_is_none_is_left_as_it_is() -> None:
    assert split(b'{"state":{"a":[{}]}, "auth_chain" : null}', 5) == ({}, {"state": {"a": [{}]}, "auth_chain": None})

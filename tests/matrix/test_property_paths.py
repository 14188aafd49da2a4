"""Dot-separated property paths: https://spec.matrix.org/v1.19/appendices/#dot-separated-property-paths"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matrix.property_paths import MISSING, property_at, property_getter, split_property_path


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("type", ("type",)),
        ("content.body", ("content", "body")),
        (r"content.m\.relates_to", ("content", "m.relates_to")),
        (r"content.m\\foo", ("content", "m\\foo")),
        (r"content.m\x", ("content", "m\\x")),
        (r"a\\.b", ("a\\", "b")),
        ("a.b\\", ("a", "b\\")),
        ("a..b", ("a", "", "b")),
        ("", ("",)),
    ],
)
def test_split(path: str, expected: tuple[str, ...]) -> None:
    assert split_property_path(path) == expected


@given(st.lists(st.text(alphabet="ab.\\"), min_size=1, max_size=4))
def test_escaped_names_come_back(names: list[str]) -> None:
    path = ".".join(name.replace("\\", "\\\\").replace(".", r"\.") for name in names)
    assert split_property_path(path) == tuple(names)


_JSON = st.recursive(
    st.none() | st.integers() | st.text(max_size=2),
    lambda children: st.lists(children, max_size=2) | st.dictionaries(st.sampled_from("abc"), children, max_size=3),
    max_leaves=12,
)


@given(
    st.dictionaries(st.sampled_from("abc"), _JSON, max_size=3),
    st.lists(st.sampled_from("abc"), min_size=1, max_size=4).map(tuple),
)
def test_getters_of_every_length_agree_with_the_walk(event: dict[str, object], path: tuple[str, ...]) -> None:
    assert property_getter(path)(event) == property_at(event, path)


def test_null_is_not_missing() -> None:
    event = {"content": {"a": None}}
    assert property_at(event, ("content", "a")) is None
    assert property_at(event, ("content", "b")) is MISSING
    assert property_at(event, ("content", "a", "b")) is MISSING

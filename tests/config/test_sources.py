"""YAML as the configuration reads it: version 1.2's scalars, no tags, no key twice."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.errors import ConfigError
from config.sources import parse_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("~", None),
        ("null", None),
        ("true", True),
        ("False", False),
        ("off", "off"),
        ("yes", "yes"),
        ("12", 12),
        ("-7", -7),
        ("0123", "0123"),
        ("1_000", "1_000"),
        ("12:30", "12:30"),
        ("1.5", 1.5),
        ("1e3", 1000.0),
        ("2026-01-01", "2026-01-01"),
        ('"12"', "12"),
        ("a: [1, {b: c}]", {"a": [1, {"b": "c"}]}),
        ("x: &a {b: 1}\ny: *a", {"x": {"b": 1}, "y": {"b": 1}}),
    ],
)
def test_reads_scalars_as_they_look(text: str, value: object) -> None:
    parsed = parse_yaml(text, "f")
    assert (type(parsed), parsed) == (type(value), value)


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        (
            "a: 1\nb: 2\na: 3\nc: {d: 1, d: 2}",
            ("f, line 3: a is given again, first on line 1", "f, line 4: d is given again, first on line 4"),
        ),
        ("a: 1\n  b: 2", ("f, line 2, column 4: mapping values are not allowed here",)),
        ("a\n---\nb", ("f, line 2, column 1: but found another document",)),
        ("\n? [1]\n: 2", ("f, line 2, column 3: found unhashable key",)),
        (
            "!!python/object:os.system {}",
            (
                "f, line 1, column 1: could not determine a constructor for the tag "
                "'tag:yaml.org,2002:python/object:os.system'",
            ),
        ),
        ("!!bool maybe", ("f: is not usable as YAML: 'maybe'",)),
        ("\x01", ("f: is not usable as YAML: unacceptable character #x0001: special characters are not allowed",)),
    ],
)
def test_refuses(text: str, problems: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_yaml(text, "f")
    assert caught.value.problems == problems


@pytest.mark.parametrize("text", ["9" * 5000, "[" * 5000, "!!int ''", "!!timestamp 99", "!!float x", "!!set {a}"])
def test_refuses_what_the_parser_trips_over(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^f[:,] "):
        parse_yaml(text, "f")


@given(st.text(alphabet="ab1:-[]{}&*!?|>'\"\n #,%@`~.\t", max_size=30) | st.text(max_size=30))
def test_whatever_comes_is_a_value_or_a_config_error(text: str) -> None:
    try:
        outcome = parse_yaml(text, "f")
    except ConfigError as refusal:
        outcome = refusal.problems
    assert outcome != ()

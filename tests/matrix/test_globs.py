"""Glob-style matching: https://spec.matrix.org/v1.19/appendices/#glob-style-matching"""

import sys
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matrix.globs import fold_case, has_wildcard, whole_glob, word_glob, word_literal

_TEXTS = st.text(alphabet="ab_ .", max_size=9)
_PATTERNS = st.text(alphabet="ab_ .*?", max_size=7)


def _describes(pattern: str, text: str) -> bool:
    """The definition of a glob, word for word."""

    @cache
    def describes(p: int, t: int) -> bool:
        if p == len(pattern):
            return t == len(text)
        if pattern[p] == "*":
            return any(describes(p + 1, rest) for rest in range(t, len(text) + 1))
        return t < len(text) and pattern[p] in ("?", text[t]) and describes(p + 1, t + 1)

    return describes(0, 0)


def _is_boundary(text: str, position: int) -> bool:
    around = text[max(position - 1, 0) : position + 1]
    return position in (0, len(text)) or not all(character.isalnum() or character == "_" for character in around)


def _describes_words(pattern: str, text: str) -> bool:
    """The definition of matching in `content.body`, word for word."""
    positions = [position for position in range(len(text) + 1) if _is_boundary(text, position)]
    return any(_describes(pattern, text[start:end]) for start in positions for end in positions if start <= end)


@given(_PATTERNS, _TEXTS)
def test_whole_glob_agrees_with_the_definition(pattern: str, text: str) -> None:
    assert whole_glob(pattern).matches(text) is _describes(pattern, text)


@given(_PATTERNS.filter(bool), _TEXTS)
def test_word_glob_agrees_with_the_definition(pattern: str, text: str) -> None:
    assert word_glob(pattern).matches(text) is _describes_words(pattern, text)


@given(st.text(alphabet="ab_ .", min_size=1, max_size=4), _TEXTS)
def test_a_literal_word_is_a_glob_without_wildcards(word: str, text: str) -> None:
    assert word_literal(word).matches(text) is word_glob(word).matches(text)


@pytest.mark.parametrize(("text", "expected"), [("a*", True), ("ab", False), ("say a* now", True)])
def test_wildcards_in_a_literal_word_mean_themselves(text: str, expected: bool) -> None:
    assert word_literal("a*").matches(text) is expected


@pytest.mark.parametrize(("text", "expected"), [("a?c", True), ("abc", False), ("a?xc", False)])
def test_question_mark_can_be_an_ordinary_character(text: str, expected: bool) -> None:
    assert whole_glob("a?c", question_mark=False).matches(text) is expected


@pytest.mark.parametrize(("text", "expected"), [("", True), ("anything", False)])
def test_the_empty_pattern_is_found_in_no_body_but_the_empty_one(text: str, expected: bool) -> None:
    assert word_glob("").matches(text) is expected


@pytest.mark.parametrize(("pattern", "expected"), [("a", False), ("", False), ("a*", True), ("?", True)])
def test_has_wildcard(pattern: str, expected: bool) -> None:
    assert has_wildcard(pattern) is expected


def test_folding_keeps_every_character_one_character() -> None:
    lengths = {len(fold_case(chr(code_point))) for code_point in range(sys.maxunicode + 1)}
    assert lengths == {1}


@pytest.mark.parametrize(
    ("one", "other"), [("ÄÖÜ", "äöü"), ("ΟΔΟΣ", "οδος"), ("İstanbul", "istanbul"), ("CAKE", "cake")]
)
def test_folding_makes_texts_equal_that_differ_in_case(one: str, other: str) -> None:
    assert fold_case(one) == fold_case(other)


@given(st.text(), st.text())
def test_folding_does_not_depend_on_neighbours(left: str, right: str) -> None:
    assert fold_case(left + right) == fold_case(left) + fold_case(right)


@pytest.mark.timeout(5)
@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [
        ("*a" * 30 + "b", "a" * 60_000, False),
        ("*a" * 30 + "b", "a" * 60_000 + "b", True),
        ("a?" * 30 + "b", "a " * 30_000 + "c b", False),
        ("*" * 60 + "x", "a" * 60_000 + "x.", False),
        ("*a*b?c*d" * 8, "abccd" * 12_000, True),
    ],
)
def test_hostile_patterns_are_answered_in_a_pass_over_the_text(pattern: str, text: str, expected: bool) -> None:
    assert whole_glob(pattern).matches(text) is expected


@pytest.mark.timeout(5)
@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [
        ("a*" * 30 + "b", "a " * 30_000 + "bc", False),
        ("a*" * 30 + "b", "a " * 30_000 + "b", True),
        (".?" * 30 + "b", "." * 60_000 + "xb", True),
        (".?" * 30 + "b", "." * 60_000 + "bx", False),
        ("a", "a" * 60_000, False),
    ],
)
def test_hostile_words_are_answered_in_a_pass_over_the_text(pattern: str, text: str, expected: bool) -> None:
    assert word_glob(pattern).matches(text) is expected

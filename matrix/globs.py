"""Glob-style matching that no pattern can make slow.

https://spec.matrix.org/v1.19/appendices/#glob-style-matching

A glob is a row of pieces between its `*`s. Whether a text matches is decided by taking each piece where it first
occurs, from left to right, so nothing is ever tried twice: the regular expressions made here hold every piece but the
last in an atomic group, which forbids the engine to come back to it. What remains is at most
`len(pattern) * len(text)` steps, and callers bound that product (see `Glob.work_on`).
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

GLOB_WORK_LIMIT: Final = 1 << 23
"""Most that matching globs may cost one evaluation, in the unit of `Glob.work_on`: some 30 ms at worst.

Enough for a pattern of 100 characters against a body as long as an event can be.
"""

_WORK_PER_CHARACTER: Final = 16
_WORD: Final = "[a-z0-9_]"
_BOUNDARY: Final = f"(?:(?<!{_WORD})|(?!{_WORD}))"


def fold_case(text: str) -> str:
    """Lower-case `text` one character to one character: what "case-insensitive" means in this server.

    Texts that differ only in case fold to the same string, and a `?` still stands for one character of the original.
    The two exceptions of `str.lower` to that are taken out: the dotted capital I, which would become two characters,
    and the sigma, whose lower case depends on its neighbours.
    """
    if text.isascii():
        return text.lower()
    return text.replace("İ", "i").lower().replace("ς", "σ")


def has_wildcard(pattern: str) -> bool:
    """Whether `pattern` means anything but itself."""
    return "*" in pattern or "?" in pattern


@dataclass(frozen=True, slots=True)
class Glob:
    """A compiled pattern. It matches the texts that contain `needle` and on which `expression` matches."""

    expression: re.Pattern[str]
    needle: str
    """The longest text without wildcards that every match contains: looking for it rules most texts out at once."""
    length: int
    """Of the pattern, in characters."""

    def work_on(self, text: str) -> int:
        """The most steps that matching `text` may take: one per character of both, and some to get started on each."""
        return (self.length + _WORK_PER_CHARACTER) * len(text)

    def matches(self, text: str) -> bool:
        """Whether `text` is described by the pattern."""
        return self.needle in text and self.expression.match(text) is not None


def _expression(piece: str) -> str:
    return ".".join(re.escape(part) for part in piece.split("?"))


def _glob(pattern: str, expression: str) -> Glob:
    needle = max(re.split(r"[*?]+", pattern), key=len)
    return Glob(re.compile(expression, re.DOTALL), needle, len(pattern))


def whole_glob(pattern: str, *, question_mark: bool = True) -> Glob:
    """Compile a pattern that has to describe a text from its first to its last character.

    `question_mark=False` is for the places where the specification gives a meaning to `*` alone.
    """
    to_expression = _expression if question_mark else re.escape
    first, *rest = (to_expression(piece) for piece in re.split(r"\*+", pattern))
    if not rest:
        return _glob(pattern, rf"{first}\Z")
    *middle, last = rest
    skips = "".join(f"(?>.*?{piece})" for piece in middle)
    return _glob(pattern, rf"{first}{skips}.*{last}\Z")


def word_glob(pattern: str) -> Glob:
    """Compile a pattern that has to describe a part of a text, from word boundary to word boundary.

    Both ends may be where the text starts or ends, or next to a character that is not a letter, digit or underscore
    of ASCII. The pattern and the texts have to be folded: lower-case letters are the only ones taken for letters. The
    empty pattern describes the empty text only, for else it would be in all of them.

    https://spec.matrix.org/v1.19/client-server-api/#conditions (`event_match`)
    """
    if not pattern:
        return _glob(pattern, r"\Z")
    first, *rest = (_expression(piece) for piece in re.split(r"\*+", pattern))
    if not rest:
        return _glob(pattern, f".*?{_BOUNDARY}{first}{_BOUNDARY}")
    *middle, last = rest
    skips = "".join(f"(?>.*?{piece})" for piece in middle)
    return _glob(pattern, f"(?>.*?{_BOUNDARY}{first}){skips}.*?{last}{_BOUNDARY}")


@lru_cache(maxsize=1024)
def word_literal(text: str) -> Glob:
    """`word_glob` for a text in which `*` and `?` are nothing special, such as a display name."""
    return Glob(re.compile(f".*?{_BOUNDARY}{re.escape(text)}{_BOUNDARY}", re.DOTALL), text, len(text))

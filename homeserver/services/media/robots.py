"""What web sites do not want fetched by programs: https://www.rfc-editor.org/rfc/rfc9309"""

from __future__ import annotations

import re
from typing import Final, NamedTuple
from urllib.parse import quote, unquote_to_bytes, urlsplit

MAX_ROBOTS_BYTES: Final = 512 * 1024
MAX_RULES: Final = 2000
PRODUCT: Final = "weft"

_LINE = re.compile(r"[ \t]*([A-Za-z-]+)[ \t]*:[ \t]*([^#]*)")


class Rule(NamedTuple):
    """Paths that a pattern stands for are allowed, or not. `*` is for anything, `$` at the end for the end."""

    pattern: str
    allows: bool


class Robots(NamedTuple):
    """The rules of a site that are for this program."""

    rules: tuple[Rule, ...]

    def allow(self, url: str) -> bool:
        """Whether a URL of the site may be fetched: the longest pattern that fits decides, of two an allowing one."""
        parts = urlsplit(url)
        path = _normal(parts.path or "/") + (f"?{_normal(parts.query)}" if parts.query else "")
        fitting = [(len(rule.pattern), rule.allows) for rule in self.rules if _fits(rule.pattern, path)]
        return max(fitting)[1] if fitting else True


EVERYTHING: Final = Robots(())
NOTHING: Final = Robots((Rule("/", False),))


def parse_robots(text: str) -> Robots:
    """The rules of a robots.txt: those for this program by name, or else those for all."""
    named: list[Rule] = []
    general: list[Rule] = []
    targets: list[list[Rule]] = []
    has_named = in_rules = False
    for line in text.removeprefix("\ufeff").splitlines():
        found = _LINE.match(line)
        if found is None:
            continue
        key, value = found[1].lower(), found[2].strip()
        if key == "user-agent":
            if in_rules:
                targets, in_rules = [], False
            if value == "*":
                targets.append(general)
            elif value.lower().partition("/")[0] == PRODUCT:
                targets.append(named)
                has_named = True
        elif key in ("allow", "disallow"):
            in_rules = True
            for target in targets:
                if value and len(target) < MAX_RULES:
                    target.append(Rule(_normal(value), key == "allow"))
    return Robots(tuple(named if has_named else general))


def _normal(path: str) -> str:
    """Percent-encoding that does not depend on who encoded it."""
    return quote(unquote_to_bytes(path), safe="/*$?=&;:@!'()+,~%")


def _fits(pattern: str, path: str) -> bool:
    """Whether a path begins as the pattern says, in time that grows with both and no faster."""
    is_whole = pattern.endswith("$")
    first, *rest = (pattern[:-1] if is_whole else pattern).split("*")
    if not path.startswith(first):
        return False
    position = len(first)
    for number, piece in enumerate(rest):
        if is_whole and number == len(rest) - 1:
            return path.endswith(piece) and len(path) - len(piece) >= position
        position = path.find(piece, position)
        if position < 0:
            return False
        position += len(piece)
    return not is_whole or position == len(path)

"""Dot-separated paths to the properties of an event, such as `content.m\\.relates_to.rel_type`.

https://spec.matrix.org/v1.19/appendices/#dot-separated-property-paths
"""

from collections.abc import Callable, Mapping
from enum import Enum
from functools import lru_cache
from typing import Final, Literal

PropertyPath = tuple[str, ...]


class _Missing(Enum):
    MISSING = "missing"


MISSING: Final = _Missing.MISSING
"""Stands for a property that is absent. JSON's `null` is a value, so `None` cannot say this."""

Missing = Literal[_Missing.MISSING]


@lru_cache(maxsize=2048)
def split_property_path(path: str) -> PropertyPath:
    r"""Split a path at its dots: `content.m\.federate` is `("content", "m.federate")`.

    A backslash takes the special meaning from a dot or a backslash; before anything else it is an ordinary character.
    """
    if "\\" not in path:
        return tuple(path.split("."))
    properties: list[str] = []
    name: list[str] = []
    characters = iter(path)
    for character in characters:
        if character == ".":
            properties.append("".join(name))
            name = []
        elif character != "\\":
            name.append(character)
        else:
            escaped = next(characters, "")
            name.append(escaped if escaped in (".", "\\") else f"\\{escaped}")
    properties.append("".join(name))
    return tuple(properties)


def property_at(event: Mapping[str, object], path: PropertyPath) -> object | Missing:
    """The value at `path`, or `MISSING` where a step is absent or leads through something that is not an object."""
    value: object = event
    for name in path:
        if not isinstance(value, Mapping):
            return MISSING
        value = value.get(name, MISSING)
    return value


def property_getter(path: PropertyPath) -> Callable[[Mapping[str, object]], object | Missing]:
    """`property_at` with the path filled in, made fast for the paths of one and two steps that push rules live on."""
    if len(path) == 1:
        (only,) = path
        return lambda event: event.get(only, MISSING)
    if len(path) == 2:
        outer, inner = path

        def get_nested(event: Mapping[str, object]) -> object | Missing:
            value = event.get(outer)
            return value.get(inner, MISSING) if isinstance(value, dict) else MISSING

        return get_nested
    first, *rest = path

    def get_deep(event: Mapping[str, object]) -> object | Missing:
        value = event.get(first, MISSING)
        for name in rest:
            if not isinstance(value, dict):
                return MISSING
            value = value.get(name, MISSING)
        return value

    return get_deep

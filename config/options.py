"""The schema seen as data: what the loader and the manual share."""

import dataclasses
import types
import typing
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from config.declare import OptionInfo
from config.schema import Config, IpNetwork
from config.secret import Secret

ENVIRONMENT_PREFIX = "WEFT_"
SCALAR_TYPES = (str, int, float, bool, Path, Secret)


@dataclasses.dataclass(frozen=True, slots=True)
class Option:
    """One field of one of the schema's dataclasses."""

    name: str
    hint: Any
    """The type without `| None`."""
    optional: bool
    """Whether None is a value of it."""
    default: Any
    """`schema.REQUIRED` when there is none."""
    info: OptionInfo

    @property
    def is_scalar(self) -> bool:
        """Whether it is written as one value, which an environment variable can hold."""
        return self.hint in SCALAR_TYPES or typing.get_origin(self.hint) is typing.Literal

    @property
    def item_hint(self) -> Any | None:
        """The type of the items of a list, or None when this is no list."""
        if typing.get_origin(self.hint) in (tuple, frozenset):
            return typing.get_args(self.hint)[0]
        return None


def is_group(hint: Any) -> bool:
    """Whether the type is one of the schema's dataclasses."""
    return isinstance(hint, type) and dataclasses.is_dataclass(hint)


@cache
def options_of(group: type) -> tuple[Option, ...]:
    """The options of one of the schema's dataclasses, in their order."""
    hints = typing.get_type_hints(group)
    options = []
    for field in dataclasses.fields(group):
        hint, optional = _split_optional(hints[field.name])
        options.append(Option(field.name, hint, optional, field.default, field.metadata["option"]))
    return tuple(options)


def _split_optional(hint: Any) -> tuple[Any, bool]:
    if hint == IpNetwork or not isinstance(hint, types.UnionType):
        return hint, False
    (inner,) = [member for member in typing.get_args(hint) if member is not types.NoneType]
    return inner, True


@cache
def environment_variables() -> Mapping[str, str]:
    """The variable that overrides each scalar option, by the option's path: `database.url` → `WEFT_DATABASE_URL`.

    The items of lists have none: how many there are is for the file to say.
    """
    return {path: ENVIRONMENT_PREFIX + path.upper().replace(".", "_") for path in _scalar_paths(Config, "")}


def _scalar_paths(group: type, prefix: str) -> Iterator[str]:
    for option in options_of(group):
        path = prefix + option.name
        if is_group(option.hint):
            yield from _scalar_paths(option.hint, path + ".")
        elif option.is_scalar:
            yield path

"""What options are declared with: a dataclass field that says what it is for, and what it may be."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")

MAX_INTEGER = 2**53 - 1
REQUIRED: Any = dataclasses.MISSING

Check = Callable[[Any], str | None]
"""Says what is wrong with a value, worded to follow the option's name, or None."""


@dataclass(frozen=True, slots=True)
class OptionInfo:
    """What an option's type does not say. Kept as the dataclass field's metadata under "option"."""

    doc: str
    minimum: float | None = None
    maximum: float | None = None
    check: Check | None = None
    """For a list of values, called with each of them."""
    check_all: Check | None = None
    """For a list: called with the whole tuple."""
    secret: bool = False
    """Never shown, and may be given as `{file: path}` or `{env: NAME}`."""
    must_exist: bool = False
    """For a path: a file has to be there."""


def option(
    default: T,
    doc: str,
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    check: Check | None = None,
    check_all: Check | None = None,
    secret: bool = False,
    must_exist: bool = False,
) -> T:
    """A documented dataclass field; `REQUIRED` as the default means that it has to be given."""
    info = OptionInfo(doc, minimum, maximum, check, check_all, secret, must_exist)
    return dataclasses.field(default=default, repr=not secret, metadata={"option": info})

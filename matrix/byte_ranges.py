"""Parts of a file, as HTTP asks for them: https://www.rfc-editor.org/rfc/rfc9110#name-range-requests"""

import re
from typing import NamedTuple

_is_range = re.compile(r"[Bb][Yy][Tt][Ee][Ss]=[ \t]*(?:([0-9]{1,18})-([0-9]{0,18})|-([0-9]{1,18}))[ \t]*").fullmatch
_ENTITY_TAG = re.compile(r'[ \t]*(?:W/)?("[!#-~\x80-\xff]*")[ \t]*(?:,|$)')


class Part(NamedTuple):
    """`length` bytes from `start` on; `is_asked` where a client wants those (206), be they all that there are."""

    start: int
    length: int
    is_asked: bool = True


def select_part(header: str | None, size: int) -> Part | None:
    """The part of a file of `size` bytes that a Range header asks for; None where no byte of it is there (416).

    A header that asks for several parts, for other units or for nonsense is left aside, as it may be: all of the file.
    """
    found = _is_range(header) if header else None
    if found is None:
        return Part(0, size, is_asked=False)
    first, last, suffix = found.groups()
    if suffix is not None:
        length = min(int(suffix), size)
        return Part(size - length, length) if length else None
    start, end = int(first), int(last) if last else size - 1
    if last and end < start:
        return Part(0, size, is_asked=False)
    return Part(start, min(end, size - 1) - start + 1) if start < size else None


def matches_etag(header: str, etag: str) -> bool:
    """Tell whether an If-None-Match header names the entity tag, https://www.rfc-editor.org/rfc/rfc9110#name-if-none-match"""
    return header.strip() == "*" or etag in _ENTITY_TAG.findall(header)
